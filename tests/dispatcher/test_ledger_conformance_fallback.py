"""What every ledger keeps, third part: the fence between two channels, and what an earlier one says after it."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.delivery import after_deadline, after_expiry, after_receipt
from dispatcher.ledger.api import Ledger
from dispatcher.model.alert import Alert, State
from tests.dispatcher.ledger_kit import (
    HOUR_MS,
    LEASE_MS,
    NOW,
    accepted,
    admitted,
    alert_story,
    attempts_of,
    owner_of,
    receipt,
    recipient,
    state_of,
    step,
)

SMS_OK = {"position": 1, "outcome": "accepted", "code": "0", "msgid": "s-1"}


async def waiting(ledger: Ledger, owner: int, event: str = "e-1", msgid: str = "w-1") -> None:
    """An alert that WeChat has accepted, and whose deadline is now."""
    (alert,) = await admitted(ledger, owner, accepted(event))
    await ledger.record([step(alert, "awaiting", msgid=msgid, due_ms=NOW)], owner)


async def past_the_fence(ledger: Ledger, owner: int) -> Alert:
    """An alert whose receipt did not come, fenced for SMS and about to leave; nothing was heard yet."""
    await waiting(ledger, owner)
    (alert,) = await ledger.due("wechat", NOW, owner, 1, "sending")
    assert await ledger.record([after_deadline(alert, NOW)], owner) == []
    (alert,) = await ledger.due("sms", NOW, owner, 1, "queued")
    assert await ledger.fence([alert.id], owner) == []
    return alert


async def test_a_success_that_comes_while_the_deadline_is_being_acted_on_is_before_the_fence(ledger: Ledger) -> None:
    # Given an alert whose deadline a process has just begun to act on
    owner, other = await owner_of(ledger), await owner_of(ledger, "there")
    await waiting(ledger, owner)
    (alert,) = await ledger.due("wechat", NOW, owner, 1, "sending")

    # When another process takes in the receipt before the fence
    assert await ledger.receipts([receipt("wechat", "w-1")], NOW, other) == []
    (back,) = await ledger.record([after_deadline(alert, NOW)], owner)

    # Then the alert comes back with it, and there is nothing to do by SMS
    assert (back.receipt, back.state, back.channel) == ("delivered", "awaiting", "wechat")
    await ledger.record([after_receipt(back, "delivered", NOW)], owner)
    assert await ledger.due("sms", NOW + HOUR_MS, owner, 10, "queued") == []
    story = await alert_story(ledger)
    assert (story.state, story.reason, story.channel) == ("delivered", None, "wechat")
    assert (await ledger.books()).known_doubles == 0


async def test_a_failure_that_comes_while_the_deadline_is_being_acted_on_changes_nothing(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    await waiting(ledger, owner)
    (alert,) = await ledger.due("wechat", NOW, owner, 1, "sending")
    assert await ledger.receipts([receipt("wechat", "w-1", "failed:x")], NOW, owner) == []
    assert await ledger.record([after_deadline(alert, NOW)], owner) == []
    assert len(await ledger.due("sms", NOW, owner, 10, "queued")) == 1


async def test_the_fence_is_passed_once_whoever_else_thinks_so(ledger: Ledger) -> None:
    # Given a process that was silent for too long with an alert whose deadline it was acting on
    owner = await owner_of(ledger)
    await waiting(ledger, owner)
    (alert,) = await ledger.due("wechat", NOW, owner, 1, "sending")
    other = await owner_of(ledger, "there", NOW + LEASE_MS)
    assert await ledger.take_over(other, NOW + LEASE_MS) == 1

    # When both of them say that the next channel is to be taken, and WeChat's failure is said three times
    (again,) = await ledger.due("wechat", NOW + LEASE_MS, other, 1, "sending")
    await ledger.record([after_deadline(again, NOW + LEASE_MS)], other)
    await ledger.record([after_deadline(alert, NOW)], owner)
    for _ in range(3):
        assert await ledger.receipts([receipt("wechat", "w-1", "failed:x")], NOW, other) == []

    # Then one SMS is to be sent
    (one,) = await ledger.due("sms", NOW + LEASE_MS, other, 10, "queued")
    assert await ledger.due("sms", NOW + LEASE_MS, other, 10, "queued") == []
    await ledger.fence([one.id], other)
    await ledger.record([step(one, "delivered", **SMS_OK)], other)
    assert await attempts_of(ledger) == [(1, "wechat", "accepted", "0"), (2, "sms", "accepted", "0")]


async def test_a_success_after_the_fence_is_a_known_double_and_the_end_stays(ledger: Ledger) -> None:
    # Given an alert that rang by SMS after WeChat's receipt had not come
    owner = await owner_of(ledger)
    alert = await past_the_fence(ledger, owner)
    await ledger.record([step(alert, "delivered", **SMS_OK)], owner)
    before = await alert_story(ledger)

    # When WeChat's success comes late, and once more
    late = [receipt("wechat", "w-1")]
    assert await ledger.receipts(late, NOW + 1, owner) == []
    assert await ledger.new_doubles(late) == 1
    assert await ledger.receipts(late, NOW + 2, owner) == []
    assert await ledger.new_doubles(late) == 0

    # Then it is counted once, and the alert has the end that it had
    books = await ledger.books()
    assert (books.known_doubles, books.balanced, books.open) == (1, True, 0)
    after = await alert_story(ledger)
    assert (after.state, after.reason, after.ended_at) == (before.state, before.reason, before.ended_at)
    assert [one["status"] for one in after.receipts] == ["delivered"]


async def test_a_failure_after_the_fence_is_no_double(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    alert = await past_the_fence(ledger, owner)
    await ledger.record([step(alert, "delivered", **SMS_OK)], owner)
    late = [receipt("wechat", "w-1", "failed:x")]
    assert await ledger.receipts(late, NOW, owner) == []
    assert await ledger.new_doubles(late) == 0
    assert (await ledger.books()).known_doubles == 0


async def test_a_receipt_for_nobodys_message_is_no_double(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    alert = await past_the_fence(ledger, owner)
    await ledger.record([step(alert, "delivered", **SMS_OK)], owner)
    # The number is the same, the channel is another one
    said = [receipt("wechat", "w-404"), receipt("sms", "w-1"), receipt("wechat", "s-1")]
    assert await ledger.receipts(said, NOW, owner) == []
    assert await ledger.new_doubles(said) == 0
    assert (await ledger.books()).known_doubles == 0


async def test_said_twice_in_one_batch_it_is_one_double(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    alert = await past_the_fence(ledger, owner)
    await ledger.record([step(alert, "delivered", **SMS_OK)], owner)
    late = [receipt("wechat", "w-1"), receipt("wechat", "w-1")]
    await ledger.receipts(late, NOW, owner)
    assert await ledger.new_doubles(late) == 1
    assert (await ledger.books()).known_doubles == 1


@pytest.mark.parametrize("moment", ["before it is leased", "while it waits in its lane"])
async def test_a_success_before_the_sms_has_left_keeps_it_from_leaving(ledger: Ledger, moment: str) -> None:
    # Given an alert that is to go out by SMS
    owner = await owner_of(ledger)
    await waiting(ledger, owner)
    (alert,) = await ledger.due("wechat", NOW, owner, 1, "sending")
    await ledger.record([after_deadline(alert, NOW)], owner)
    if moment == "while it waits in its lane":
        (alert,) = await ledger.due("sms", NOW, owner, 1, "queued")

    # When WeChat's success comes before it has left
    late = [receipt("wechat", "w-1")]
    assert await ledger.receipts(late, NOW, owner) == []
    assert await ledger.new_doubles(late) == 0
    if moment == "while it waits in its lane":
        assert await ledger.fence([alert.id], owner) == [alert.id]

    # Then it does not leave: it comes back with what WeChat said, and ends by that
    (back,) = await ledger.due("sms", NOW, owner, 1, "queued")
    assert back.receipt == "delivered:wechat"
    await ledger.record([after_receipt(back, back.receipt, NOW)], owner)
    story = await alert_story(ledger)
    assert (story.state, story.reason) == ("delivered", "late:wechat")
    assert await attempts_of(ledger) == [(1, "wechat", "accepted", "0")]
    assert (await ledger.books()).known_doubles == 0


@pytest.mark.parametrize("end", ["refused", "expired"])
async def test_when_the_sms_fails_after_wechats_late_success_the_alert_was_delivered(ledger: Ledger, end: str) -> None:
    # Given an alert on its way by SMS when WeChat's success comes
    owner = await owner_of(ledger)
    alert = await past_the_fence(ledger, owner)
    assert await ledger.receipts([receipt("wechat", "w-1")], NOW, owner) == []

    # When the gateway refuses it for good, or its time is over
    refused = step(alert, "failed", reason="permanent:3", outcome="permanent", code="3")
    (back,) = await ledger.record([refused if end == "refused" else after_expiry(alert, NOW)], owner)

    # Then it was seen, and that is its end; it is no double, because nothing rang twice
    assert back.receipt == "delivered:wechat"
    assert await ledger.record([after_receipt(back, back.receipt, NOW)], owner) == []
    story = await alert_story(ledger)
    assert (story.state, story.reason, len(story.attempts)) == ("delivered", "late:wechat", 1 + (end == "refused"))
    books = await ledger.books()
    assert (books.known_doubles, books.open, books.balanced) == (0, 0, True)


async def test_when_the_sms_report_fails_after_wechats_late_success_the_alert_was_delivered(ledger: Ledger) -> None:
    # Given an alert that waits for the report of its SMS when WeChat's success comes: by now a double
    owner = await owner_of(ledger)
    alert = await past_the_fence(ledger, owner)
    await ledger.record([step(alert, "awaiting", **SMS_OK)], owner)
    late = [receipt("wechat", "w-1")]
    assert await ledger.receipts(late, NOW, owner) == []
    assert await ledger.new_doubles(late) == 1

    # When the report says that the SMS failed
    ((alert, word),) = await ledger.receipts([receipt("sms", "s-1", "failed:x")], NOW, owner)
    (back,) = await ledger.record([after_receipt(alert, word.status, NOW)], owner)
    await ledger.record([after_receipt(back, back.receipt or "", NOW)], owner)

    # Then it was delivered once, by WeChat
    story = await alert_story(ledger)
    assert (story.state, story.reason) == ("delivered", "late:wechat")
    assert (await ledger.books()).known_doubles == 0


async def test_an_end_without_success_stays_although_a_success_comes_after_it(ledger: Ledger) -> None:
    # Given an alert that failed on both channels
    owner = await owner_of(ledger)
    alert = await past_the_fence(ledger, owner)
    await ledger.record([step(alert, "failed", reason="permanent:3", outcome="permanent", code="3")], owner)

    # When WeChat's success comes after all that
    late = [receipt("wechat", "w-1")]
    assert await ledger.receipts(late, NOW, owner) == []
    assert await ledger.new_doubles(late) == 0

    # Then the end stands, and the story has the receipt
    story = await alert_story(ledger)
    assert (story.state, story.reason) == ("failed", "permanent:3")
    assert [(one["channel"], one["status"]) for one in story.receipts] == [("wechat", "delivered")]


async def test_an_sms_of_unknown_outcome_beside_a_late_success_is_a_double(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    alert = await past_the_fence(ledger, owner)
    await ledger.record([step(alert, "awaiting", outcome="unknown", code="timeout", due_ms=NOW + 9)], owner)
    late = [receipt("wechat", "w-1")]
    assert await ledger.receipts(late, NOW, owner) == []
    assert await ledger.new_doubles(late) == 1
    (back,) = await ledger.due("sms", NOW + 9, owner, 1, "queued")
    await ledger.record([after_receipt(back, back.receipt or "", NOW)], owner)
    assert await state_of(ledger) == "delivered"
    assert (await ledger.books()).known_doubles == 1


SMS_UNKNOWN = {"position": 1, "outcome": "unknown", "code": "timeout", "due_ms": NOW + HOUR_MS}


@pytest.mark.parametrize(("state", "answer"), [("delivered", SMS_OK), ("awaiting", SMS_UNKNOWN)])
async def test_a_double_is_known_although_the_answer_of_the_first_channel_came_last(
    ledger: Ledger, state: State, answer: dict[str, Any]
) -> None:
    # Given an alert that a process had on its way by WeChat when it fell silent, and that another one sent by SMS
    silent = await owner_of(ledger)
    (alert,) = await admitted(ledger, silent, accepted("e-1"))
    later = NOW + LEASE_MS
    owner = await owner_of(ledger, "there", later)
    assert await ledger.take_over(owner, later) == 1
    (again,) = await ledger.due("wechat", later, owner, 1, "sending")
    await ledger.record([step(again, "retrying", position=1, outcome=None, code=None, due_ms=later)], owner)
    (sms,) = await ledger.due("sms", later, owner, 1, "queued")
    assert await ledger.fence([sms.id], owner) == []
    await ledger.record([step(sms, state, **answer)], owner)

    # When the silent one says at last that WeChat took it at the third request, and WeChat that it was delivered
    assert await ledger.record([step(alert, "awaiting", msgid="w-1", resends=2)], silent) == []
    assert await attempts_of(ledger) == [
        (1, "wechat", "unknown", "unknown:resent"),
        (2, "wechat", "unknown", "resent"),
        (2, "sms", answer["outcome"], answer["code"]),
        (3, "wechat", "accepted", "0"),
    ]
    late = [receipt("wechat", "w-1")]
    assert await ledger.receipts(late, later, owner) == []

    # Then it is a double, whatever numbers the attempts have
    assert await ledger.new_doubles(late) == 1
    assert (await ledger.books()).known_doubles == 1


async def test_an_earlier_channel_that_answers_last_makes_no_double_of_a_later_one(ledger: Ledger) -> None:
    # Given an alert that went on from WeChat, whose process had died, to SMS, and now waits for its turn by e-mail
    silent = await owner_of(ledger)
    to = [recipient(email="a@example.com", channels=("wechat", "sms", "email"))]
    (alert,) = await admitted(ledger, silent, accepted("e-1"), to=to)
    assert alert.route == ("wechat", "sms", "email")
    later = NOW + LEASE_MS
    owner = await owner_of(ledger, "there", later)
    assert await ledger.take_over(owner, later) == 1
    (again,) = await ledger.due("wechat", later, owner, 1, "sending")
    await ledger.record([step(again, "retrying", position=1, outcome=None, code=None, due_ms=later)], owner)
    (sms,) = await ledger.due("sms", later, owner, 1, "sending")
    await ledger.record([step(sms, "awaiting", **SMS_OK, due_ms=later)], owner)
    (sms,) = await ledger.due("sms", later, owner, 1, "sending")
    await ledger.record([after_deadline(sms, later)], owner)

    # When WeChat's answer comes last, and the report says that the SMS arrived
    await ledger.record([step(alert, "awaiting", msgid="w-1", resends=2)], silent)
    late = [receipt("sms", "s-1")]
    assert await ledger.receipts(late, later, owner) == []

    # Then no channel after the SMS has rung
    assert await ledger.new_doubles(late) == 0
    assert (await ledger.books()).known_doubles == 0


async def test_fencing_says_who_may_not_leave(ledger: Ledger) -> None:
    # Given alerts of this process and of another one
    owner, other = await owner_of(ledger), await owner_of(ledger, "there")
    (mine,) = await admitted(ledger, owner, accepted("e-1"))
    (theirs,) = await admitted(ledger, other, accepted("e-2"))
    # Then what is not ours is named, and what is on its way already may go on
    assert await ledger.fence([mine.id, theirs.id, 404], owner) == [theirs.id, 404]
    assert await ledger.fence([mine.id], owner) == []
