"""Every decision of the send rules, with its exact reason."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from dispatcher.model.event import MAX_INT64, Event
from dispatcher.model.recipient import Recipient, Refusal
from ratelimit.decision import DayTotal
from ratelimit.rules import (
    MAX_COUNTED_AMOUNT,
    Decider,
    Decision,
    Tally,
    decide,
    default_rules_text,
    load_rules,
    moved_amount,
)

HOUR_MS = 3600 * 1000
NOW_MS = 1_767_254_400_000  # 2026-01-01T08:00Z, four in the afternoon in Shanghai
CAP = '\n[[rule]]\nid = "daily-cap"\neffect = "cap"\nlimit = 2\nper = "account"\nwindow = "day"\n'
GONE = Refusal(code="43004", since=NOW_MS - 6 * 24 * HOUR_MS)


def an_event(**changes: Any) -> Event:
    given: dict[str, Any] = {
        "id": "e1",
        "account": "A|1",
        "amount": 12_300,
        "currency": "CNY",
        "time": datetime(2026, 1, 1, 8, tzinfo=UTC),
    }
    return Event(**(given | changes))


def a_recipient(**changes: Any) -> Recipient:
    given: dict[str, Any] = {"id": 1, "account": "A|1", "openid": "o-1", "phone": "+8613800000000"}
    return Recipient(**(given | changes))


def a_tally(counters: dict[str, int], totals: Mapping[str, DayTotal] = {}) -> Tally:
    return Tally(
        lambda keys: {key: counters[key] for key in keys if key in counters},
        lambda keys: {},
        lambda keys: {key: totals[key] for key in keys if key in totals},
    )


def decided(
    event: Event,
    recipient: Recipient,
    *,
    age_ms: int = 1000,
    extra: str = "",
    counters: dict[str, int] | None = None,
    channels: tuple[str, ...] = ("wechat", "sms"),
    template: str | None = None,
) -> Decision:
    decider = Decider(load_rules(default_rules_text() + extra, "rules.toml"), channels)
    return decide(decider.plan(event, NOW_MS - age_ms, recipient, NOW_MS, template), counters or {})


def test_a_swipe_from_100_yuan_is_told_on_both_channels_in_the_recipients_order() -> None:
    # Given the shipped rules and a swipe of exactly the minimum
    decision = decided(an_event(amount=10_000), a_recipient(channels=("sms", "wechat")))
    # Then it is sent on both, SMS first as the recipient wants it, and its amount counts for the day
    key = "day|Asia/Shanghai|2026-01-01|CNY|A|1"
    assert decision == Decision(
        state="send",
        route=("sms", "wechat"),
        rule="",
        saw=None,
        expires_at_ms=NOW_MS - 1000 + 24 * HOUR_MS,
        increments=(),
        day_total_key=key,
        day_total=(key, 10_000, NOW_MS + 8 * HOUR_MS + 48 * HOUR_MS),
        zone_fallback=False,
        send_ms=NOW_MS,
    )


ROUTES = [
    ("a small swipe is told on WeChat only", {"amount": 9_999}, {}, ("wechat",)),
    ("another currency has no minimum", {"amount": 1, "currency": "USD"}, {}, ("wechat", "sms")),
    ("a refund counts by its size", {"amount": -10_000, "type": "refund"}, {}, ("wechat", "sms")),
    ("the minimum holds for declines", {"amount": 9_999, "type": "decline"}, {}, ("wechat",)),
    ("the smallest 64-bit amount has a size", {"amount": -MAX_INT64 - 1}, {}, ("wechat", "sms")),
    ("a refused channel is left out", {}, {"refused": {"wechat": GONE}}, ("sms",)),
    ("so is one that refuses the template", {}, {"refused": {"wechat/swipe": GONE}}, ("sms",)),
    ("but not one that refuses another", {}, {"refused": {"wechat/entry": GONE}}, ("wechat", "sms")),
    ("no address, no channel", {}, {"openid": None}, ("sms",)),
    ("a channel that is not configured is passed over", {}, {"channels": ("email", "sms")}, ("sms",)),
    ("a channel listed twice is used once", {}, {"channels": ("sms", "sms")}, ("sms",)),
    (
        "the recipient's own minimum above the rule's",
        {},
        {"min_amount": {"sms": {"CNY": 12_301}}},
        ("wechat",),
    ),
    (
        "below the rule's it does not count",
        {"amount": 9_999},
        {"min_amount": {"sms": {"CNY": 1}}},
        ("wechat",),
    ),
    ("and it may be for WeChat", {}, {"min_amount": {"wechat": {"CNY": 12_301}}}, ("sms",)),
]


@pytest.mark.parametrize(("_said", "event", "recipient", "route"), ROUTES, ids=[row[0] for row in ROUTES])
def test_the_route(_said: str, event: dict[str, Any], recipient: dict[str, Any], route: tuple[str, ...]) -> None:
    # Given a swipe and a recipient, when it is decided, then these channels are allowed and no rule has
    # stopped it
    decision = decided(an_event(**event), a_recipient(**recipient))
    assert (decision.state, decision.route, decision.rule, decision.saw) == ("send", route, "", None)


SMS_ONLY = {"channels": ("sms",)}
BELOW = {"amount": 4_500, "threshold/sms": 10_000}
SUPPRESSED = [
    ("sms-from-100", {"amount": -4_500}, SMS_ONLY, BELOW),
    ("sms-from-100", {"amount": 4_500}, {"refused": {"wechat": GONE}}, BELOW),
    ("sms-from-100", {"amount": 4_500}, SMS_ONLY | {"min_amount": {"sms": {"CNY": 10_000}}}, BELOW),
    (
        "recipient-min-amount",
        {"amount": 4_500},
        SMS_ONLY | {"min_amount": {"sms": {"CNY": 20_000}}},
        {"amount": 4_500, "threshold/sms": 20_000},
    ),
    (
        "sms-from-100",
        {"amount": 4_500},
        {"min_amount": {"wechat": {"CNY": 50_000}}},
        {"amount": 4_500, "threshold/wechat": 50_000, "threshold/sms": 10_000},
    ),
    ("no-channel", {}, {"channels": ("email",)}, None),
    ("no-address", {}, {"openid": None, "phone": None}, None),
    ("no-address", {}, {"openid": "", "channels": ("email", "wechat")}, None),
    ("recipient-gone", {}, {"refused": {"wechat": GONE}, "phone": None}, None),
    ("recipient-gone", {}, {"phone": None, "refused": {"wechat/swipe": GONE}}, None),
    ("opt-out", {"category": "broadcast"}, {"opt_out": ("broadcast",)}, None),
]


@pytest.mark.parametrize(("rule", "event", "recipient", "saw"), SUPPRESSED)
def test_nothing_left_to_send_on_is_suppressed_by_what_came_closest(
    rule: str, event: dict[str, Any], recipient: dict[str, Any], saw: dict[str, int] | None
) -> None:
    # Given a recipient whom no channel may reach
    decision = decided(an_event(**event), a_recipient(**recipient))
    # Then the reason is that of the channel that came closest, with what it looked at
    assert (decision.state, decision.route, decision.rule, decision.saw) == ("suppressed", (), rule, saw)
    # And the money has moved all the same
    assert decision.day_total is not None


def test_a_webhook_needs_no_address_of_the_recipient() -> None:
    # Given a bank's own webhook, when a recipient lists it, then it is a channel
    recipient = a_recipient(channels=("webhook",), openid=None, phone=None)
    assert decided(an_event(), recipient, channels=("webhook",)).route == ("webhook",)


def test_a_refusal_is_looked_up_by_the_template_that_would_be_used() -> None:
    # Given a category that uses the template `swipe`, which the recipient has refused
    recipient = a_recipient(refused={"wechat/swipe": GONE})
    # When the template is named, then the channel is left out
    assert decided(an_event(category="entry"), recipient, template="swipe").route == ("sms",)
    assert decided(an_event(category="entry"), recipient).route == ("wechat", "sms")


EXPIRY = [
    ("swipe", 24 * HOUR_MS - 1, "send", "", None),
    ("swipe", 24 * HOUR_MS, "expired", "swipe-expiry", {"age_seconds": 86_400, "limit_seconds": 86_400}),
    ("entry", 24 * HOUR_MS - 1, "send", "", None),
    (
        "entry",
        24 * HOUR_MS + 999,
        "expired",
        "default-expiry",
        {"age_seconds": 86_400, "limit_seconds": 86_400},
    ),
]


@pytest.mark.parametrize(("category", "age_ms", "state", "rule", "saw"), EXPIRY)
def test_age_is_measured_from_the_swipe(
    category: str, age_ms: int, state: str, rule: str, saw: dict[str, int] | None
) -> None:
    # Given a swipe of some age, when it is decided, then it is expired from the limit on
    decision = decided(an_event(category=category), a_recipient(), age_ms=age_ms)
    assert (decision.state, decision.rule, decision.saw) == (state, rule, saw)
    assert decision.expires_at_ms == NOW_MS - age_ms + 24 * HOUR_MS


def test_a_swipe_from_the_future_is_as_old_as_its_arrival() -> None:
    # Given a source whose clock is a year ahead, when its swipe is decided, then it expires a day after it
    # arrived
    assert decided(an_event(), a_recipient(), age_ms=-365 * 24 * HOUR_MS).expires_at_ms == NOW_MS + 24 * HOUR_MS


def test_what_would_not_have_been_sent_in_time_is_not_called_expired() -> None:
    # Given an old swipe that is also below the minimum, when it is decided, then the minimum is the reason
    decision = decided(an_event(amount=1), a_recipient(channels=("sms",)), age_ms=48 * HOUR_MS)
    assert (decision.state, decision.rule) == ("suppressed", "sms-from-100")


CAP_KEY = "cap|daily-cap|2026-01-01|A|1"


def test_below_the_cap_an_alert_is_sent_and_counted_once() -> None:
    # Given a cap of 2 with 1 counted
    decision = decided(an_event(), a_recipient(), extra=CAP, counters={CAP_KEY: 1})
    # Then it is sent, says what it saw, and counts until two days after the recipient's day
    assert (decision.state, decision.rule, decision.saw) == ("send", "", {"counter": 1, "limit": 2})
    assert decision.increments == ((CAP_KEY, 1, NOW_MS + 8 * HOUR_MS + 48 * HOUR_MS),)


@pytest.mark.parametrize("counted", [2, 3])
def test_at_the_cap_an_alert_is_suppressed_and_not_counted(counted: int) -> None:
    # Given a cap of 2 that is full (3: the limit has been lowered since)
    decision = decided(an_event(), a_recipient(), extra=CAP, counters={CAP_KEY: counted})
    # Then the alert is suppressed by it and counts nothing, but the money does
    assert (decision.state, decision.route, decision.rule) == ("suppressed", (), "daily-cap")
    assert decision.saw == {"counter": counted, "limit": 2}
    assert decision.increments == ()
    assert decision.day_total is not None


def test_of_two_caps_the_first_full_one_decides_and_neither_counts() -> None:
    # Given two caps of which the second is full
    second = CAP.replace("daily-cap", "hard-cap").replace("limit = 2", "limit = 1")
    counters = {"cap|hard-cap|2026-01-01|A|1": 1}
    decision = decided(an_event(), a_recipient(), extra=CAP + second, counters=counters)
    # Then it decides, and the first one has counted nothing
    assert (decision.rule, decision.saw, decision.increments) == ("hard-cap", {"counter": 1, "limit": 1}, ())
    # And when both have room, the tighter one is shown
    roomy = decided(an_event(), a_recipient(), extra=CAP + second)
    assert (roomy.saw, len(roomy.increments)) == ({"counter": 0, "limit": 1}, 2)


def test_a_suppressed_or_expired_alert_needs_no_cap_counters() -> None:
    # Given a cap, an alert that has no channel and one that is too old
    decider = Decider(load_rules(default_rules_text() + CAP, "rules.toml"), ("wechat",))
    nobody = decider.plan(an_event(), NOW_MS, a_recipient(openid=None), NOW_MS)
    too_old = decider.plan(an_event(), NOW_MS - 25 * HOUR_MS, a_recipient(), NOW_MS)
    sent = decider.plan(an_event(), NOW_MS, a_recipient(), NOW_MS)
    # Then only the one that could be sent reads the cap's counter; all read the day total
    assert (nobody.counters, nobody.decided.day_total_key) == ((), "day|Asia/Shanghai|2026-01-01|CNY|A|1")
    assert (too_old.counters, too_old.decided.day_total_key) == ((), "day|Asia/Shanghai|2025-12-31|CNY|A|1")
    assert (sent.counters, sent.decided.day_total_key) == ((CAP_KEY,), "day|Asia/Shanghai|2026-01-01|CNY|A|1")


def test_an_unknown_time_zone_is_the_default_one_and_marked() -> None:
    # Given a recipient on a planet of its own
    decision = decided(an_event(), a_recipient(timezone="Mars/Olympus"))
    # Then the day is counted in Shanghai, and the decision says so
    assert decision.zone_fallback
    assert decision.day_total_key == "day|Asia/Shanghai|2026-01-01|CNY|A|1"


MOVED = [
    ("purchase", None, 100, 100),
    ("purchase", "approved", 100, 100),
    ("purchase", "declined: no funds", 100, 0),
    ("purchase", "DECLINED", 100, 0),
    ("purchase", None, MAX_COUNTED_AMOUNT, MAX_COUNTED_AMOUNT),
    ("purchase", None, MAX_COUNTED_AMOUNT + 1, 0),
    ("purchase", None, -MAX_INT64 - 1, 0),
    ("cash", None, 100, 100),
    ("fee", None, 100, 100),
    ("refund", None, -100, -100),
    ("reversal", None, -100, -100),
    ("reversal", None, 100, 0),
    ("decline", None, 100, 0),
    ("entry", None, 100, 0),
    ("moonwalk", None, 100, 0),
    ("purchase", None, 0, 0),
]


@pytest.mark.parametrize(("kind", "status", "amount", "moved"), MOVED)
def test_what_counts_for_the_balance_of_the_day(kind: str, status: str | None, amount: int, moved: int) -> None:
    # Given an event, when it is decided, then its day total grows by the money that moved, or is left alone
    event = an_event(type=kind, status=status, amount=amount)
    assert moved_amount(event) == moved
    total = decided(event, a_recipient()).day_total
    assert (0 if total is None else total[1]) == moved


def test_the_day_total_counts_once_for_each_zone_and_is_read_straight_after() -> None:
    # Given an account with two recipients in Shanghai, one in an unknown zone (which is Shanghai) and one in
    # New York
    decider = Decider(load_rules(default_rules_text(), "rules.toml"), ("wechat",))
    zones = ("Asia/Shanghai", "Asia/Shanghai", "Mars/Olympus", "America/New_York")
    recipients = [a_recipient(id=number, timezone=zone) for number, zone in enumerate(zones)]
    shanghai, new_york = "day|Asia/Shanghai|2026-01-01|CNY|A|1", "day|America/New_York|2026-01-01|CNY|A|1"
    # And a batch of two purchases on a day of which 1,000 are known
    tally = a_tally({}, {shanghai: (1_000, 3)})
    seen = []
    for amount in (200, 30):
        event = an_event(amount=amount)
        decisions = tally.decide_event(event, [decider.plan(event, NOW_MS, each, NOW_MS) for each in recipients])
        seen.append([tally.day_total(decision.day_total_key) for decision in decisions])
    # Then each recipient reads the balance after its own event, and each event has counted once in each zone
    assert seen == [[1_200, 1_200, 1_200, 200], [1_230, 1_230, 1_230, 230]]
    written = {key: (total, events) for key, (total, events, _) in tally.changed_totals.items()}
    assert (written, tally.changed) == ({shanghai: (1_230, 5), new_york: (230, 2)}, {})


def test_alerts_of_one_batch_see_each_other_at_the_cap() -> None:
    # Given a cap of 2 and an account with two recipients in two zones, on the same date in both
    decider = Decider(load_rules(default_rules_text() + CAP, "rules.toml"), ("wechat",))
    recipients = [a_recipient(id=1), a_recipient(id=2, timezone="Asia/Kolkata")]
    tally = a_tally({})
    # When two events come in one batch
    states = []
    for _ in range(2):
        decisions = tally.decide_event(
            an_event(), [decider.plan(an_event(), NOW_MS, each, NOW_MS) for each in recipients]
        )
        states.append([decision.state for decision in decisions])
    # Then the cap is the account's: two alerts in all, not two per recipient
    assert states == [["send", "send"], ["suppressed", "suppressed"]]
    assert tally.value(CAP_KEY) == 2


def test_nothing_counted_is_nothing_to_write() -> None:
    # Given a decline under rules that count nothing, when it is decided, then there is nothing to write
    decider = Decider(load_rules("version = 1", "rules.toml"), ("wechat",))
    tally = a_tally({})
    tally.decide_event(
        an_event(type="decline"), [decider.plan(an_event(type="decline"), NOW_MS, a_recipient(), NOW_MS)]
    )
    assert tally.changed == {}


def test_of_two_minimums_for_a_channel_the_strictest_decides() -> None:
    # Given a second, higher minimum for SMS
    extra = '\n[[rule]]\nid = "sms-200"\neffect = "min_amount"\nchannel = "sms"\namounts = { CNY = 20000 }\n'
    # When a swipe between both is decided, then the higher one is named
    decision = decided(an_event(amount=15_000), a_recipient(channels=("sms",)), extra=extra)
    assert (decision.rule, decision.saw) == ("sms-200", {"amount": 15_000, "threshold/sms": 20_000})


def test_a_decision_can_be_stored() -> None:
    # Given any decision, when it is encoded and decoded, then it is the same
    decision = decided(an_event(), a_recipient(), extra=CAP, counters={CAP_KEY: 1})
    assert msgspec.json.decode(msgspec.json.encode(decision), type=Decision) == decision


def test_a_refusal_is_believed_for_a_week() -> None:
    # Given a recipient who was gone a week ago, and may follow the account again with the same openid
    gone = Refusal(code="43004", since=NOW_MS - 7 * 24 * HOUR_MS)
    # Then WeChat is tried again
    assert decided(an_event(), a_recipient(refused={"wechat": gone})).route == ("wechat", "sms")
