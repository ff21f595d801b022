"""The commands of maker and checker, on a ledger that a service uses."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner

from dispatcher.admission import Admitter
from dispatcher.cli import rules_approval
from dispatcher.cli.rules import rules
from dispatcher.config import RulesConfig
from dispatcher.errors import SwipebellError, known_error
from dispatcher.ledger.people import INITIAL, MAX_NOTE_CHARS
from dispatcher.ledger.worker import ThreadedLedger
from dispatcher.metrics import Meter
from dispatcher.rules_watch import RulesWatch
from dispatcher.watched import name_of
from ratelimit.rules import load_rules
from templates.library import Library
from tests.dispatcher.ledger_kit import accepted, recipient

NOW = 1_795_320_000_000


def capped(limit: int) -> str:
    return f'version = 1\n[[rule]]\nid = "cap"\neffect = "cap"\nlimit = {limit}\nper = "account"\nwindow = "day"\n'


def version_of(text: str) -> str:
    return load_rules(text, "test").version_id


ONE, TWO, THREE = (version_of(capped(limit)) for limit in (1, 2, 3))


class Bank:
    """A folder with a configuration that asks for approval, and the commands run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configure("approval = true")
        for limit in (1, 2, 3):
            (folder / f"rules{limit}.toml").write_text(capped(limit))

    def configure(self, rules_section: str) -> None:
        (self.folder / "swipebell.toml").write_text(f'[rules]\nfile = "rules1.toml"\n{rules_section}\n')

    def start(self) -> str:
        """What a process does when it starts; returns the version that it decides by."""

        async def first() -> str:
            ledger = ThreadedLedger(str(self.folder / "ledger.db"))
            try:
                settings = RulesConfig(file=self.folder / "rules1.toml", approval=True)
                watch = RulesWatch(settings, ledger=ledger, meter=Meter(), now_ms=lambda: NOW)
                return (await watch.first(strict=False)).version_id
            finally:
                await ledger.aclose()

        return trio.run(first)

    def swipe(self, count: int) -> None:
        """So many swipes of one account, decided by the rules of the file and accepted now."""
        now_ms = time.time_ns() // 1_000_000
        loaded = load_rules(capped(1), "test")
        at = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat()
        events = [accepted(f"e{number}", account="acc", time=at, currency="CNY") for number in range(count)]

        async def admit() -> None:
            ledger = ThreadedLedger(str(self.folder / "ledger.db"))
            try:
                await ledger.import_recipients([recipient("acc", channels=("wechat",), timezone="Asia/Shanghai")])
                await ledger.ruleset(loaded.version_id, loaded.content, now_ms)
                owner = await ledger.register("test", now_ms, now_ms + 60_000)
                await ledger.admit(events, now_ms, owner, Admitter(loaded, Library.load(), {"wechat": False}))
                await ledger.leave(owner, now_ms)
            finally:
                await ledger.aclose()

        trio.run(admit)

    def __call__(self, *arguments: str) -> str:
        """Run ``swipebell rules …``; returns what it printed. Raises its error."""
        result = CliRunner().invoke(rules, [*arguments, "--config", str(self.folder / "swipebell.toml")])
        if result.exception is not None:
            if isinstance(result.exception, SystemExit):
                raise AssertionError(result.output)
            raise known_error(result.exception) or result.exception
        return result.stdout

    def refused(self, *arguments: str) -> str:
        """The error that a command ends with, status 2."""
        with pytest.raises(SwipebellError) as caught:
            self(*arguments)
        assert caught.value.exit_status == 2
        return str(caught.value)

    def history(self) -> list[dict[str, Any]]:
        changes: list[dict[str, Any]] = json.loads(self("history", "--json"))["changes"]
        return changes


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    made = Bank(tmp_path)
    assert made.start() == ONE
    return made


def file(bank: Bank, limit: int) -> str:
    return str(bank.folder / f"rules{limit}.toml")


