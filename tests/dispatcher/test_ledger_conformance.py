"""What every ledger keeps, first part: admission, duplicates, decisions and counters.

Written against the protocol alone: whatever a backend is, it is looked at through `Ledger`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import product
from typing import Any

import pytest

from dispatcher.events import Accepted, restamp
from dispatcher.ledger.api import Counted, Decisions, Draft, Ledger
from dispatcher.model.alert import State
from dispatcher.model.event import MAX_INT64, MIN_INT64
from dispatcher.model.recipient import MAX_RECIPIENTS_PER_ACCOUNT, Recipient
from tests.dispatcher.ledger_kit import (
    HOUR_MS,
    NOBODY,
    NOW,
    Tell,
    accepted,
    accepted_line,
    admitted,
    alert_story,
    counted,
    in_halves,
    line,
    owner_of,
    recipient,
    step,
)

# ---- what is admitted ---------------------------------------------------------------------------------------------


async def test_an_admitted_alert_carries_all_that_its_lane_needs(ledger: Ledger) -> None:
    # Given a recipient with everything that can be said of one
    owner = await owner_of(ledger)
    to = recipient(
        email="li@example.com",
        locale="en",
        timezone="Europe/London",
        channels=("sms", "wechat"),
        min_amount={"sms": {"CNY": 10_000}},
        opt_out=("broadcast",),
    )

    # When an event is admitted
    (alert,) = await admitted(ledger, owner, accepted("e-1"), to=[to])

    # Then nothing has to be asked for again
    assert alert.event == accepted("e-1").event
    told = alert.recipient
    assert (told.account, told.role, told.openid, told.phone) == ("A-1", "primary", to.openid, to.phone)
    assert (told.email, told.locale, told.timezone) == ("li@example.com", "en", "Europe/London")
    assert (told.channels, told.opt_out, told.refused) == (("sms", "wechat"), ("broadcast",), {})
    assert told.min_amount == {"sms": {"CNY": 10_000}}
    assert (alert.route, alert.channel, alert.template) == (("sms", "wechat"), "sms", "swipe@1")
    assert (alert.accepted_ms, alert.expires_ms, alert.day_total) == (NOW, NOW + HOUR_MS, -42)
    assert (alert.attempts, alert.first_attempt_ms, alert.state, alert.receipt) == (0, None, "sending", None)

    # And it comes back the same when another process takes it over, but that it may have been sent
    await ledger.leave(owner, NOW)
    other = await owner_of(ledger, "there")
    (again,) = await ledger.due("sms", NOW, other, 10, "sending")
    assert again.key == alert.key
    assert again.process_died
    other_ones = ("attempts", "first_attempt_ms", "state", "process_died")
    kept = [name for name in alert.__struct_fields__ if name not in other_ones]
    assert [getattr(again, name) for name in kept] == [getattr(alert, name) for name in kept]
    assert (again.attempts, again.first_attempt_ms, again.state) == (1, NOW, "interrupted")


async def test_each_recipient_of_the_account_gets_an_alert(ledger: Ledger) -> None:
    # Given an account with as many recipients as there may be, and events of it and of another one
    owner = await owner_of(ledger)
    roles = [f"card-{number}" for number in range(MAX_RECIPIENTS_PER_ACCOUNT)]
    to = [recipient(role=role) for role in roles] + [recipient("A-2")]

    # When they are admitted
    alerts = await admitted(
        ledger, owner, accepted("e-1"), accepted("e-2", account="A-2"), accepted("e-3", account="A-1"), to=to
    )

    # Then every recipient has one for each event, with a key and an id of its own
    assert [(alert.event.id, alert.recipient.role) for alert in alerts] == [
        *(("e-1", role) for role in roles),
        ("e-2", "primary"),
        *(("e-3", role) for role in roles),
    ]
    assert len({alert.id for alert in alerts}) == len({alert.key for alert in alerts}) == len(alerts)
    for event_id in ("e-1", "e-2", "e-3"):
        story = await ledger.explain(event_id)
        assert story is not None
        assert [one.id for one in story.alerts] == [alert.id for alert in alerts if alert.event.id == event_id]


async def test_an_event_with_nobody_to_tell_ends_as_one_suppressed_alert(ledger: Ledger) -> None:
    owner = await owner_of(ledger)

    admission = await ledger.admit([accepted("e-1")], NOW, owner, Tell())

    assert (admission.accepted, admission.alerts) == (1, [])
    assert admission.ended == {("suppressed", "no-recipient"): 1}
    story = await alert_story(ledger)
    assert (story.state, story.reason, story.role, story.ended_at) == ("suppressed", "no-recipient", None, NOW)
    books = await ledger.books()
    assert (books.balanced, books.open, books.suppressed_by) == (True, 0, {"no-recipient": 1})


@pytest.mark.parametrize("state", ["suppressed", "expired"])
async def test_what_ends_at_once_is_never_leased(ledger: Ledger, state: State) -> None:
    # Given rules that let nothing through
    owner = await owner_of(ledger)
    decide = Tell(state, reason="cap-a-day")

    # When events are admitted
    await ledger.import_recipients([recipient(), recipient(role="second")])
    admission = await ledger.admit([accepted("e-1")], NOW, owner, decide)

    # Then they have ended, for the reason given, and nobody will send them
    assert (admission.alerts, admission.ended) == ([], {(state, "cap-a-day"): 2})
    assert await ledger.open_count() == 0
    await ledger.leave(owner, NOW)
    other = await owner_of(ledger, "there")
    assert await ledger.due("wechat", NOW + HOUR_MS, other, 10, "sending") == []
    story = await alert_story(ledger, "e-1", 1)
    assert (story.state, story.reason, story.saw) == (state, "cap-a-day", {"amount": 7261, "threshold/sms": 10_000})


# ---- the same event twice -----------------------------------------------------------------------------------------


async def test_the_same_event_is_admitted_once(ledger: Ledger) -> None:
    # Given two events, one of them twice in its batch
    owner = await owner_of(ledger)
    decide = Tell()
    await ledger.import_recipients([recipient()])
    first = await ledger.admit([accepted("e-1"), accepted("e-2"), accepted("e-1")], NOW, owner, decide)
    assert (first.accepted, first.duplicates, first.conflicts) == (2, [2], [])

    # When the batch comes again, with one new event in the middle
    again = await ledger.admit([accepted("e-2"), accepted("e-3"), accepted("e-1")], NOW + 1, owner, decide)

    # Then only the new one is admitted
    assert (again.accepted, again.duplicates, again.conflicts) == (1, [0, 2], [])
    assert [alert.event.id for alert in again.alerts] == ["e-3"]
    # And the rules were asked about each event once, and nothing was counted twice
    assert decide.asked == ["e-1", "e-2", "e-3"]
    assert await counted(ledger, owner, "told|A-1") == 3
    assert (await ledger.books()).events == 3


async def test_the_first_of_two_contents_stands(ledger: Ledger) -> None:
    # Given one id with three contents in one batch, the last the same as the first
    owner = await owner_of(ledger)
    await ledger.import_recipients([recipient()])
    batch = [accepted("e-1", amount=1), accepted("e-1", amount=2), accepted("e-1", amount=1)]

    # When it is admitted, and then the second content alone
    first = await ledger.admit(batch, NOW, owner, Tell())
    second = await ledger.admit(batch[1:2], NOW, owner, Tell())

    # Then the first stands and the other is a conflict each time
    assert (first.accepted, first.duplicates, first.conflicts) == (1, [2], [1])
    assert (second.accepted, second.duplicates, second.conflicts) == (0, [], [0])
    assert [alert.event.amount for alert in first.alerts] == [1]
    story = await ledger.explain("e-1")
    assert story is not None
    assert json.loads(story.payload)["amount"] == 1
    assert await counted(ledger, owner, "told|A-1") == 1


@pytest.mark.parametrize(
    ("again", "same"),
    [
        (line("e-1", extra=[1, {"two": None}]), True),
        (json.dumps(dict(reversed(json.loads(line("e-1")).items())), indent=1).encode(), True),
        (line("e-1", time="2024-01-01T18:00:00+08:00"), True),
        (line("e-1", category="swipe"), True),
        (line("e-1", time="2024-01-01T10:00:01+00:00"), False),
        (line("e-1", amount=-7261), False),
        (line("e-1", account="A-2"), False),
        (line("e-1", city="Leeds"), False),
    ],
    ids=["unknown field", "field order", "zone", "default said", "time", "sign", "account", "field more"],
)
async def test_same_content_is_what_the_known_fields_say(ledger: Ledger, again: bytes, same: bool) -> None:
    owner = await owner_of(ledger)
    await admitted(ledger, owner, accepted("e-1"))

    admission = await ledger.admit([accepted_line(again)], NOW, owner, Tell())

    assert (admission.accepted, admission.duplicates, admission.conflicts) == ((0, [0], []) if same else (0, [], [0]))


async def test_a_restamped_event_is_recognised(ledger: Ledger) -> None:
    # Given recorded data that was given the time at which it was read
    owner = await owner_of(ledger)
    read_at = datetime.fromisoformat("2024-01-01T09:59:59.123+00:00")
    (alert,) = await admitted(ledger, owner, *restamp([accepted("e-1")], read_at))
    assert alert.event.time == read_at

    # When the same file is read again a day later, then it is recognised
    (later,) = restamp([accepted("e-1")], read_at + timedelta(days=1))
    assert (await ledger.admit([later], NOW, owner, Tell())).duplicates == [0]
    # And whoever takes the alert over tells the time of the first reading
    await ledger.leave(owner, NOW)
    other = await owner_of(ledger, "there")
    (taken,) = await ledger.due("wechat", NOW, other, 1, "sending")
    assert taken.event.time == read_at


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 1000])
async def test_batches_of_any_size(ledger: Ledger, size: int) -> None:
    # Given a batch whose second half came before
    owner = await owner_of(ledger)
    batch = [accepted(f"e-{number}", account=f"A-{number % 3}") for number in range(size)]
    await ledger.import_recipients([recipient("A-0"), recipient("A-1")])
    before = await ledger.admit(batch[size // 2 :], NOW, owner, Tell())

    # When it comes whole
    after = await ledger.admit(batch, NOW, owner, Tell())

    # Then each is admitted once
    assert before.accepted + after.accepted == size
    assert after.duplicates == list(range(size // 2, size))
    books = await ledger.books()
    assert (books.events, books.balanced, sum(books.states.values())) == (size, True, size)
    assert books.suppressed_by == ({"no-recipient": size // 3} if size // 3 else {})
    # And outcomes of all of them fit in one call, too
    alerts = before.alerts + after.alerts
    await ledger.record([step(alert, "delivered", msgid=alert.event.id) for alert in alerts], owner)
    assert await ledger.open_count() == 0


AWKWARD = {
    "quotes": 'it\'s "so" -- ; DROP TABLE alerts',
    "percent": "100%_\\%s?:a",
    "emoji": "🔔 家",
    "line separators": "a\u2028b\u2029c\u0085d",
    "json": '{"a": [1]}',
    "number": "0042",
    "long": "长" * 128,
    "bidi": "\u202eevil\u200d",
}


@pytest.mark.parametrize("text", AWKWARD.values(), ids=AWKWARD.keys())
async def test_text_comes_back_as_it_was_given(ledger: Ledger, text: str) -> None:
    owner = await owner_of(ledger, text)
    event = accepted(text, account=text, merchant=text)

    (alert,) = await admitted(ledger, owner, event, to=[recipient(text, text[:64], openid=text, opt_out=(text,))])

    assert (await ledger.admit([event], NOW, owner, Tell())).duplicates == [0]
    await ledger.record([step(alert, "awaiting", msgid=text, due_ms=NOW)], owner)
    (again,) = await ledger.due("wechat", NOW, owner, 1, "sending")
    assert again.event == event.event
    assert (again.recipient.account, again.recipient.role) == (text, text[:64])
    assert str.__str__(again.recipient.openid or "") == text
    assert again.recipient.opt_out == (text,)
    await ledger.record([step(again, "failed", reason=text, outcome=None)], owner)
    assert (await ledger.books()).failed_by == {text: 1}
    story = await ledger.explain(text)
    assert story is not None
    assert (story.id, story.account, story.alerts[0].reason) == (text, text, text)


AMOUNTS = [MIN_INT64, -1, 0, 1, 2**53 + 1, MAX_INT64]
TIMES = [
    "0002-01-01T00:00:00.001+14:00",
    "1969-12-31T23:59:59.999Z",
    "1970-01-01T00:00:00.000Z",
    *(f"2024-01-01T10:00:00.{ms:03}+08:00" for ms in range(0, 1000, 37)),
    "9998-12-31T23:59:59.999-12:00",
]


async def test_amounts_and_times_at_their_edges(ledger: Ledger) -> None:
    # Given amounts and times far from the middle
    owner = await owner_of(ledger)
    batch = [
        accepted(f"{amount}/{time}", amount=amount, orig_amount=amount, orig_currency="CNY", time=time)
        for amount, time in product(AMOUNTS, TIMES)
    ]

    # When their alerts are admitted and brought back later
    alerts = await admitted(ledger, owner, *batch)
    await ledger.record([step(alert, "retrying") for alert in alerts], owner)
    again = await ledger.due("wechat", NOW, owner, len(batch), "sending")

    # Then none has changed, to the millisecond
    assert [alert.event for alert in again] == [one.event for one in batch]
    epoch = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    for one in batch[: len(TIMES)]:
        story = await ledger.explain(one.event.id)
        assert story is not None
        assert epoch + timedelta(milliseconds=story.swiped_at) == one.event.time


# ---- decisions and counters ---------------------------------------------------------------------------------------


class BrokenRules(Exception):
    pass


async def test_a_decision_that_fails_leaves_nothing_behind(ledger: Ledger) -> None:
    # Given rules that fail after they have read their counters
    owner = await owner_of(ledger)
    await admitted(ledger, owner, accepted("e-0"))

    @in_halves
    def broken(batch: Sequence[Accepted], told: Any, now_ms: int, counted_now: Counted) -> Decisions:
        assert counted_now.counters(["told|A-1"]) == {"told|A-1": 1}
        raise BrokenRules

    # When they are asked, then their error comes out
    with pytest.raises(BrokenRules):
        await ledger.admit([accepted("e-1")], NOW, owner, broken)

    # And nothing of the batch is there, so that it can be sent again
    assert await ledger.explain("e-1") is None
    assert (await ledger.books()).events == 1
    assert (await ledger.admit([accepted("e-1")], NOW, owner, Tell())).accepted == 1
    assert await counted(ledger, owner, "told|A-1") == 2


NO_ROUTE = Draft(Recipient(1, "A-1"), "sending", None, (), NOW, "swipe@1")
NO_RECIPIENT = Draft(None, "sending", None, ("wechat",), NOW, "swipe@1")


@pytest.mark.parametrize(
    "drafts",
    [[[]], [[NOBODY] * 17], [], [[NOBODY], [NOBODY]], [[NO_ROUTE]], [[NO_RECIPIENT]]],
    ids=["none", "seventeen", "no event", "an event too many", "no channel", "no recipient"],
)
async def test_no_event_is_admitted_without_its_alerts(ledger: Ledger, drafts: list[list[Draft]]) -> None:
    owner = await owner_of(ledger)

    @in_halves
    def forgetful(*_: Any) -> Decisions:
        return Decisions(drafts, {"told|A-1": (9, NOW)})

    with pytest.raises(ValueError, match=r"event|alert"):
        await ledger.admit([accepted("e-1")], NOW, owner, forgetful)

    books = await ledger.books()
    assert (books.events, books.states, books.balanced) == (0, {}, True)
    assert await counted(ledger, owner, "told|A-1") == 0


async def test_counters_are_read_in_the_transaction_and_written_as_they_are(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    seen: list[Mapping[str, int]] = []
    edges = {"low%'\u2028": MIN_INT64, "high": MAX_INT64, "zero": 0}

    def counting(values: Mapping[str, int]) -> Callable[..., Decisions]:
        @in_halves
        def decide(batch: Any, told: Any, now_ms: int, counted_now: Counted) -> Decisions:
            seen.append(counted_now.counters([*edges, "never written"]))
            return Decisions([[NOBODY]], {key: (value, NOW + 10) for key, value in values.items()})

        return decide

    # Given counters that one batch wrote
    await ledger.admit([accepted("e-1")], NOW, owner, counting(edges))
    # When the next one reads them and writes one of them
    await ledger.admit([accepted("e-2")], NOW, owner, counting({"high": 5}))
    await ledger.admit([accepted("e-3")], NOW, owner, counting({}))
    # Then it has seen what was written, and what it wrote stands in place of the old value
    assert seen == [{}, edges, edges | {"high": 5}]

    # When their time is over, then they are forgotten, and not before
    assert await ledger.forget_counters(NOW + 10) == 0
    assert await ledger.forget_counters(NOW + 11) == 3
    await ledger.admit([accepted("e-4")], NOW, owner, counting({}))
    assert seen[-1] == {}


async def test_day_totals_go_on_and_are_no_counters(ledger: Ledger) -> None:
    # Given totals of two accounts' day, of which one is below zero, and a counter
    owner = await owner_of(ledger)
    day, other = "day|Asia/Shanghai|2024-01-01|GBP|A-1", "day|Asia/Shanghai|2024-01-01|GBP|A-2"
    written = [{day: (7_261, 1, NOW), other: (-50, 3, NOW)}, {day: (7_200, 2, NOW + 10)}]
    seen: list[Any] = []

    @in_halves
    def decide(batch: Any, told: Any, now_ms: int, counted_now: Counted) -> Decisions:
        seen.append((counted_now.totals([day, other, "day|never|A-1"]), counted_now.counters(["told|A-1"])))
        totals = written.pop(0) if written else {}
        return Decisions([[NOBODY]], {"told|A-1": (len(seen), NOW)}, totals=totals)

    # When each is written, and one of them again
    for number in range(3):
        await ledger.admit([accepted(f"e-{number}")], NOW, owner, decide)
    # Then they are read back as they were written last
    assert seen == [
        ({}, {}),
        ({day: (7_261, 1), other: (-50, 3)}, {"told|A-1": 1}),
        ({day: (7_200, 2), other: (-50, 3)}, {"told|A-1": 2}),
    ]
    # And a kind of them goes as a whole when its time is over, in its time
    assert await ledger.forget_counters(NOW + 10) == 1
    assert await ledger.forget_counters(NOW + 11) == 2


async def test_many_counters_in_one_batch(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    wanted = {f"day|2024-01-01|GBP|{number}": number for number in range(1000)}

    @in_halves
    def decide(batch: Any, told: Any, now_ms: int, counted_now: Counted) -> Decisions:
        found.update(counted_now.counters(list(wanted)))
        return Decisions([[NOBODY]], {key: (value, NOW) for key, value in wanted.items()})

    found: dict[str, int] = {}
    await ledger.admit([accepted("e-1")], NOW, owner, decide)
    assert found == {}
    await ledger.admit([accepted("e-2")], NOW, owner, decide)
    assert found == wanted
