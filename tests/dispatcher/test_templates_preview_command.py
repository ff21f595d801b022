"""``swipebell templates preview``: where it writes, what it says, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from structlog import reset_defaults

from dispatcher.cli.main import commands
from dispatcher.errors import ConfigurationError, InputError
from templates.library import SHIPPED, Library

EVENT = {
    "id": "e1",
    "account": "a1",
    "pan": "************5770",
    "amount": 7261,
    "currency": "GBP",
    "merchant": "shell kings 587",
    "time": "2026-01-03T15:27:27+00:00",
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    reset_defaults()


def ran(*arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(commands, ["templates", "preview", *arguments], input=given)


def test_one_template_is_written_where_asked(here: Path) -> None:
    """Given an id, then its page is written, here or where --out says, and nothing else."""
    for arguments, name in ((("swipe",), "preview-swipe.html"), (("swipe@1", "--out", "x.html"), "x.html")):
        result = ran(*arguments)
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith(f"{name}: 1 template, ")
        assert (here / name).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert {path.name for path in here.iterdir()} == {"preview-swipe.html", "x.html"}


def test_an_event_is_shown_as_its_recipient_gets_it(here: Path) -> None:
    """Given an event on stdin, its recipient's zone, the day's total and a sign, then the page has all of them."""
    settings = ("--timezone", "Europe/London", "--day-total", "9900", "--sign", "蓝行")
    result = ran("swipe", "--event", "-", *settings, given=json.dumps(EVENT))
    assert result.exit_code == 0, result.output
    page = (here / "preview-swipe.html").read_text(encoding="utf-8")
    for told in ("£72.61", "2026-01-03 15:27", "Day total £99.00", "shell kings 587", "【蓝行】"):
        assert told in page


def test_the_sign_is_that_of_the_configuration(here: Path) -> None:
    """Given a swipebell.toml with a sign, then SMS have it, with its brackets."""
    (here / "swipebell.toml").write_text(
        '[channels.sms]\nvendor = "generic"\nbase_url = "http://127.0.0.1:1"\nsign = "蓝行"\n', encoding="utf-8"
    )
    assert ran("swipe").exit_code == 0
    assert "【蓝行】" in (here / "preview-swipe.html").read_text(encoding="utf-8")


def test_the_whole_library_is_written_into_a_folder(here: Path) -> None:
    """Given --all, then each template has its page, and the index leads to them."""
    result = ran("--all", "--out", "out/pages", "--json", "--locale", "en")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert told["file"] == "out/pages/index.html"
    assert told["templates"] == sorted(template.pinned for template in Library.load())
    names = {f"preview-{template.id}.html" for template in Library.load()}
    assert {path.name for path in (here / "out/pages").iterdir()} == names | {"index.html"}
    index = (here / "out/pages/index.html").read_text(encoding="utf-8")
    assert all(f'href="{name}"' in index for name in names)
    assert "简体中文" not in index


def test_a_folder_of_one_s_own_is_shown_with_its_findings(here: Path) -> None:
    """Given a template of one's own with a picture without words, then what lint says is told and on the page."""
    folder = here / "mine" / "swipe"
    folder.mkdir(parents=True)
    text = (SHIPPED / "swipe" / "template.toml").read_text(encoding="utf-8")
    changed = re.sub(
        r'(?s)^html = """.*?"""', "html = \"<img src='https://bank.example/1.png'>{{ amount }}\"", text, flags=re.M
    )
    (folder / "template.toml").write_text(changed, encoding="utf-8")
    result = ran("swipe", "--path", "mine")
    assert result.exit_code == 0, result.output
    assert "[email.en] html" in result.stderr
    assert "[email.en] html" in (here / "preview-swipe.html").read_text(encoding="utf-8")


def test_what_is_not_understood_is_said(here: Path) -> None:
    """Given a template, an event, options or a place that cannot be, then one line says what is wrong."""
    (here / "event.json").write_text('{"id": "e1"}', encoding="utf-8")
    (here / "file").write_text("")
    for arguments, kind, words in (
        (("swpie",), ConfigurationError, "no template 'swpie'"),
        (("swipe", "--event", "none.json"), ConfigurationError, "none.json: cannot be read"),
        (("swipe", "--event", "event.json"), InputError, "event.json: "),
        (("swipe", "--out", "no/x.html"), ConfigurationError, "--out no/x.html: cannot be written"),
        (("--all", "--out", "file"), ConfigurationError, "--out file: cannot be made"),
    ):
        result = ran(*arguments)
        assert isinstance(result.exception, kind), arguments
        assert words in str(result.exception)
    for arguments, words in (
        ((), "name one template, or all of them with --all"),
        (("swipe", "--all"), "name one template, or all of them with --all"),
        (("--all", "--event", "event.json"), "--event is shown by one template"),
        (("swipe", *(word for n in range(5) for word in ("--locale", f"x{n}"))), "--locale is given 5 times"),
        (("swipe", "--locale", "<b>"), "--locale '<b>' is not a locale"),
    ):
        result = ran(*arguments)
        assert result.exit_code == 2
        assert words in result.stderr
    assert {path.name for path in here.iterdir()} == {"event.json", "file"}
