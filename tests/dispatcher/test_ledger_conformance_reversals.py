"""What every ledger keeps, fourth part: what is reversed before it left is not told, and nothing is lost by it."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.events import Accepted
from dispatcher.ledger.api import Ledger
from dispatcher.ledger.sqlite_reversals import EARLY_KEEP_MS
from dispatcher.model.alert import State
from tests.dispatcher.ledger_kit import (
    HOUR_MS,
    NOW,
    Tell,
    accepted,
    admitted,
    alert_story,
    owner_of,
    recipient,
    step,
)

REVERSED = "reversed-before-sending"


def purchase(event: str = "p", **fields: Any) -> Accepted:
    return accepted(event, **fields)


def reversal(event: str = "r", of: str = "p", **fields: Any) -> Accepted:
    return accepted(event, **{"type": "reversal", "refers_to": of, "amount": -7261, **fields})


async def ends(ledger: Ledger, *events: str) -> list[tuple[State, str | None]]:
    stories = [await alert_story(ledger, event) for event in events]
    return [(story.state, story.reason) for story in stories]


async def balanced(ledger: Ledger, still_open: int) -> None:
    books = await ledger.books()
    assert (books.balanced, books.open) == (True, still_open)


async def test_a_purchase_that_waits_in_its_lane_is_cancelled_and_its_reversal_not_told(ledger: Ledger) -> None:
    # Given an alert that waits in the lane of a process for its turn
    owner, other = await owner_of(ledger), await owner_of(ledger, "there")
    (alert,) = await admitted(ledger, owner, purchase(), decide=Tell("queued"))

    # When another process takes in its reversal
    admission = await ledger.admit([reversal()], NOW + 1, other, Tell("queued"))

    # Then neither is told
    assert (admission.accepted, admission.alerts) == (1, [])
    assert admission.ended == {("cancelled", "r"): 1, ("suppressed", REVERSED): 1}
    assert await ends(ledger, "p", "r") == [("cancelled", "r"), ("suppressed", REVERSED)]
    # And the lane that still holds it may not send it, now or after it has given it back
    assert await ledger.fence([alert.id], owner) == [alert.id]
    await ledger.record([step(alert, "retrying", outcome=None, code=None)], owner)
    assert await ledger.due("wechat", NOW + HOUR_MS, owner, 10, "sending") == []
    await ledger.leave(owner, NOW)
    assert await ends(ledger, "p") == [("cancelled", "r")]
    await balanced(ledger, 0)


@pytest.mark.parametrize("code", ["-1", "45011"])
async def test_a_retry_that_only_met_refusals_is_cancelled(ledger: Ledger, code: str) -> None:
    owner = await owner_of(ledger)
    (alert,) = await admitted(ledger, owner, purchase())
    await ledger.record([step(alert, "retrying", code=code, due_ms=NOW + 5)], owner)
    assert (await ledger.admit([reversal()], NOW + 1, owner, Tell())).alerts == []
    assert await ends(ledger, "p", "r") == [("cancelled", "r"), ("suppressed", REVERSED)]
    assert await ledger.due("wechat", NOW + HOUR_MS, owner, 10, "sending") == []


async def test_what_may_have_left_is_followed_by_its_correction(ledger: Ledger) -> None:
    # Given alerts on the wire, of unknown outcome, interrupted, waiting for their receipt, delivered,
    # and one that WeChat has accepted and that is to go out by SMS
    owner = await owner_of(ledger)
    names = ["wire", "unknown", "waits", "told", "fallback"]
    alerts = await admitted(ledger, owner, *(purchase(name) for name in names))
    _, unknown, waits, told, fallback = alerts
    await ledger.record(
        [
            step(unknown, "retrying", outcome="unknown", code="timeout", due_ms=NOW + HOUR_MS),
            step(waits, "awaiting", msgid="m-1"),
            step(told, "delivered"),
            step(fallback, "awaiting", msgid="m-2", due_ms=NOW),
        ],
        owner,
    )
    (late,) = [one for one in await ledger.due("wechat", NOW, owner, 9, "sending") if one.id == fallback.id]
    await ledger.record([step(late, "retrying", position=1, outcome=None, code=None)], owner)
    gone = await owner_of(ledger, "gone")
    await admitted(ledger, gone, purchase("lost"))
    await ledger.leave(gone, NOW)
    before = await ends(ledger, *names, "lost")

    # When all of them are reversed
    batch = [reversal(f"r-{name}", name) for name in (*names, "lost")]
    admission = await ledger.admit(batch, NOW + 1, owner, Tell())

    # Then each keeps its way, and its correction is told
    assert [alert.event.id for alert in admission.alerts] == [f"r-{name}" for name in (*names, "lost")]
    assert await ends(ledger, *names, "lost") == before


@pytest.mark.parametrize("first", ["purchase", "reversal"])
async def test_coming_together_neither_is_told(ledger: Ledger, first: str) -> None:
    owner = await owner_of(ledger)
    await ledger.import_recipients([recipient()])
    batch = [purchase(), reversal()] if first == "purchase" else [reversal(), purchase()]
    admission = await ledger.admit(batch, NOW, owner, Tell())
    assert (admission.accepted, admission.alerts) == (2, [])
    assert await ends(ledger, "p", "r") == [("cancelled", "r"), ("suppressed", REVERSED)]
    await balanced(ledger, 0)


async def test_what_was_reversed_before_it_came_is_not_told_when_it_comes(ledger: Ledger) -> None:
    # Given a reversal of something that nobody knows yet: it is told, for nobody can know whether that will come
    owner = await owner_of(ledger)
    (told,) = await admitted(ledger, owner, reversal())
    assert told.event.id == "r"

    # When the purchase comes after it
    admission = await ledger.admit([purchase(), purchase("other")], NOW + 1, owner, Tell())

    # Then it is not told, and its neighbour is
    assert [alert.event.id for alert in admission.alerts] == ["other"]
    assert await ends(ledger, "p") == [("cancelled", "r")]
    # And a repeat of either changes nothing
    again = await ledger.admit([purchase(), reversal()], NOW + 2, owner, Tell())
    assert (again.accepted, again.duplicates) == (0, [0, 1])
    await balanced(ledger, 2)


async def test_a_reversal_is_not_remembered_for_ever(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    await admitted(ledger, owner, reversal())
    await ledger.admit([reversal("r-2", "p-2")], NOW + EARLY_KEEP_MS + 1, owner, Tell())
    (told,) = (await ledger.admit([purchase()], NOW + EARLY_KEEP_MS + 2, owner, Tell())).alerts
    assert told.event.id == "p"


NOT_ALL_OF_IT: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("a part", {}, {"amount": -7260}),
    ("another currency", {}, {"currency": "USD"}),
    ("another account", {}, {"account": "A-2"}),
    ("a refund", {}, {"type": "refund"}),
    ("a declined reversal", {}, {"status": "declined: too late"}),
    ("of a declined swipe", {"status": "declined: no funds"}, {}),
    ("of a reversal", {"type": "reversal", "refers_to": "x"}, {}),
]


@pytest.mark.parametrize("order", ["after", "together", "before"])
@pytest.mark.parametrize(("what", "bought", "back"), NOT_ALL_OF_IT, ids=[name for name, _, _ in NOT_ALL_OF_IT])
async def test_only_what_is_taken_back_whole_is_not_told(
    ledger: Ledger, what: str, bought: dict[str, Any], back: dict[str, Any], order: str
) -> None:
    owner = await owner_of(ledger)
    await ledger.import_recipients([recipient(), recipient("A-2")])
    one, two = purchase(**bought), reversal(**back)
    batches = {"after": [[one], [two]], "together": [[one, two]], "before": [[two], [one]]}[order]
    for batch in batches:
        await ledger.admit(batch, NOW, owner, Tell("queued"))
    assert await ends(ledger, "p", "r") == [("queued", None), ("queued", None)]


async def test_each_recipient_is_treated_by_what_it_was_told(ledger: Ledger) -> None:
    # Given two recipients, of whom one has been told and the other not
    owner = await owner_of(ledger)
    to = [recipient(), recipient(role="second")]
    first, second = await admitted(ledger, owner, purchase(), decide=Tell("queued"), to=to)
    await ledger.fence([first.id], owner)
    await ledger.record([step(first, "delivered")], owner)

    # When the purchase is reversed, and the reversal is said once more by another event
    for name in ("r", "r-2"):
        admission = await ledger.admit([reversal(name)], NOW, owner, Tell("queued"))
        # Then the first gets the correction and the second hears nothing
        assert [alert.recipient.role for alert in admission.alerts] == [first.recipient.role]
        assert admission.ended["suppressed", REVERSED] == 1
    assert await ledger.fence([second.id], owner) == [second.id]
    await balanced(ledger, 2)


async def test_what_the_rules_had_ended_stays_as_it_is(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    await ledger.import_recipients([recipient()])
    await ledger.admit([purchase()], NOW, owner, Tell("suppressed", reason="a-rule"))
    await ledger.admit([purchase("p-2"), reversal("r-2", "p-2")], NOW, owner, Tell("suppressed", reason="a-rule"))
    (told,) = (await ledger.admit([reversal()], NOW, owner, Tell())).alerts
    assert told.event.id == "r"
    assert await ends(ledger, "p", "p-2", "r-2") == [("suppressed", "a-rule")] * 3


async def test_a_reversal_for_an_account_without_recipients_is_accounted_for(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    admission = await ledger.admit([purchase(), reversal()], NOW, owner, Tell())
    assert admission.ended == {("suppressed", "no-recipient"): 2}
    await balanced(ledger, 0)
