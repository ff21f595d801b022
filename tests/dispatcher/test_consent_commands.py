"""``swipebell recipients consent``, ``consents`` and ``import`` with consents, on a ledger in a file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from dispatcher.cli.consents import SHOWN_REJECTIONS
from dispatcher.cli.recipients import recipients
from dispatcher.errors import ConfigurationError, InputError
from dispatcher.model.recipient import MAX_CONSENTS

PERSON = {"account": "A-77", "openid": "o-1"}
WORD = {"account": "A-77", "category": "promotion", "given": True, "at": "2025-11-01T10:00:00+08:00", "source": "form"}
CARD = "4111 1111 1111 1111"


class Site:
    """A folder with a configuration, and one recipient in its ledger."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "swipebell.toml").write_text('[ledger]\nurl = "sqlite:///ledger.db"\n')

    def run(self, *arguments: str, status: int = 0) -> Result:
        options = ["--config", str(self.folder / "swipebell.toml")]
        result = CliRunner().invoke(recipients, [*arguments, *options], catch_exceptions=False)
        assert result.exit_code == status, result.output
        return result

    def write(self, name: str, *lines: Any) -> str:
        file = self.folder / name
        file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
        return str(file)

    def history(self, account: str = "A-77") -> list[dict[str, Any]]:
        said: list[dict[str, Any]] = json.loads(self.run("consents", account, "--json").stdout)["consents"]
        return said


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    made.run("import", made.write("people.ndjson", PERSON))
    return made


GIVE = ("consent", "A-77", "--category", "promotion", "--give", "--source", "branch form 17")


def test_one_word_is_kept_and_taken_back_and_the_history_has_both(site: Site) -> None:
    # Given a consent of last year, by name and for one channel
    out = site.run(*GIVE, "--channel", "sms", "--at", "2025-11-01T10:00:00+08:00", "--by", "wang").stdout
    assert out == "consents: 1 read, 1 changed, 0 as before, 0 older than what holds, 0 rejected\n"
    # When it is taken back now, in a call that quotes a card
    site.run("consent", "A-77", "--category", "promotion", "--withdraw", "--source", f"call about {CARD} [b]x[/b]")
    # Then both are there, the last one for the channel too
    first, second = site.history()
    assert (first["key"], first["given"], first["by"], first["holds"]) == ("promotion/sms", True, "wang", False)
    assert (second["key"], second["given"], second["holds"]) == ("promotion", False, True)
    assert second["source"] == "call about **** **** **** 1111 [b]x[/b]"
    assert second["by"]
    assert second["at"] <= second["written_at"]
    # And the table says so, one line each
    heading, old, new = site.run("consents", "A-77").stdout.splitlines()
    assert heading.split() == ["said", "role", "about", "word", "source", "written", "down", "by"]
    assert old.startswith("2025-11-01 02:00:00+00:00  primary  promotion/sms  given ")
    assert "withdrawn, holds  call about **** **** **** 1111 [b]x[/b]" in new
    # And no card number is in the ledger
    assert not any(b"1111 1111" in path.read_bytes() for path in site.folder.glob("ledger.db*"))


def test_an_older_word_changes_nothing_and_says_so(site: Site) -> None:
    site.run("consent", "A-77", "--category", "promotion", "--withdraw", "--source", "call")
    report = json.loads(site.run(*GIVE, "--at", "2025-11-01T10:00:00Z", "--json").stdout)
    assert (report["changed"], report["same"], report["older"]) == (0, 0, 1)
    again = json.loads(site.run(*GIVE, "--at", "2025-11-01T10:00:00Z", "--json").stdout)
    assert (again["changed"], again["older"]) == (0, 1)
    assert [(one["given"], one["holds"]) for one in site.history()] == [(True, False), (False, True)]


def test_a_file_of_words_is_kept_but_for_the_lines_that_are_broken(site: Site) -> None:
    lines = [
        WORD,
        "{broken",
        WORD | {"account": "A-9"},
        WORD | {"role": "spouse"},
        WORD | {"at": "2125-01-01T00:00:00Z"},
        WORD | {"category": "service", "channel": "sms", "branch": "Pudong"},
    ]
    file = site.folder / "words.ndjson.gz"
    file.write_bytes(gzip.compress(Path(site.write("words.ndjson", *lines)).read_bytes()))
    result = site.run("consent", "--file", str(file), "--by", "post room", status=3)
    assert result.stdout == "consents: 6 read, 2 changed, 0 as before, 0 older than what holds, 4 rejected\n"
    said = result.stderr.splitlines()
    assert said[0].startswith("line 2: not JSON")
    assert said[1:3] == [f"line {n}: field account: no recipient has this account and role" for n in (3, 4)]
    assert said[3] == "line 5: field at: a time lies in the future; check its zone"
    assert said[4] == "unknown field ignored: branch (1 lines)"
    assert [(one["key"], one["by"]) for one in site.history()] == [
        ("promotion", "post room"),
        ("service/sms", "post room"),
    ]
    # And the same file again changes nothing
    report = json.loads(site.run("consent", "--file", str(file), "--json", status=3).stdout)
    assert (report["changed"], report["same"], report["older"], len(report["rejected"])) == (0, 2, 0, 4)


