"""Changes of the rules in the ledger: at most one is in force, nobody approves his own, and no act is lost."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from dispatcher.ledger.api import Ledger
from dispatcher.ledger.people import (
    MAX_NAME_CHARS,
    MAX_NOTE_CHARS,
    ChangeRefused,
    Person,
    checked_name,
    checked_note,
    same_person,
)
from dispatcher.ledger.rule_changes import MAX_OPEN_PROPOSALS, Activate, Approve, Propose, Reject, RuleChange
from tests.dispatcher.ledger_kit import NOW

ANNA, BEN, CLEO = Person("Anna Li", "anna"), Person("Ben", "ops"), Person("Cleo", "ops")


async def activated(ledger: Ledger, version: str, by: Person = ANNA, at_ms: int = NOW, **options: Any) -> RuleChange:
    return await ledger.rule_act(
        Activate(version=version, content=f"# {version}", by=by, at_ms=at_ms, **options),
    )


async def proposed(ledger: Ledger, version: str, by: Person = ANNA, at_ms: int = NOW, **options: Any) -> RuleChange:
    return await ledger.rule_act(Propose(version=version, content=f"# {version}", by=by, at_ms=at_ms, **options))


async def approved(ledger: Ledger, version: str, by: Person = BEN, at_ms: int = NOW) -> RuleChange:
    return await ledger.rule_act(Approve(version=version, by=by, at_ms=at_ms, note="looks right"))


async def states(ledger: Ledger) -> list[tuple[str, str]]:
    """(version, state), the latest act first."""
    return [(change.version, change.state) for change in await ledger.rule_history(99)]


async def test_without_approval_each_change_is_in_force_at_once(ledger: Ledger) -> None:
    # Given a ledger that knows no rules
    assert await ledger.rule_active(0) is None
    # When a file comes in force, and another one
    first = await activated(ledger, "v1")
    second = await activated(ledger, "v2", BEN, NOW + 5)
    # Then the ledger says which one is, from which version it came, and whose file it was
    active = await ledger.rule_active(0)
    assert active == second
    assert (second.from_version, second.proposed_by, second.decided_by, second.decided_at) == (
        "v1",
        "Ben",
        None,
        NOW + 5,
    )
    assert (first.from_version, first.proposed_as, first.content) == (None, "anna", "# v1")
    assert await states(ledger) == [("v2", "active"), ("v1", "replaced")]
    # And whoever knows it already is told nothing
    assert await ledger.rule_active(second.id) is None


async def test_processes_that_see_the_same_file_record_it_once(ledger: Ledger) -> None:
    changes: list[RuleChange] = []

    async def one() -> None:
        changes.append(await activated(ledger, "v1"))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(one)
    assert len({change.id for change in changes}) == 1
    assert await states(ledger) == [("v1", "active")]


async def test_a_start_does_not_put_its_file_over_approved_rules(ledger: Ledger) -> None:
    await activated(ledger, "v1", only_first=True)
    kept = await activated(ledger, "v2", only_first=True)
    assert kept.version == "v1"
    assert await states(ledger) == [("v1", "active")]


async def test_a_proposal_is_in_force_when_somebody_else_approves_it(ledger: Ledger) -> None:
    # Given rules in force, and others proposed with a note and their effect
    await activated(ledger, "v1")
    change = await proposed(ledger, "v2", note="fewer promotions", predicted={"sent": -12})
    assert (await ledger.rule_active(0) or change).version == "v1"
    # When another person approves
    done = await approved(ledger, "v2", at_ms=NOW + 9)
    # Then it is in force, and everything that was said is kept
    assert done.id == change.id
    assert await ledger.rule_active(0) == done
    assert (done.state, done.from_version, done.note, done.predicted) == (
        "active",
        "v1",
        "fewer promotions",
        {"sent": -12},
    )
    assert (done.proposed_by, done.proposed_as, done.proposed_at) == ("Anna Li", "anna", NOW)
    assert (done.decided_by, done.decided_as, done.decided_at, done.decision) == ("Ben", "ops", NOW + 9, "looks right")
    assert await states(ledger) == [("v2", "active"), ("v1", "replaced")]


@pytest.mark.parametrize("spelling", ["Anna Li", "anna li", " ANNA  LI ", "AnnaLi", "Ａｎｎａ　Ｌｉ", "Anna\u200b Li"])
async def test_nobody_approves_what_he_has_proposed_however_he_spells_his_name(ledger: Ledger, spelling: str) -> None:
    # Given
    await activated(ledger, "v1", CLEO)
    await proposed(ledger, "v2")
    # When
    with pytest.raises(ChangeRefused, match=r"^rules v2: .* has proposed them and cannot approve them"):
        await approved(ledger, "v2", Person(spelling))
    # Then
    assert await states(ledger) == [("v2", "proposed"), ("v1", "active")]


async def test_two_proposers_of_the_same_rules_cannot_approve_each_others(ledger: Ledger) -> None:
    # Given the same rules proposed by two people (and twice by one of them)
    mine = await proposed(ledger, "v2", ANNA)
    await proposed(ledger, "v2", BEN)
    assert (await proposed(ledger, "v2", ANNA)).id == mine.id
    # Then neither of them can approve, but a third one can, once
    for person in (ANNA, BEN):
        with pytest.raises(ChangeRefused, match="cannot approve"):
            await approved(ledger, "v2", person)
    await approved(ledger, "v2", CLEO)
    assert await states(ledger) == [("v2", "active"), ("v2", "replaced")]
    with pytest.raises(ChangeRefused, match=r"^rules v2 are in force already, since Cleo$"):
        await approved(ledger, "v2", CLEO)


async def test_approving_an_older_version_again_is_the_undo(ledger: Ledger) -> None:
    # Given rules that were replaced
    await activated(ledger, "v1", CLEO)
    await proposed(ledger, "v2", ANNA)
    await approved(ledger, "v2", BEN, NOW + 1)
    # When somebody who did not propose them goes back to the first ones
    with pytest.raises(ChangeRefused, match="Cleo has proposed them"):
        await approved(ledger, "v1", CLEO)
    back = await approved(ledger, "v1", ANNA, NOW + 2)
    # Then they are in force again, as an act of its own, with the text that they had
    assert (back.state, back.from_version, back.content, back.decided_by) == ("active", "v2", "# v1", "Anna Li")
    assert await states(ledger) == [("v1", "active"), ("v2", "replaced"), ("v1", "replaced")]
    # And forth again
    assert (await approved(ledger, "v2", CLEO, NOW + 3)).from_version == "v1"


async def test_rejected_rules_stay_out_until_they_are_proposed_again(ledger: Ledger) -> None:
    # Given
    await activated(ledger, "v1", CLEO)
    await proposed(ledger, "v2")
    # When
    done = await ledger.rule_act(Reject(version="v2", by=BEN, at_ms=NOW + 1, note="caps are too high"))
    # Then nothing is in force but what was, and it says who refused
    assert (done.state, done.decided_by, done.decision) == ("rejected", "Ben", "caps are too high")
    with pytest.raises(ChangeRefused, match=r"^rules v2: Ben has rejected them; propose them again$"):
        await approved(ledger, "v2", CLEO)
    # And a file that still says so is not a new proposal, but a person who says so again is
    assert (await proposed(ledger, "v2", BEN, only_new=True)).state == "rejected"
    assert (await proposed(ledger, "v2", at_ms=NOW + 2)).state == "proposed"
    assert await states(ledger) == [("v2", "proposed"), ("v2", "rejected"), ("v1", "active")]


async def test_what_cannot_be_decided_is_said_and_changes_nothing(ledger: Ledger) -> None:
    await activated(ledger, "v1", CLEO)
    assert (await proposed(ledger, "v1")).state == "active"
    with pytest.raises(ChangeRefused, match=r"^there are no rules v9 in this ledger; none are proposed$"):
        await approved(ledger, "v9")
    await proposed(ledger, "v2")
    with pytest.raises(ChangeRefused, match=r"^there are no rules v9 .* these wait for a decision: v2$"):
        await ledger.rule_act(Reject(version="v9", by=BEN, at_ms=NOW, note="no"))
    with pytest.raises(ChangeRefused, match=r"^rules v1 are active, not proposed"):
        await ledger.rule_act(Reject(version="v1", by=BEN, at_ms=NOW, note="no"))
    assert await states(ledger) == [("v2", "proposed"), ("v1", "active")]


async def test_a_file_that_is_written_again_and_again_does_not_fill_the_ledger(ledger: Ledger) -> None:
    for number in range(MAX_OPEN_PROPOSALS):
        await proposed(ledger, f"v{number}")
    with pytest.raises(ChangeRefused, match=f"^{MAX_OPEN_PROPOSALS} proposals wait for a decision already"):
        await proposed(ledger, "one more")


async def test_the_history_of_one_version(ledger: Ledger) -> None:
    await activated(ledger, "v1")
    await activated(ledger, "v2", at_ms=NOW + 1)
    await activated(ledger, "v1", at_ms=NOW + 2)
    assert [change.state for change in await ledger.rule_history(9, "v1")] == ["active", "replaced"]
    assert [change.version for change in await ledger.rule_history(1)] == ["v1"]
    assert await ledger.rule_history(9, "v3") == []


def test_names_of_different_people_are_different() -> None:
    assert same_person("Straße", "STRASSE")
    assert same_person("李 安娜", "李安娜")
    assert not same_person("Anna", "Anne")
    assert not same_person("a.li", "ali")


@pytest.mark.parametrize("name", ["", "  ", "\u200b", "x" * (MAX_NAME_CHARS + 1), "a\x00b", "Initial", "i n i t i a l"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ChangeRefused, match=r"^--by: "):
        checked_name(name)


def test_names_and_notes_are_kept_on_one_line() -> None:
    assert checked_name("  Anna \t Li ") == "Anna Li"
    assert checked_note("first\n second") == "first second"
    for note in ("x" * (MAX_NOTE_CHARS + 1), "a\x1b[31m"):
        with pytest.raises(ChangeRefused, match=r"^--note: "):
            checked_note(note)
