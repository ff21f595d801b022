"""What every ledger keeps, third part: processes, their leases, and what becomes of the alerts of one that died."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from dispatcher.errors import LeaseLost
from dispatcher.ledger.api import Ledger
from dispatcher.model.alert import Alert, State
from tests.dispatcher.ledger_kit import (
    HOUR_MS,
    LEASE_MS,
    NOW,
    Tell,
    accepted,
    admitted,
    alert_story,
    attempts_of,
    owner_of,
    receipt,
    state_of,
    step,
)

DEAD = NOW + LEASE_MS
"""When the lease of somebody who registered now has run out."""


async def test_owners_differ_and_are_never_nobody(ledger: Ledger) -> None:
    owners = [await owner_of(ledger, name) for name in ("a", "a", "b")]
    assert len(set(owners)) == 3
    assert min(owners) > 0


async def one_of_each_state(ledger: Ledger, owner: int) -> None:
    """Leases to ``owner``: e-1 sending, e-2 queued, e-3 waiting for its receipt, e-4 interrupted before."""
    before = await owner_of(ledger, "before")
    await admitted(ledger, before, accepted("e-4"))
    await ledger.leave(before, NOW)
    assert [alert.state for alert in await ledger.due("wechat", NOW, owner, 9, "sending")] == ["interrupted"]
    await admitted(ledger, owner, accepted("e-1"))
    await admitted(ledger, owner, accepted("e-2"), decide=Tell("queued"))
    (waits,) = await admitted(ledger, owner, accepted("e-3"))
    await ledger.record([step(waits, "awaiting", msgid="m-3", due_ms=NOW)], owner)
    assert [alert.event.id for alert in await ledger.due("wechat", NOW, owner, 9, "sending")] == ["e-3"]


async def dies(ledger: Ledger, owner: int) -> None:
    other = await owner_of(ledger, "other", lease_ms=HOUR_MS)
    assert await ledger.take_over(other, DEAD - 1) == 0, "its lease still held"
    assert await ledger.take_over(other, DEAD) == 4
    assert await ledger.take_over(other, DEAD) == 0, "there was nothing left to take over"


async def leaves(ledger: Ledger, owner: int) -> None:
    await ledger.leave(owner, DEAD)
    other = await owner_of(ledger, "other", lease_ms=HOUR_MS)
    assert await ledger.take_over(other, DEAD + HOUR_MS) == 0, "it had left nothing behind"


@pytest.mark.parametrize("ends", [dies, leaves])
async def test_what_an_owner_held_goes_on_with_another(
    ledger: Ledger, ends: Callable[[Ledger, int], Awaitable[None]]
) -> None:
    # Given a process that holds one alert of each open state
    owner = await owner_of(ledger)
    await one_of_each_state(ledger, owner)

    # When it dies or leaves
    await ends(ledger, owner)

    # Then what may be on the wire is so marked, and nothing else
    states: dict[str, State] = {f"e-{number}": await state_of(ledger, f"e-{number}") for number in range(1, 5)}
    assert states == {"e-1": "interrupted", "e-2": "retrying", "e-3": "awaiting", "e-4": "interrupted"}
    assert await attempts_of(ledger, "e-1") == [(1, "wechat", "unknown", "process-died")]
    assert await attempts_of(ledger, "e-2") == []
    assert await attempts_of(ledger, "e-3") == [(1, "wechat", "accepted", "0")]
    assert await attempts_of(ledger, "e-4") == [(1, "wechat", "unknown", "process-died")]
    assert (await ledger.books()).unknown_attempts == 2

    # And all of it is due at once for the next one, with that attempt counted
    third = await owner_of(ledger, "third")
    taken = await ledger.due("wechat", DEAD, third, 9, "sending")
    assert sorted((alert.event.id, alert.state, alert.attempts) for alert in taken) == [
        ("e-1", "interrupted", 1),
        ("e-2", "retrying", 0),
        ("e-3", "awaiting", 1),
        ("e-4", "interrupted", 1),
    ]
    assert {alert.event.id: alert.first_attempt_ms for alert in taken if alert.event.id != "e-3"} == {
        "e-1": DEAD,
        "e-2": None,
        "e-4": NOW,
    }


async def test_the_living_are_left_alone(ledger: Ledger) -> None:
    # Given one that answers, one that does not, and one that registered with an old clock but answers
    living, dead = await owner_of(ledger, "living"), await owner_of(ledger, "dead")
    for number, owner in enumerate((living, dead)):
        await admitted(ledger, owner, accepted(f"e-{number}"))
    assert await ledger.heartbeat(living, DEAD + LEASE_MS)

    # When somebody takes over, itself of old date
    other = await owner_of(ledger, "other", lease_ms=0)
    await admitted(ledger, other, accepted("e-2"))
    assert await ledger.take_over(other, DEAD) == 1

    # Then only the alert of the dead was freed, not its own
    states = [await state_of(ledger, f"e-{number}") for number in range(3)]
    assert states == ["sending", "interrupted", "sending"]


async def test_a_heartbeat_tells_whether_the_lease_still_holds(ledger: Ledger) -> None:
    # Given a process that was silent for too long, but that nobody has missed yet
    owner = await owner_of(ledger)
    await admitted(ledger, owner, accepted("e-1"))
    other = await owner_of(ledger, "other", lease_ms=HOUR_MS)

    # When it answers in time after all, then it keeps its alerts
    assert await ledger.heartbeat(owner, DEAD + LEASE_MS) is True
    assert await ledger.take_over(other, DEAD) == 0

    # When it was taken over, then it is told so, and again
    assert await ledger.take_over(other, DEAD + LEASE_MS) == 1
    assert await ledger.heartbeat(owner, NOW + HOUR_MS) is False
    assert await ledger.heartbeat(owner, NOW + HOUR_MS) is False
    assert await ledger.heartbeat(other, NOW + HOUR_MS) is True
    # And so is somebody that never was
    assert await ledger.heartbeat(999_999, NOW + HOUR_MS) is False


async def takes_over(ledger: Ledger, owner: int) -> None:
    await ledger.take_over(await owner_of(ledger, "other", lease_ms=HOUR_MS), DEAD)


async def gives_up(ledger: Ledger, owner: int) -> None:
    await ledger.leave(owner, DEAD)


@pytest.mark.parametrize("ends", [takes_over, gives_up])
async def test_one_whose_lease_is_lost_gets_nothing_more(
    ledger: Ledger, ends: Callable[[Ledger, int], Awaitable[None]]
) -> None:
    # Given a process that was taken over, or has left, while its tasks still run
    owner = await owner_of(ledger)
    fenced, waits = await admitted(ledger, owner, accepted("e-1"), accepted("e-2"), decide=Tell("queued"))
    await ledger.record([step(waits, "awaiting", msgid="m-2")], owner)
    await ends(ledger, owner)

    # When they ask for more, then they are told: what they held would never be freed
    with pytest.raises(LeaseLost):
        await ledger.admit([accepted("e-3")], DEAD, owner, Tell())
    with pytest.raises(LeaseLost):
        await ledger.due("wechat", DEAD + HOUR_MS, owner, 9, "sending")
    with pytest.raises(LeaseLost):
        await ledger.receipts([receipt("wechat", "m-2")], DEAD, owner)
    # And above all that nothing may leave any more
    with pytest.raises(LeaseLost):
        await ledger.fence([fenced.id], owner)

    # And then nothing has changed: whoever is asked next finds all of it
    assert await ledger.explain("e-3") is None
    other = await owner_of(ledger, "there")
    taken = await ledger.due("wechat", NOW + HOUR_MS, other, 9, "queued")
    assert sorted((one.event.id, one.state, one.receipt) for one in taken) == [
        ("e-1", "retrying", None),
        ("e-2", "awaiting", None),
    ]


async def test_fencing_is_what_makes_a_queued_alert_leave(ledger: Ledger) -> None:
    # Given three queued alerts of which two were fenced, one of them by somebody who does not hold it
    owner, other = await owner_of(ledger), await owner_of(ledger, "other")
    alerts = await admitted(ledger, owner, *(accepted(f"e-{n}") for n in range(3)), decide=Tell("queued"))
    assert [alert.state for alert in alerts] == ["queued"] * 3
    await ledger.fence([alerts[0].id], owner)
    await ledger.fence([alerts[1].id], other)

    # When their process dies, then only the first may have left
    await ledger.leave(owner, DEAD)
    assert [await state_of(ledger, f"e-{n}") for n in range(3)] == ["interrupted", "retrying", "retrying"]
    assert (await ledger.books()).unknown_attempts == 1


async def taken_over(ledger: Ledger, decide: Tell) -> tuple[int, Alert, int, Alert]:
    """(old owner, alert as it knows it, new owner, alert as the new one has it)."""
    old = await owner_of(ledger)
    (lost,) = await admitted(ledger, old, accepted("e-1"), decide=decide)
    new = await owner_of(ledger, "new", lease_ms=HOUR_MS)
    await ledger.take_over(new, DEAD)
    (held,) = await ledger.due("wechat", DEAD, new, 1, "sending")
    return old, lost, new, held


@pytest.mark.parametrize("state", ["delivered", "retrying", "awaiting", "failed", "sending"])
async def test_a_step_after_the_lease_was_lost_changes_no_state(ledger: Ledger, state: State) -> None:
    # Given an alert whose old process gets its answer after another took the alert over, and even its receipt
    old, lost, new, held = await taken_over(ledger, Tell("queued"))
    await ledger.receipts([receipt("wechat", "m-old")], DEAD, new)

    # When it records that answer
    late = step(lost, state, msgid="m-old", keep_lease=state == "sending", outcome="accepted", code="0")
    assert await ledger.record([late], old) == []

    # Then the alert is still the other's, and the attempt is in its story
    story = await alert_story(ledger)
    assert (story.state, story.due_at, story.ended_at, story.reason) == ("sending", None, None, None)
    assert [(one.n, one.outcome, one.msgid) for one in story.attempts] == [(1, "accepted", "m-old")]
    await ledger.record([step(held, "delivered", msgid="m-new", at_ms=DEAD + 1)], new)
    story = await alert_story(ledger)
    assert (story.state, story.ended_at) == ("delivered", DEAD + 1)
    assert [(one.n, one.msgid) for one in story.attempts] == [(1, "m-old"), (1, "m-new")]


async def test_an_answer_after_its_attempt_was_given_up_is_told_but_stays_unknown(ledger: Ledger) -> None:
    # Given an attempt that was marked unknown because its process was thought dead
    old, lost, new, held = await taken_over(ledger, Tell("sending"))
    assert held.attempts == 1

    # When its answer comes in after all, twice sent by the network
    await ledger.record([step(lost, "delivered", msgid="m-old", resends=1)], old)
    await ledger.record([step(held, "delivered", msgid="m-new")], new)

    # Then the books still say that the second message came from an unknown outcome, and the story what it was
    assert (await ledger.books()).unknown_attempts == 1
    assert sorted(await attempts_of(ledger)) == [
        (1, "wechat", "unknown", "unknown:resent"),
        (2, "wechat", "accepted", "0"),
        (2, "wechat", "accepted", "0"),
    ]


async def test_a_late_answer_says_what_it_was(ledger: Ledger) -> None:
    old, lost, _, _ = await taken_over(ledger, Tell("sending"))

    await ledger.record([step(lost, "failed", outcome="permanent", code="40003", msgid="m-1", took_ms=9)], old)

    (told,) = (await alert_story(ledger)).attempts
    assert (told.outcome, told.code, told.msgid, told.took) == ("unknown", "permanent:40003", "m-1", 9)


async def test_an_answered_alert_is_not_given_to_one_whose_lease_is_lost(ledger: Ledger) -> None:
    # Given an alert whose receipt came to a process that died before it could act on it
    old = await owner_of(ledger)
    (alert,) = await admitted(ledger, old, accepted("e-1"))
    answer = step(alert, "awaiting", msgid="m-1")
    await ledger.record([answer], old)
    await ledger.receipts([receipt("wechat", "m-1")], NOW, old)
    await takes_over(ledger, old)

    # When that process says again that it waits for the receipt, then it is not the one to go on
    assert await ledger.record([answer], old) == []
    new = await owner_of(ledger, "new")
    assert [one.receipt for one in await ledger.due("wechat", DEAD, new, 9, "sending")] == ["delivered"]
