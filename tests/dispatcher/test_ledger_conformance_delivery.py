"""What every ledger keeps, second part: fencing, outcomes, what is due, receipts, and recipients' refusals."""

from __future__ import annotations

import msgspec
import pytest

from dispatcher.ledger.api import Ledger
from dispatcher.model.alert import Alert, State
from dispatcher.model.recipient import MAX_RECIPIENTS_PER_ACCOUNT, Recipient
from tests.dispatcher.ledger_kit import (
    HOUR_MS,
    NOW,
    Tell,
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

# ---- outcomes -----------------------------------------------------------------------------------------------------


async def test_delivered_is_an_end(ledger: Ledger) -> None:
    # Given an alert
    owner = await owner_of(ledger)
    (alert,) = await admitted(ledger, owner, accepted("e-1"))
    assert await ledger.open_count() == 1

    # When the provider accepts it
    assert await ledger.record([step(alert, "delivered", msgid="m-1", took_ms=30, at_ms=NOW + 40)], owner) == []

    # Then it has ended, and the attempt is told
    story = await alert_story(ledger)
    assert (story.state, story.ended_at, story.due_at) == ("delivered", NOW + 40, None)
    assert await attempts_of(ledger) == [(1, "wechat", "accepted", "0")]
    assert (story.attempts[0].took, story.attempts[0].msgid) == (30, "m-1")
    assert await ledger.open_count() == 0
    assert await ledger.due("wechat", NOW + HOUR_MS, owner, 10, "sending") == []


async def test_an_alert_ends_once(ledger: Ledger) -> None:
    # Given an alert that has ended
    owner = await owner_of(ledger)
    (alert,) = await admitted(ledger, owner, accepted("e-1"))
    await ledger.record([step(alert, "delivered")], owner)

    # When more is said of it, by anybody
    other = await owner_of(ledger, "there")
    for who in (owner, other):
        await ledger.record([step(alert, "failed", reason="late", at_ms=NOW + 9)], who)
        await ledger.record([step(alert, "retrying")], who)
        await ledger.fence([alert.id], who)

    # Then its end stands
    story = await alert_story(ledger)
    assert (story.state, story.reason, story.ended_at, story.due_at) == ("delivered", None, NOW, None)
    assert await ledger.due("wechat", NOW + HOUR_MS, owner, 10, "sending") == []


async def test_a_retry_comes_back_when_it_is_due(ledger: Ledger) -> None:
    # Given an alert that is to be tried again in a second
    owner = await owner_of(ledger)
    (alert,) = await admitted(ledger, owner, accepted("e-1"))
    await ledger.record([step(alert, "retrying", at_ms=NOW + 10, took_ms=4, due_ms=NOW + 1000)], owner)

    # Then it is not there before, nor on another channel
    assert await ledger.due("wechat", NOW + 999, owner, 10, "sending") == []
    assert await ledger.due("sms", NOW + 1000, owner, 10, "sending") == []

    # And then it is, once, with what was tried so far
    (again,) = await ledger.due("wechat", NOW + 1000, owner, 10, "sending")
    assert (again.attempts, again.first_attempt_ms, again.state) == (1, NOW + 6, "retrying")
    assert (again.position, again.receipt) == (0, None)
    assert await ledger.due("wechat", NOW + HOUR_MS, owner, 10, "sending") == []
    assert await state_of(ledger) == "sending"

    # And the first attempt stays the first, whatever number the next one has
    await ledger.record([step(again, "retrying", at_ms=NOW + 2000, due_ms=NOW + 2000)], owner)
    (third,) = await ledger.due("wechat", NOW + 2000, owner, 10, "sending")
    assert (third.attempts, third.first_attempt_ms) == (2, NOW + 6)


async def test_the_next_channel_begins_anew(ledger: Ledger) -> None:
    # Given an alert whose WeChat recipient is gone
    owner = await owner_of(ledger)
    (alert,) = await admitted(ledger, owner, accepted("e-1"))
    gone = step(alert, "retrying", position=1, outcome="recipient_gone", code="43004", refusal="wechat")
    await ledger.record([gone], owner)

    # When what is due is asked for, then it is on SMS, and its first attempt there is still to come
    assert await ledger.due("wechat", NOW, owner, 10, "sending") == []
    (on_sms,) = await ledger.due("sms", NOW, owner, 10, "queued")
    assert (on_sms.channel, on_sms.position, on_sms.attempts, on_sms.first_attempt_ms) == ("sms", 1, 1, None)
    assert on_sms.recipient.refused["wechat"].code == "43004"


async def test_a_lane_that_tries_again_at_once_keeps_its_lease(ledger: Ledger) -> None:
    # Given an alert that is sent again at once with a new token
    owner = await owner_of(ledger)
    (alert,) = await admitted(ledger, owner, accepted("e-1"))
    again = step(alert, "sending", outcome="refresh_token", code="40001", keep_lease=True)
    await ledger.record([again], owner)

    # Then nobody else is given it, and its next outcome counts
    assert await ledger.due("wechat", NOW + HOUR_MS, owner, 10, "sending") == []
    await ledger.record([step(tried(again.alert, 1), "delivered")], owner)
    assert await state_of(ledger) == "delivered"
    assert await attempts_of(ledger) == [(1, "wechat", "refresh_token", "40001"), (2, "wechat", "accepted", "0")]


async def test_steps_of_one_alert_in_one_call_follow_each_other(ledger: Ledger) -> None:
    # Given many alerts, each sent again at once, whose two outcomes come to the recorder together
    owner = await owner_of(ledger)
    alerts = await admitted(ledger, owner, *(accepted(f"e-{number}") for number in range(20)))
    first = [step(alert, "sending", outcome="refresh_token", keep_lease=True) for alert in alerts]
    second = [step(tried(alert, 1), "delivered", msgid="m-1", at_ms=NOW + 1) for alert in alerts]
    # And a third one that comes when the lease was already let go, of a message whose receipt is there
    third = [step(tried(alert, 2), "awaiting", msgid="m-1") for alert in alerts]
    await ledger.receipts([receipt("wechat", "m-1")], NOW, owner)

    # When they are recorded in one call
    assert await ledger.record(first + second + third, owner) == []

    # Then the one that let go of the alert stands, and all attempts are kept
    books = await ledger.books()
    assert books.states == {"delivered": 20}
    assert books.attempts == {"wechat": 60}


async def test_requests_that_the_network_repeated_are_attempts_of_unknown_outcome(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    (alert,) = await admitted(ledger, owner, accepted("e-1"))

    await ledger.record([step(alert, "retrying", resends=2)], owner)

    assert await attempts_of(ledger) == [
        (1, "wechat", "unknown", "resent"),
        (2, "wechat", "unknown", "resent"),
        (3, "wechat", "retry", "-1"),
    ]
    (again,) = await ledger.due("wechat", NOW, owner, 1, "sending")
    assert again.attempts == 3
    books = await ledger.books()
    assert (books.unknown_attempts, books.attempts) == (2, {"wechat": 3})


async def test_a_step_without_an_attempt_counts_none(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    (alert,) = await admitted(ledger, owner, accepted("e-1"))

    await ledger.record([step(alert, "retrying", outcome=None, position=1)], owner)

    assert await attempts_of(ledger) == []
    (again,) = await ledger.due("sms", NOW, owner, 1, "queued")
    assert (again.attempts, again.first_attempt_ms) == (0, None)


async def test_nothing_to_write_is_nothing_wrong(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    assert await ledger.record([], owner) == []
    assert await ledger.receipts([], NOW, owner) == []
    await ledger.fence([], owner)
    assert await ledger.due("wechat", NOW, owner, 0, "sending") == []


# ---- what is due --------------------------------------------------------------------------------------------------


async def test_due_gives_at_most_the_limit_and_the_longest_due_first(ledger: Ledger) -> None:
    # Given retries whose order of being due is not the order in which they were admitted
    owner = await owner_of(ledger)
    alerts = await admitted(ledger, owner, *(accepted(f"e-{number}") for number in range(300)))
    at = {alert.id: NOW + number * 7 % 300 for number, alert in enumerate(alerts)}
    await ledger.record([step(alert, "retrying", due_ms=at[alert.id]) for alert in alerts], owner)

    # When two processes ask in turns
    other = await owner_of(ledger, "there")
    given: list[int] = []
    for turn in range(4):
        some = await ledger.due("wechat", NOW + 298, (owner, other)[turn % 2], 100, "sending")
        assert len(some) == (100, 100, 99, 0)[turn]
        given += [alert.id for alert in some]

    # Then each alert that is due was given to one of them, in the order of being due
    assert given == sorted((one for one in at if at[one] <= NOW + 298), key=lambda one: (at[one], one))


@pytest.mark.parametrize(("lease_as", "after_death"), [("sending", "interrupted"), ("queued", "retrying")])
async def test_a_retry_is_leased_as_its_channel_wants(ledger: Ledger, lease_as: State, after_death: State) -> None:
    # Given a retry that was leased for a channel with or without a fence
    owner = await owner_of(ledger)
    (alert,) = await admitted(ledger, owner, accepted("e-1"))
    await ledger.record([step(alert, "retrying")], owner)
    await ledger.due("wechat", NOW, owner, 1, lease_as)

    # When its process goes, then only without a fence it may have been on the wire
    await ledger.leave(owner, NOW)
    assert await state_of(ledger) == after_death
    assert (await ledger.books()).unknown_attempts == (lease_as == "sending")


async def test_what_waits_for_its_policy_or_receipt_keeps_its_state(ledger: Ledger) -> None:
    # Given one alert that waits for its receipt and one whose process died
    owner = await owner_of(ledger)
    first, _ = await admitted(ledger, owner, accepted("e-1"), accepted("e-2"))
    await ledger.record([step(first, "awaiting", msgid="m-1", due_ms=NOW)], owner)
    await ledger.leave(owner, NOW)

    # When both are due, then they say so, and their processes' deaths do not make more attempts of it
    for name in ("second", "third"):
        owner = await owner_of(ledger, name)
        leased = await ledger.due("wechat", NOW, owner, 10, "sending")
        assert [(alert.event.id, alert.state, alert.attempts) for alert in leased] == [
            ("e-1", "awaiting", 1),
            ("e-2", "interrupted", 1),
        ]
        await ledger.leave(owner, NOW)
    assert (await ledger.books()).unknown_attempts == 1


# ---- receipts -----------------------------------------------------------------------------------------------------


async def test_a_receipt_brings_its_alert_back(ledger: Ledger) -> None:
    # Given alerts of two recipients that wait for their receipts
    owner = await owner_of(ledger)
    alerts = await admitted(ledger, owner, accepted("e-1"), accepted("e-2"))
    await ledger.record([step(alert, "awaiting", msgid=f"m-{alert.event.id}") for alert in alerts], owner)

    # When receipts come, among them unknown ones and one of a channel that the message was not on
    word = receipt("wechat", "m-e-2", "failed:user-block")
    strange = [receipt("wechat", "m-9"), receipt("sms", "m-e-1"), receipt("wechat", "")]
    found = await ledger.receipts([*strange, word], NOW + 5, owner)

    # Then the one it is about comes back, leased
    assert [(alert.event.id, alert.state, alert.receipt, said) for alert, said in found] == [
        ("e-2", "awaiting", "failed:user-block", word)
    ]
    assert await ledger.due("wechat", NOW + 10 * HOUR_MS, owner, 10, "sending") != []
    # And the second time it is only counted
    assert await ledger.receipts([word, word], NOW + 6, owner) == []
    (told,) = (await alert_story(ledger, "e-2")).receipts
    assert (told["status"], told["at"], told["times"]) == ("failed:user-block", NOW + 5, 3)


async def test_a_receipt_twice_in_one_call_brings_its_alert_back_once(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    (alert,) = await admitted(ledger, owner, accepted("e-1"))
    await ledger.record([step(alert, "awaiting", msgid="m-1")], owner)

    found = await ledger.receipts([receipt("wechat", "m-1", "failed:x"), receipt("wechat", "m-1")] * 2, NOW, owner)

    assert [(one.id, said.status) for one, said in found] == [(alert.id, "delivered")]


async def test_a_receipt_may_come_before_the_answer(ledger: Ledger) -> None:
    # Given receipts that were kept although nothing is known of their messages yet
    owner = await owner_of(ledger)
    alerts = await admitted(ledger, owner, *(accepted(f"e-{number}") for number in range(3)))
    early = [receipt("wechat", "m-0", "failed:x"), receipt("wechat", "m-0"), receipt("sms", "m-1")]
    assert await ledger.receipts(early, NOW, owner) == []

    # When the answers are recorded
    waiting = [step(alert, "awaiting", msgid=f"m-{number}") for number, alert in enumerate(alerts)]
    answered = await ledger.record(waiting, owner)

    # Then the alert whose receipt is there comes back with it, and not the one whose number means another channel
    assert [(one.event.id, one.state, one.receipt) for one in answered] == [("e-0", "awaiting", "delivered")]
    await ledger.record([step(answered[0], "delivered", outcome=None)], owner)
    assert await state_of(ledger, "e-0") == "delivered"
    assert await ledger.open_count() == 2


async def test_a_receipt_of_the_channel_before_is_not_about_the_present_one(ledger: Ledger) -> None:
    # Given an alert that went on to SMS, where its outcome stayed unknown, while WeChat had called it 1000
    owner = await owner_of(ledger)
    (alert,) = await admitted(ledger, owner, accepted("e-1"))
    await ledger.record([step(alert, "awaiting", msgid="1000", due_ms=NOW)], owner)
    (alert,) = await ledger.due("wechat", NOW, owner, 1, "sending")
    await ledger.record([step(alert, "retrying", position=1, outcome=None)], owner)
    (alert,) = await ledger.due("sms", NOW, owner, 1, "queued")

    # When the SMS gateway says what became of its own 1000, before or after
    assert await ledger.receipts([receipt("sms", "1000")], NOW, owner) == []
    assert await ledger.record([step(alert, "awaiting", outcome="unknown", code="timeout")], owner) == []
    assert await ledger.receipts([receipt("sms", "1000"), receipt("wechat", "1000", "failed:x")], NOW, owner) == []

    # Then that was another message
    assert await state_of(ledger) == "awaiting"
    (late,) = await ledger.due("sms", NOW + HOUR_MS, owner, 1, "queued")
    assert late.receipt is None


async def test_a_receipt_waits_for_whoever_brings_the_alert_back(ledger: Ledger) -> None:
    # Given a process that died between a receipt and what follows from it
    owner = await owner_of(ledger)
    (alert,) = await admitted(ledger, owner, accepted("e-1"))
    await ledger.record([step(alert, "awaiting", msgid="m-1")], owner)
    assert len(await ledger.receipts([receipt("wechat", "m-1", "failed:x")], NOW, owner)) == 1
    await ledger.leave(owner, NOW)

    # When another brings back what is due, then it learns of the receipt
    other = await owner_of(ledger, "there")
    (again,) = await ledger.due("wechat", NOW, other, 1, "sending")
    assert (again.state, again.receipt) == ("awaiting", "failed:x")


async def test_many_receipts_in_one_call(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    alerts = await admitted(ledger, owner, *(accepted(f"e-{number}") for number in range(600)))
    await ledger.record([step(alert, "awaiting", msgid=str(alert.id)) for alert in alerts], owner)

    found = await ledger.receipts([receipt("wechat", str(alert.id)) for alert in alerts], NOW, owner)

    assert [alert.id for alert, _ in found] == [alert.id for alert in alerts]
    assert all(said.msgid == str(alert.id) for alert, said in found)


# ---- recipients ---------------------------------------------------------------------------------------------------


async def test_importing_adds_changes_or_leaves_alone(ledger: Ledger) -> None:
    first, second = recipient(), recipient(role="second", min_amount={"sms": {"CNY": 1, "EUR": 2}})
    other_order = recipient(role="second", min_amount={"sms": {"EUR": 2, "CNY": 1}})
    changed = recipient(timezone="Europe/London")

    done = await ledger.import_recipients([first, second, first])
    assert (done.added, done.changed, done.same, done.too_many) == (2, 0, 1, [])
    done = await ledger.import_recipients([changed, other_order])
    assert (done.added, done.changed, done.same, done.too_many) == (0, 1, 1, [])
    assert (await ledger.import_recipients([])).added == 0
    assert (await ledger.books()).recipients == 2


async def test_an_account_has_room_for_sixteen(ledger: Ledger) -> None:
    # Given more recipients of an account than there is room for
    roles = [f"card-{number}" for number in range(MAX_RECIPIENTS_PER_ACCOUNT + 1)]

    # When they are imported, then the last is named, and what comes after it is not held up
    lines = [*(recipient(role=role) for role in roles), recipient("A-2"), recipient(role=roles[0], locale="en")]
    done = await ledger.import_recipients(lines)
    assert (done.added, done.changed, done.too_many) == (MAX_RECIPIENTS_PER_ACCOUNT + 1, 1, [16])
    assert (await ledger.books()).recipients == MAX_RECIPIENTS_PER_ACCOUNT + 1


async def test_a_refusal_holds_until_the_address_changes(ledger: Ledger) -> None:
    # Given a recipient whom WeChat and a template refused
    owner = await owner_of(ledger)
    first, second = await admitted(ledger, owner, accepted("e-1"), accepted("e-2"))
    refused = [
        step(first, "retrying", position=1, outcome="recipient_gone", code="43004", refusal="wechat", at_ms=NOW + 1),
        step(second, "retrying", position=1, outcome="opted_out", code="43101", refusal="wechat/swipe"),
    ]
    await ledger.record(refused, owner)

    # Then the next admission sees it
    told = await told_at(ledger, owner, "e-3")
    assert {key: (one.code, one.since) for key, one in told.refused.items()} == {
        "wechat": ("43004", NOW + 1),
        "wechat/swipe": ("43101", NOW),
    }

    # When something else about the recipient changes, then it still does
    await ledger.import_recipients([recipient(locale="en")])
    told = await told_at(ledger, owner, "e-4")
    assert (told.locale, set(told.refused)) == ("en", {"wechat", "wechat/swipe"})

    # When the address changes, then it is a new chance
    await ledger.import_recipients([recipient(locale="en", openid="o-new")])
    told = await told_at(ledger, owner, "e-5")
    assert (told.refused, told.id) == ({}, first.recipient.id)


@pytest.mark.parametrize("address", ["openid", "phone", "email"])
async def test_a_refusal_is_of_the_address_that_was_refused(ledger: Ledger, address: str) -> None:
    # Given an alert on its way to an address that is mended meanwhile
    owner = await owner_of(ledger)
    (alert,) = await admitted(ledger, owner, accepted("e-1"))
    mended = {"openid": "o-new", "phone": "+8613900000001", "email": "new@bank.example"}[address]
    await ledger.import_recipients([recipient(**{address: mended})])
    # When the provider refuses the old one
    gone = step(alert, "failed", outcome="recipient_gone", code="gone", refusal="email", reason="gone")
    await ledger.record([gone], owner)
    # Then the new one is not silenced for it
    assert (await told_at(ledger, owner, "e-2")).refused == {}


async def told_at(ledger: Ledger, owner: int, event_id: str) -> Recipient:
    decide = Tell()
    await ledger.admit([accepted(event_id)], NOW, owner, decide)
    (told,) = decide.told["A-1"]
    return told


def tried(alert: Alert, attempts: int) -> Alert:
    """The alert as it is in its lane after some attempts at once."""
    return msgspec.structs.replace(alert, attempts=attempts)
