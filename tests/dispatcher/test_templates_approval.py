"""The commands by which people decide which version of a template is told, on a ledger that a service uses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from dispatcher.cli.templates import templates
from dispatcher.errors import SwipebellError, known_error
from dispatcher.ledger.worker import InlineLedger
from dispatcher.watched import name_of
from tests.dispatcher.template_kit import Folder, Process

OWNER = name_of(os.getuid())


class Bank:
    """A folder with a configuration, templates and a ledger, and the commands run on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = Folder(path / "templates")
        self.approval = True
        self.configure()

    def configure(self) -> None:
        (self.path / "swipebell.toml").write_text(f"[templates]\napproval = {str(self.approval).lower()}\n")

    def start(self) -> list[str]:
        """What a process does when it starts; returns the versions of swipe that it tells by."""

        async def first() -> list[str]:
            ledger = InlineLedger(str(self.path / "ledger.db"))
            try:
                library = await Process(self.folder.path, ledger, approval=self.approval).watch.first(strict=False)
                return [one.pinned for one in library.in_force if one.id == "swipe"]
            finally:
                await ledger.aclose()

        return trio.run(first)

    def run(self, *arguments: str) -> Any:
        return CliRunner().invoke(templates, [*arguments, "--config", str(self.path / "swipebell.toml")])

    def __call__(self, *arguments: str) -> str:
        """Run ``swipebell templates …``; returns what it printed. Raises its error."""
        result = self.run(*arguments)
        if result.exception is not None:
            if isinstance(result.exception, SystemExit):
                raise AssertionError(result.output)
            raise known_error(result.exception) or result.exception
        return str(result.stdout)

    def refused(self, *arguments: str) -> str:
        """The error that a command ends with, status 2."""
        with pytest.raises(SwipebellError) as caught:
            self(*arguments)
        assert caught.value.exit_status == 2
        return str(caught.value)


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    """Swipe's seventh version is told, and the eighth waits for approval."""
    made = Bank(tmp_path)
    made.folder.write(version=7, says="seven {{ merchant }}")
    assert made.start() == ["swipe@7"]
    made.folder.write(version=8, says="eight {{ merchant }}")
    assert made.start() == ["swipe@7"]
    return made


def test_a_version_is_approved_for_some_rolled_out_to_all_and_rolled_back(bank: Bank) -> None:
    # Whose file it is cannot approve it
    assert bank.refused("approve", "swipe@8") == (
        f"template swipe@8: {OWNER} has proposed it and cannot approve it; somebody else has to"
    )
    # When Ben does for a tenth of the accounts
    said = bank("approve", "swipe@8", "--by", "Ben", "--percent", "10", "--note", "shorter")
    assert said == (
        "template swipe@8 is told to 10 % of the accounts, the others swipe@7, within seconds in every process\n"
    )
    assert bank.start() == ["swipe@7", "swipe@8"]
    # And then for all
    assert bank("rollout", "swipe@8", "--percent", "100") == (
        "template swipe@8 is told to all accounts, within seconds in every process\n"
    )
    assert bank.start() == ["swipe@8"]
    # And takes it back
    assert bank("rollback", "swipe", "--by", "Ben", "--note", "typo") == (
        "template swipe@8 is taken back; swipe@7 is told to all accounts, within seconds in every process\n"
    )
    assert bank.start() == ["swipe@7"]
    # Then the history says all of it
    told = bank("history", "swipe")
    assert "swipe@8  withdrawn" in told
    acts = [line for line in told.splitlines() if "(" in line and " by " in line]
    assert [line.split(" ", 2)[2] for line in acts] == [
        f"load swipe@7 by {OWNER} (swipe@7 is told to all accounts)",
        f"propose swipe@8 by {OWNER} (swipe@7 is told to all accounts)",
        f"approve swipe@8 by Ben (account {OWNER}): shorter"
        " (swipe@8 is told to 10 % of the accounts, the others swipe@7)",
        f"rollout swipe@8 by {OWNER} (swipe@8 is told to all accounts)",
        f"rollback swipe@8 by Ben (account {OWNER}): typo (swipe@7 is told to all accounts)",
    ]