def test_of_many_rejected_lines_the_first_are_named(site: Site) -> None:
    many = [WORD | {"category": f"c{number}"} for number in range(MAX_CONSENTS + SHOWN_REJECTIONS + 2)]
    result = site.run("consent", "--file", site.write("many.ndjson", *many), status=3)
    said = result.stderr.splitlines()
    assert said[0] == f"line {MAX_CONSENTS + 1}: field category: the recipient would have more than 64 consents"
    assert len(said) == SHOWN_REJECTIONS + 1
    assert said[-1] == "… and 2 more rejected lines"


def test_an_import_brings_consents_and_says_which_came_too_late(site: Site) -> None:
    said = {"promotion": {"given": True, "at": "2025-11-01T10:00:00+08:00", "source": f"card {CARD}"}}
    site.run("consent", "A-77", "--category", "service", "--withdraw", "--source", "call")
    file = site.write("new.ndjson", PERSON | {"consents": said | {"service": said["promotion"]}})
    assert "consents: 1 changed nothing: a later word holds" in site.run("import", file).stdout
    assert [(one["key"], one["source"], one["holds"]) for one in site.history()] == [
        ("promotion", "card **** **** **** 1111", True),
        ("service", "card **** **** **** 1111", False),
        ("service", "call", True),
    ]
    # And one that a card has no room for is refused by its line
    more = {f"c{number}": said["promotion"] for number in range(MAX_CONSENTS)}
    result = site.run("import", site.write("more.ndjson", PERSON | {"consents": more}), status=3)
    assert result.stderr == "line 1: field consents: the recipient would have more than 64\n"
    # And so is one of the future
    late = {"promotion": said["promotion"] | {"at": "2125-01-01T00:00:00Z"}}
    result = site.run("import", site.write("late.ndjson", PERSON | {"consents": late}), status=3)
    assert "line 1: field consents: a time lies in the future" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "missing: ACCOUNT, --category, --source, --give or --withdraw"),
        (["A-77", "--category", "promotion", "--source", "form"], "missing: --give or --withdraw"),
        (["A-77", "--file", "x.ndjson"], "leave ACCOUNT and the other options out"),
        (["--give", "--file", "x.ndjson"], "leave ACCOUNT and the other options out"),
        ([*GIVE[1:], "--channel", "fax"], "'fax' is not one of 'wechat', 'sms', 'email', 'webhook'"),
    ],
)
def test_a_command_without_what_it_needs_ends_as_wrong_usage(site: Site, arguments: list[str], says: str) -> None:
    assert says in site.run("consent", *arguments, status=2).stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([*GIVE, "--at", "yesterday"], "--at: expected a time with its zone such as 2026-11-01T10:00:00+08:00"),
        ([*GIVE, "--at", "2125-01-01T00:00:00Z"], "--at: a time lies in the future; check its zone"),
        ([*GIVE, "--template", "sale"], "--template: is about a channel: add its channel"),
        ([*GIVE, "--category", "a/b"], "--category: expected a name of 1 to 64 characters without / and *"),
        ([*GIVE, "--source", " "], "--source: a source is only blanks"),
        ([*GIVE, "--by", ""], "--by: expected a name of 1 to 64 characters without / and *"),
        (["consent", "x" * 129, *GIVE[2:]], "ACCOUNT: expected a string of 1 to 128 characters"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(site: Site, arguments: list[str], says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        site.run(*arguments)
    assert str(caught.value) == says
    assert site.history() == []


def test_a_word_of_nobody_is_an_error(site: Site) -> None:
    with pytest.raises(InputError, match="no recipient of this role"):
        site.run(*GIVE, "--role", "spouse")
    # And one more than a card takes
    words = [WORD | {"category": f"c{number}"} for number in range(MAX_CONSENTS)]
    site.run("consent", "--file", site.write("words.ndjson", *words))
    with pytest.raises(InputError, match="64 consents already"):
        site.run(*GIVE)


def test_where_nothing_was_said_the_history_says_so(site: Site, tmp_path: Path) -> None:
    assert site.run("consents", "A-9").stdout == "nothing was ever said for this account\n"
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(InputError, match="there is no ledger"):
        Site(tmp_path / "elsewhere").run("consents", "A-77")


def test_without_a_login_name_nobody_is_written_down(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a machine on which the user has no name
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", _nobody)
    site.run(*GIVE)
    assert site.history()[0]["by"] == ""


def _nobody(number: int) -> Any:
    raise KeyError(number)


def test_the_commands_are_under_recipients() -> None:
    assert isinstance(recipients, click.Group)
    assert {"consent", "consents"} <= set(recipients.commands)
