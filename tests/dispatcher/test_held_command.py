"""`swipebell held`: a person looks at what the rules hold, and releases or discards it while the service runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result
from structlog import reset_defaults

from dispatcher.cli.main import commands
from dispatcher.errors import InputError
from dispatcher.ledger import sqlite_held
from dispatcher.ledger.api import EventStory
from dispatcher.ledger.worker import ThreadedLedger
from replay.explain import tell
from tests.dispatcher.ledger_kit import HOUR_MS, Tell, accepted, admitted, owner_of

LATE_MS = 4_000_000_000_000
"""The year 2096: the command reads the real clock, and what it releases must still be held."""

MORNING = LATE_MS - HOUR_MS


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "swipebell.toml").write_text("")
    yield tmp_path
    reset_defaults()


def held_in(folder: Path, *events: str, rule: str = "storm", due_ms: int = LATE_MS) -> None:
    """Events whose alerts are held in the folder's ledger."""

    async def fill() -> None:
        ledger = ThreadedLedger(str(folder / "ledger.db"))
        decide = Tell("held", reason=rule, expires_ms=LATE_MS, due_ms=due_ms)
        await admitted(ledger, await owner_of(ledger), *map(accepted, events), decide=decide)
        await ledger.aclose()

    trio.run(fill)


def asked(folder: Path, question: Callable[[ThreadedLedger], Any]) -> Any:
    async def ask() -> Any:
        ledger = ThreadedLedger(str(folder / "ledger.db"))
        try:
            return await question(ledger)
        finally:
            await ledger.aclose()

    return trio.run(ask)


def swipebell(folder: Path, *arguments: str, answer: str | None = None) -> Result:
    command = ["held", *arguments, "--config", str(folder / "swipebell.toml")]
    result = CliRunner().invoke(commands, command, input=answer, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def states(folder: Path, *events: str) -> list[str]:
    stories = [asked(folder, lambda ledger, event=event: ledger.explain(event)) for event in events]
    return [story.alerts[0].state for story in stories]


def told(folder: Path, event: str) -> list[str]:
    story: EventStory = asked(folder, lambda ledger: ledger.explain(event))
    return tell(story)


def test_what_is_held_is_listed_by_rule(folder: Path) -> None:
    # Given alerts that wait for a person, and one that waits for the morning
    held_in(folder, "e-1", "e-2")
    held_in(folder, "e-3", rule="[night]", due_ms=MORNING)
    # Then a person reads how many each rule holds, and until when
    shown = swipebell(folder, "list").stdout
    assert "storm holds 2 alerts" in shown
    assert "2 wait until somebody releases or discards them; the last expires 2096-10-02 07:06:40 UTC" in shown
    assert "[night] holds 1 alerts" in shown
    assert "1 go by themselves, the first 2096-10-02 06:06:40 UTC" in shown
    # And a program the same
    data = json.loads(swipebell(folder, "list", "--rule", "storm", "--json").stdout)
    assert [(one["rule"], one["alerts"], one["waiting"]) for one in data["rules"]] == [("storm", 2, 2)]


def test_nothing_held_is_said_so(folder: Path) -> None:
    held_in(folder)
    assert swipebell(folder, "list").stdout == "nothing is held\n"


def test_a_storm_is_released_in_batches_and_told_who_did_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given more alerts than one transaction takes
    monkeypatch.setattr(sqlite_held, "HELD_AT_ONCE", 2)
    held_in(folder, *(f"e-{number}" for number in range(5)))
    assert any("until somebody releases or discards it; otherwise it expires" in line for line in told(folder, "e-0"))
    # When somebody releases them
    result = swipebell(folder, "release", "--rule", "storm", "--by", " Ada ", "--yes", "--json")
    # Then all of them went, as one act
    assert json.loads(result.stdout) == {"act": "released", "rule": "storm", "who": "Ada", "alerts": 5}
    view = asked(folder, lambda ledger: ledger.held())
    assert [(act.act, act.who, act.alerts) for act in view.acts] == [("released", "Ada", 5)]
    assert [one.waiting for one in view.rules] == [0]
    # And each story tells it
    lines = told(folder, "e-4")
    assert any(line.startswith("  released ") and line.endswith(" by Ada") for line in lines)
    assert any("released, on its way to its lane" in line for line in lines)
    assert "by Ada" in swipebell(folder, "list").stdout


def test_what_is_discarded_ends_and_its_story_says_by_whom(folder: Path) -> None:
    held_in(folder, "e-1", "e-2", rule="night", due_ms=MORNING)
    assert "held by rule night until 2096-10-02 06:06:40" in "\n".join(told(folder, "e-1"))
    result = swipebell(folder, "discard", "--rule", "night", "--by", "Bo", "--yes")
    assert result.stdout == "discarded 2 alerts that rule night held\n"
    assert states(folder, "e-1", "e-2") == ["cancelled", "cancelled"]
    story = "\n".join(told(folder, "e-1"))
    assert "cancelled by a person, who discarded what rule night held" in story
    assert " by Bo" in story


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("release", "--rule", "night"), "rule night holds 1 alerts until a time of its own (next 2096-10-02 06:06:40"),
        (("release", "--rule", "strom"), "rule strom holds no alert; those that do: night, storm"),
        (("discard", "--rule", "strom"), "rule strom holds no alert; those that do: night, storm"),
        (("release", "--rule", "storm", "--by", "  "), "--by: a name of 1 to 80 characters"),
        (("release", "--rule", "storm", "--by", "x\ny"), "--by: a name of 1 to 80 characters"),
        (("release", "--rule", "storm", "--by", "x" * 81), "--by: a name of 1 to 80 characters"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    folder: Path, arguments: tuple[str, ...], said: str
) -> None:
    held_in(folder, "e-1")
    held_in(folder, "e-2", rule="night", due_ms=MORNING)
    by = () if "--by" in arguments else ("--by", "Ada")
    with pytest.raises(InputError) as refused:
        swipebell(folder, *arguments, *by, "--yes")
    assert said in str(refused.value)
    view = asked(folder, lambda ledger: ledger.held())
    assert ([one.alerts for one in view.rules], view.acts) == ([1, 1], [])


def test_without_a_terminal_it_wants_to_be_told_that_it_is_meant(folder: Path) -> None:
    held_in(folder, "e-1")
    with pytest.raises(InputError, match="--yes"):
        swipebell(folder, "release", "--rule", "storm", "--by", "Ada", answer="y\n")
    assert states(folder, "e-1") == ["held"]


@pytest.mark.parametrize(("answer", "state"), [("n\n", "held"), ("y\n", "cancelled")])
def test_at_a_terminal_it_asks(folder: Path, answer: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held_in(folder, "e-1")
    monkeypatch.setattr("dispatcher.cli.held._somebody_is_there", lambda: True)
    if state == "held":
        with pytest.raises(InputError, match="nothing was changed"):
            swipebell(folder, "discard", "--rule", "storm", "--by", "Ada", answer=answer)
    else:
        shown = swipebell(folder, "discard", "--rule", "storm", "--by", "Ada", answer=answer)
        assert "End 1 alerts that rule storm holds, untold?" in shown.stderr
    assert states(folder, "e-1") == [state]


def test_a_ledger_that_is_not_there_is_not_made(folder: Path) -> None:
    with pytest.raises(InputError, match="there is no ledger"):
        swipebell(folder, "list")
    assert not (folder / "ledger.db").exists()