def test_who_is_to_approve_a_version_sees_what_it_changes(bank: Bank) -> None:
    told = bank("history", "swipe@8")
    for line in ("--- swipe@7", "+++ swipe@8", "-thing5 = '''seven {{ merchant }}'''", "+version = 8"):
        assert line in told.splitlines()
    data = json.loads(bank("history", "swipe@8", "--json"))
    assert [(one["version"], one["state"], one["before"]) for one in data["versions"]] == [(8, "proposed", 7)]
    assert ("eight" in data["content"], data["layouts"], [one["act"] for one in data["acts"]]) == (
        True,
        {},
        ["propose"],
    )
    whole = json.loads(bank("history", "--json"))
    assert [(one["id"], one["version"]) for one in whole["versions"]] == [("swipe", 8), ("swipe", 7)]
    assert "swipe@8" in bank("history")


def test_a_rejected_version_stays_so(bank: Bank) -> None:
    assert bank.refused("reject", "swipe@8", "--note", " ").startswith("--note: is empty")
    assert bank("reject", "swipe@8", "--note", "too long") == "template swipe@8 is rejected; what is told stays\n"
    assert bank.refused("approve", "swipe@8", "--by", "Ben") == (
        "template swipe@8 was rejected; give the next try a higher version"
    )


def test_a_version_in_which_lint_finds_an_error_is_not_approved(bank: Bank) -> None:
    # Given a version whose picture has no words, which only its mail's readers would notice
    bank.folder.write(version=9, mail="<p>{{ merchant }}</p><img src='https://bank.example/a.png'>")
    bank.start()
    result = bank.run("approve", "swipe@9", "--by", "Ben")
    assert "template swipe@9 cannot be approved: lint finds" in str(result.exception)
    assert "swipebell: swipe@9:" in result.stderr
    assert bank.start() == ["swipe@7"]


def test_where_nobody_is_asked_a_version_is_rolled_out_and_back_all_the_same(bank: Bank) -> None:
    bank.approval = False
    bank.configure()
    assert bank.start() == ["swipe@8"]
    assert bank.refused("approve", "swipe@8", "--by", "Ben").startswith("templates.approval is false")
    data = json.loads(bank("rollout", "swipe@8", "--percent", "25", "--json"))
    assert (data["version"]["state"], data["version"]["percent"], data["act"]["active"]) == ("approved", 25, 7)
    assert bank.start() == ["swipe@7", "swipe@8"]
    bank("rollback", "swipe")
    assert bank.start() == ["swipe@7"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("approve", "swipe", "--by", "Ben"), "name a template and its version, such as swipe@2"),
        (("approve", "swipe@x", "--by", "Ben"), "name a template and its version"),
        (("rollout", "swipe@8", "--percent", "0"), "0 is not in the range 1<=x<=100"),
        (("rollout", "swipe@8"), "Missing option '--percent'"),
        (("reject", "swipe@8"), "Missing option '--note'"),
        (("history", "swipe@"), "name a template and its version"),
    ],
)
def test_a_wrong_call_is_a_usage_error(bank: Bank, arguments: tuple[str, ...], words: str) -> None:
    result = bank.run(*arguments)
    assert (result.exit_code, words in result.output) == (2, True), result.output


def test_what_is_not_there_is_said(bank: Bank, tmp_path: Path) -> None:
    assert bank.refused("history", "large").startswith("there is no template large in this ledger")
    assert bank.refused("rollout", "swipe@8", "--percent", "9") == (
        "template swipe@8 is proposed; it has to be approved before it is rolled out"
    )
    assert bank.refused("approve", "large@1", "--by", "Ben").startswith("there is no template large in this ledger")
    (tmp_path / "ledger.db").unlink()
    with pytest.raises(SwipebellError, match=r"^there is no ledger at .* yet"):
        bank("history")
