"""What every ledger keeps: what a rule holds comes due in its time, or when a person says so, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from msgspec.structs import replace

from dispatcher.events import Accepted
from dispatcher.ledger import sqlite_held
from dispatcher.ledger.api import Counted, Decisions, Ledger
from dispatcher.ledger.held import HeldAct, HeldBy, Hold
from dispatcher.model.recipient import Recipient
from tests.dispatcher.ledger_kit import (
    HOUR_MS,
    NOW,
    Tell,
    accepted,
    admitted,
    alert_story,
    in_halves,
    owner_of,
    recipient,
    state_of,
    step,
)

MORNING = NOW + 600_000
AGE = NOW + HOUR_MS
BEYOND = 2**62


def night() -> Tell:
    return Tell("held", reason="night", due_ms=MORNING)


def storm(rule: str = "storm") -> Tell:
    return Tell("held", reason=rule, due_ms=AGE)


async def waiting(ledger: Ledger, owner: int, *events: str, decide: Tell | None = None) -> None:
    """Events of one account whose alerts are held."""
    assert await admitted(ledger, owner, *(accepted(one) for one in events), decide=decide or storm()) == []


async def books_hold(ledger: Ledger, held: int, still_open: int) -> None:
    books = await ledger.books()
    assert (books.balanced, books.states.get("held", 0), books.open) == (True, held, still_open)


# ---- until its time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lease_as", ["sending", "queued"])
async def test_a_held_alert_comes_due_like_a_retry(ledger: Ledger, lease_as: Any) -> None:
    # Given an alert that is held until the morning
    owner = await owner_of(ledger)
    await ledger.import_recipients([recipient()])
    admission = await ledger.admit([accepted("e-1")], NOW, owner, night())
    assert (admission.alerts, admission.ended, admission.held) == ([], {}, {"night": 1})
    await books_hold(ledger, 1, 1)
    story = await alert_story(ledger)
    assert (story.state, story.reason, story.due_at, story.ended_at) == ("held", "night", MORNING, None)
    assert (story.day_total, story.saw) == (-42, {"amount": 7261, "threshold/sms": 10_000})

    # Then nobody gets it before, and then the one that asks first, with all that its lane needs
    assert await ledger.due("wechat", MORNING - 1, owner, 10, lease_as) == []
    (alert,) = await ledger.due("wechat", MORNING, owner, 10, lease_as)
    assert (alert.state, alert.attempts, alert.first_attempt_ms, alert.day_total) == ("held", 0, None, -42)
    assert (alert.event.id, alert.route, alert.expires_ms) == ("e-1", ("wechat", "sms"), AGE)
    assert await ledger.due("wechat", MORNING, owner, 10, lease_as) == []
    assert await state_of(ledger) == lease_as
    await books_hold(ledger, 0, 1)

    # And its story remembers that it was held
    await ledger.record([step(alert, "delivered")], owner)
    story = await alert_story(ledger)
    assert (story.state, story.reason, story.hold) == ("delivered", None, Hold("night", MORNING))
    await books_hold(ledger, 0, 0)


async def test_what_died_with_its_process_after_it_was_held_goes_on_as_a_retry(ledger: Ledger) -> None:
    owner, other = await owner_of(ledger), await owner_of(ledger, "there", lease_ms=2 * HOUR_MS)
    await waiting(ledger, owner, "e-1", decide=night())
    assert len(await ledger.due("wechat", MORNING, owner, 10, "queued")) == 1
    assert await ledger.take_over(other, MORNING) == 1
    (alert,) = await ledger.due("wechat", MORNING, other, 10, "sending")
    assert (alert.state, alert.attempts) == ("retrying", 0)


async def test_the_end_of_its_process_is_nothing_to_a_held_alert(ledger: Ledger) -> None:
    owner, other = await owner_of(ledger), await owner_of(ledger, "there")
    await waiting(ledger, owner, "e-1", decide=night())
    await ledger.leave(owner, NOW + 1)
    assert await state_of(ledger) == "held"
    assert await ledger.due("wechat", MORNING - 1, other, 10, "sending") == []


async def test_nothing_is_held_for_longer_than_its_age(ledger: Ledger) -> None:
    # Given rules that hold an alert until after it would expire
    owner = await owner_of(ledger)
    await waiting(ledger, owner, "e-1", decide=Tell("held", reason="night", due_ms=AGE + 1))
    # Then it is looked at when its age ends
    (alert,) = await ledger.due("wechat", AGE, owner, 10, "sending")
    assert alert.expires_ms == AGE


async def test_what_is_held_for_long_need_not_be_waited_for(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    await waiting(ledger, owner, "e-1", decide=night())
    await waiting(ledger, owner, "e-2", decide=storm())
    await admitted(ledger, owner, accepted("e-3"))
    assert await ledger.open_count() == 3
    counts = [await ledger.open_count(until) for until in (MORNING - 1, MORNING, AGE - 1, AGE)]
    assert counts == [1, 2, 2, 3]


@pytest.mark.parametrize("lacks", ["recipient", "channel", "rule", "time"])
async def test_an_alert_cannot_be_held_without_what_it_will_need(ledger: Ledger, lacks: str) -> None:
    @in_halves
    def decide(batch: Sequence[Accepted], told: Mapping[str, Sequence[Recipient]], now: int, c: Counted) -> Decisions:
        draft = night().decide(batch, told, now, c).drafts[0][0]
        gone = {"recipient": {"recipient": None}, "channel": {"route": ()}, "rule": {"reason": None}}
        return Decisions([[replace(draft, **gone.get(lacks, {"due_ms": None}))]], {})

    owner = await owner_of(ledger)
    await ledger.import_recipients([recipient()])
    with pytest.raises(ValueError, match="held needs a recipient, a channel, a rule and a time"):
        await ledger.admit([accepted("e-1")], NOW, owner, decide)
    assert await ledger.explain("e-1") is None


# ---- taken back ---------------------------------------------------------------------------------------------------


async def test_what_is_reversed_while_it_is_held_is_not_told_and_neither_is_its_reversal(ledger: Ledger) -> None:
    # Given purchases that are held
    owner = await owner_of(ledger)
    await waiting(ledger, owner, "e-1", decide=night())
    await waiting(ledger, owner, "e-2", decide=storm())

    # When they are taken back; also one whose reversal would itself be held, and one in the same batch
    def taken_back(event: str) -> Accepted:
        return accepted(f"r-{event}", type="reversal", refers_to=event, amount=-7261)

    first = await ledger.admit([taken_back("e-1")], NOW + 1, owner, Tell())
    second = await ledger.admit([taken_back("e-2"), accepted("e-3"), taken_back("e-3")], NOW + 1, owner, night())

    # Then of none anything is told, and nothing is held any more
    assert first.ended == {("cancelled", "r-e-1"): 1, ("suppressed", "reversed-before-sending"): 1}
    assert (first.alerts, second.alerts, second.held) == ([], [], {})
    for event in ("e-1", "e-2", "e-3"):
        assert [await state_of(ledger, event), await state_of(ledger, f"r-{event}")] == ["cancelled", "suppressed"]
    assert await ledger.due("wechat", AGE, owner, 10, "sending") == []
    assert (await ledger.held()).rules == []
    await books_hold(ledger, 0, 0)


# ---- people -------------------------------------------------------------------------------------------------------


async def test_what_each_rule_holds_is_shown(ledger: Ledger) -> None:
    # Given alerts held by two storm rules and by the night
    owner = await owner_of(ledger)
    await waiting(ledger, owner, "e-1", "e-2")
    await ledger.admit([accepted("e-3")], NOW + 5, owner, storm())
    await waiting(ledger, owner, "e-4", decide=storm("other"))
    await waiting(ledger, owner, "e-5", decide=night())

    rules = (await ledger.held()).rules
    ids = [(await alert_story(ledger, f"e-{number}")).id for number in range(1, 6)]
    assert rules == [
        HeldBy("night", 1, 0, NOW, NOW, MORNING, MORNING, ids[4]),
        HeldBy("other", 1, 1, NOW, NOW, AGE, AGE, ids[3]),
        HeldBy("storm", 3, 3, NOW, NOW + 5, AGE, AGE, ids[2]),
    ]
    assert (await ledger.held("storm")).rules == rules[2:]
    assert (await ledger.held("no such rule")).rules == []


async def test_a_person_releases_what_a_storm_rule_holds(ledger: Ledger) -> None:
    # Given alerts held by two storm rules, and one that came after the person had looked
    owner = await owner_of(ledger)
    await waiting(ledger, owner, "e-1", "e-2")
    await waiting(ledger, owner, "e-3", decide=storm("other"))
    up_to = (await ledger.held("storm")).rules[0].up_to
    await waiting(ledger, owner, "e-4")

    # When one rule's are released
    assert await ledger.release_held("storm", NOW + 9, "ada", up_to) == 2
    assert await ledger.release_held("storm", NOW + 9, "ada", up_to) == 0

    # Then those are due, and no others
    assert await ledger.due("wechat", NOW + 8, owner, 10, "sending") == []
    assert [alert.event.id for alert in await ledger.due("wechat", NOW + 9, owner, 10, "sending")] == ["e-1", "e-2"]
    assert [await state_of(ledger, "e-3"), await state_of(ledger, "e-4")] == ["held", "held"]

    # And who did it is kept, and told with each alert
    assert (await ledger.held()).acts == [HeldAct(NOW + 9, "released", "storm", "ada", 2)]
    assert (await alert_story(ledger)).hold == Hold("storm", AGE, "released", "ada", NOW + 9)
    assert (await alert_story(ledger, "e-4")).hold == Hold("storm", AGE)


async def test_what_goes_by_itself_is_not_released(ledger: Ledger) -> None:
    # Given an alert that is counted in the window that it is held for
    owner = await owner_of(ledger)
    await waiting(ledger, owner, "e-1", decide=night())
    # Then nobody can let it go now
    assert await ledger.release_held("night", NOW + 1, "ada", BEYOND) == 0
    assert await ledger.due("wechat", MORNING - 1, owner, 10, "sending") == []
    assert (await ledger.held()).acts == []


async def test_a_person_discards_what_a_rule_holds(ledger: Ledger) -> None:
    # Given alerts that are held, one of them released but not yet taken up
    owner = await owner_of(ledger)
    await waiting(ledger, owner, "e-1")
    await ledger.release_held("storm", NOW + 1, "ada", BEYOND)
    await waiting(ledger, owner, "e-2")
    await waiting(ledger, owner, "e-3", decide=night())

    # When a person ends them
    assert await ledger.discard_held("storm", NOW + 2, "bo", BEYOND) == 2
    assert await ledger.discard_held("night", NOW + 3, "bo", BEYOND) == 1

    # Then they have their end, and the books balance
    for event, rule in (("e-1", "storm"), ("e-2", "storm"), ("e-3", "night")):
        story = await alert_story(ledger, event)
        assert (story.state, story.reason, story.due_at) == ("cancelled", f"discarded:{rule}", None)
        assert story.hold is not None
        assert (story.hold.act, story.hold.who) == ("discarded", "bo")
    assert await ledger.due("wechat", AGE, owner, 10, "sending") == []
    await books_hold(ledger, 0, 0)
    assert [act.act for act in (await ledger.held("storm")).acts] == ["discarded", "released"]

    # And who was not told of a purchase is not told of its reversal
    back = accepted("r-1", type="reversal", refers_to="e-1", amount=-7261)
    assert (await ledger.admit([back], NOW + 4, owner, Tell())).alerts == []


async def test_many_are_let_go_batch_by_batch_as_one_act(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given more than one transaction takes
    monkeypatch.setattr(sqlite_held, "HELD_AT_ONCE", 3)
    owner = await owner_of(ledger)
    await waiting(ledger, owner, *(f"e-{number}" for number in range(8)))
    # When they are released until none is left
    counts = [await ledger.release_held("storm", NOW + 1, "ada", BEYOND) for _ in range(4)]
    # Then each went once, in one act
    assert counts == [3, 3, 2, 0]
    assert (await ledger.held()).acts == [HeldAct(NOW + 1, "released", "storm", "ada", 8)]
    assert len(await ledger.due("wechat", NOW + 1, owner, 10, "sending")) == 8


async def test_of_what_people_did_the_last_is_shown(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    for number in range(sqlite_held.ACTS_SHOWN + 2):
        await waiting(ledger, owner, f"e-{number}")
        await ledger.discard_held("storm", NOW + number, "ada", BEYOND)
    acts = (await ledger.held()).acts
    assert [act.at - NOW for act in acts] == list(range(sqlite_held.ACTS_SHOWN + 1, 1, -1))