def test_one_proposes_and_another_approves(bank: Bank) -> None:
    # Given a bank whose rules let one alert through
    # When Anna proposes two
    said = bank("propose", file(bank, 2), "--by", "Anna", "--note", "customers asked")
    # Then it says what to do, and nothing has changed
    assert f"rules {TWO} are proposed by Anna; in force: {ONE}" in said
    assert f"swipebell rules approve {TWO}" in said
    assert bank.start() == ONE
    # When Ben approves
    assert f"rules {TWO} are in force instead of {ONE}" in bank("approve", TWO, "--by", "Ben")
    # Then a process that starts decides by them, whatever its file says
    assert bank.start() == TWO
    # And the history says who, when, from which version to which, and what was said
    new, old = bank.history()
    account = name_of(os.getuid())
    assert {key: new[key] for key in ("version", "state", "from_version", "note")} == {
        "version": TWO,
        "state": "active",
        "from_version": ONE,
        "note": "customers asked",
    }
    assert (new["proposed_by"], new["proposed_as"], new["decided_by"], new["decided_as"]) == (
        "Anna",
        account,
        "Ben",
        account,
    )
    assert new["proposed_at"] < new["decided_at"]
    assert (old["version"], old["state"], old["proposed_by"], old["from_version"]) == (ONE, "replaced", INITIAL, None)


def test_the_undo_is_to_approve_the_older_version_again(bank: Bank) -> None:
    bank("propose", file(bank, 2), "--by", "Anna")
    bank("approve", TWO, "--by", "Ben")
    assert f"rules {ONE} are in force instead of {TWO}" in bank("approve", ONE, "--by", "Anna", "--note", "too many")
    assert bank.start() == ONE
    assert [(one["version"], one["state"], one["decision"]) for one in bank.history()] == [
        (ONE, "active", "too many"),
        (TWO, "replaced", ""),
        (ONE, "replaced", ""),
    ]


def test_nobody_approves_his_own(bank: Bank) -> None:
    bank("propose", file(bank, 2), "--by", "Anna Li")
    for name in ("Anna Li", "ANNA LI", " anna  li "):
        said = bank.refused("approve", TWO, "--by", name)
        assert said.startswith(f"rules {TWO}: ")
        assert said.endswith("has proposed them and cannot approve them; somebody else has to")
    # Nor is who does not say a name: the account of the operating system is his name
    bank("propose", file(bank, 3))
    assert "cannot approve them" in bank.refused("approve", THREE)
    assert bank.start() == ONE


def test_a_rejected_proposal_says_why(bank: Bank) -> None:
    bank("propose", file(bank, 2), "--by", "Anna")
    assert "rejected" in bank("reject", TWO, "--by", "Ben", "--note", "too many")
    assert bank.refused("approve", TWO, "--by", "Cleo") == f"rules {TWO}: Ben has rejected them; propose them again"
    change = bank.history()[0]
    assert (change["state"], change["decided_by"], change["decision"]) == ("rejected", "Ben", "too many")
    # And she may propose them again
    assert "are proposed by Anna" in bank("propose", file(bank, 2), "--by", "Anna")


def test_the_checker_sees_what_would_change(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_approval, "predicted_effect", lambda *arguments: None)
    bank("propose", file(bank, 2), "--by", "Anna", "--note", "customers [asked]")
    said = bank("history", TWO).splitlines()
    assert said[0] == f"rules {TWO}: proposed"
    assert said[1].endswith(f"by Anna (account {name_of(os.getuid())}): customers [asked]")
    assert said[2] == "  effect: not predicted"
    assert said[3:5] == [f"--- {ONE}", f"+++ {TWO}"]
    assert ("-limit = 1" in said, "+limit = 2" in said) == (True, True)
    # And the table has both versions, with what stands in brackets
    table = bank("history")
    assert all(word in table for word in (ONE, TWO, "proposed", "active", "Anna", INITIAL))


def test_nothing_in_a_file_can_hide_a_change_from_the_checker(bank: Bank) -> None:
    # Given a comment with characters that turn the direction of writing
    (bank.folder / "rules2.toml").write_text("# \u202eharmless\n" + capped(2))
    bank("propose", file(bank, 2), "--by", "Anna")
    # Then they are shown and not obeyed
    assert "+# \\u202eharmless" in bank("history", TWO).splitlines()


def test_the_effect_is_kept_with_the_proposal(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a prediction of the form that what-if gives
    effect = {
        "hours": 24,
        "alerts": 5_000,
        "changed": 1_200,
        "sent": {"wechat": {"recorded": 3_000, "predicted": 1_900}, "sms": {"recorded": 100, "predicted": 0}},
        "suppressed": {"cap": {"recorded": 0, "predicted": 1_200}},
        "sms": {"recorded": 100, "predicted": 0},
    }
    monkeypatch.setattr(rules_approval, "predicted_effect", lambda *arguments: effect)
    said = "effect: 1,200 of 5,000 alerts of the last 24 h otherwise; sent 3,100 → 1,900; suppressed 0 → 1,200"
    # When rules are proposed and approved, then it is told and kept
    assert said in bank("propose", file(bank, 2), "--by", "Anna")
    bank("approve", TWO, "--by", "Ben")
    assert bank.history()[0]["predicted"] == effect
    assert said in bank("history", TWO)


def test_the_effect_is_predicted_from_what_was_recorded(bank: Bank) -> None:
    pytest.importorskip("dispatcher.cli.rules_whatif", reason="this tree has no what-if yet")
    # Given three swipes of today, of which the cap of one a day let one through
    bank.configure('approval = true\n[channels.wechat]\nappid = "wx0"\nsecret_file = "secret"')
    (bank.folder / "secret").write_text("s")
    bank.swipe(3)
    # When a cap of two is proposed, then its effect is told and kept, without any account
    said = bank("propose", file(bank, 2), "--by", "Anna")
    assert "effect: 1 of 3 alerts of the last 24 h otherwise; sent 1 → 2; suppressed 2 → 1\n" in said
    kept = bank.history()[0]["predicted"]
    assert (kept["changed"], kept["hours"]) == (1, 24)
    assert "acc" not in str(kept)


def test_a_ledger_too_large_for_a_prediction_says_so(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dispatcher.cli.rules_whatif", reason="this tree has no what-if yet")
    monkeypatch.setattr(rules_approval, "MAX_PREDICTED_EVENTS", 1)
    bank.swipe(3)
    assert "effect: not predicted" in bank("propose", file(bank, 2), "--by", "Anna")
    assert bank.history()[0]["predicted"] is None


def test_json_is_the_change_without_its_text(bank: Bank) -> None:
    proposed = json.loads(bank("propose", file(bank, 2), "--by", "Anna", "--json"))
    approved = json.loads(bank("approve", TWO, "--by", "Ben", "--json"))
    assert (proposed["id"], proposed["state"], approved["id"], approved["state"]) == (2, "proposed", 2, "active")
    assert "content" not in approved
    # Which the history of one version has
    assert json.loads(bank("history", TWO, "--json"))["changes"][0]["content"] == capped(2)


def test_rules_in_force_are_not_proposed(bank: Bank) -> None:
    assert f"rules {ONE} are in force already" in bank("propose", file(bank, 1), "--by", "Anna")
    assert "are in force already" in bank.refused("approve", ONE, "--by", "Anna")
    bank("propose", file(bank, 2), "--by", "Anna")
    assert "are proposed already by Anna" in bank("propose", file(bank, 2), "--by", "Anna")
    assert len(bank.history()) == 2


BAD: dict[str, tuple[Callable[[Bank], list[str]], str]] = {
    "a broken file": (lambda bank: ["propose", file(bank, 9)], "rules9.toml: no such file"),
    "a folder": (lambda bank: ["propose", str(bank.folder)], "is a folder; name the file"),
    "no name": (lambda bank: ["propose", file(bank, 2), "--by", "  "], "--by: a name has 1 to 64 printable characters"),
    "the name of nobody": (lambda bank: ["propose", file(bank, 2), "--by", "INITIAL"], "--by: 'initial' stands for"),
    "a long note": (
        lambda bank: ["propose", file(bank, 2), "--by", "Anna", "--note", "x" * (MAX_NOTE_CHARS + 1)],
        "--note: a note has at most 1,000 printable characters",
    ),
    "no reason": (lambda bank: ["reject", TWO, "--by", "Ben", "--note", " "], "--note: is empty"),
    "unknown rules": (lambda bank: ["approve", "abc", "--by", "Ben"], "there are no rules abc in this ledger"),
    "unknown history": (lambda bank: ["history", "abc"], "there are no rules abc in this ledger"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_not_allowed_is_said(bank: Bank, what: str) -> None:
    arguments, says = BAD[what]
    assert says in bank.refused(*arguments(bank))
    assert [one["version"] for one in bank.history()] == [ONE]


def test_where_nobody_is_asked_nobody_approves(bank: Bank) -> None:
    bank.configure("")
    for arguments in (["propose", file(bank, 2)], ["approve", ONE], ["reject", ONE, "--note", "no"]):
        assert bank.refused(*arguments).startswith("rules.approval is false in the configuration: ")
    assert len(bank.history()) == 1


def test_a_ledger_that_is_not_there_has_no_history(tmp_path: Path) -> None:
    bank = Bank(tmp_path)
    with pytest.raises(SwipebellError, match=r"^there is no ledger at .*ledger\.db yet; no rules were ever in force"):
        bank("history")
