"""Caps and gaps of single channels and other scopes: what they take out of the route, and what they count."""

from __future__ import annotations

import pytest

from ratelimit.brownout import BrownOutTerms
from ratelimit.degrade import degrade
from tests.ratelimit.book_kit import DAY_MS, Book, a_recipient, an_event, at, rule

NIGHT = rule("quiet_hours", from_='"22:00"', to='"08:00"')
MONTH = rule("expire_after", id='"age"', category='"swipe"', hours="744")
NOW = at("2026-11-28T04:00Z")  # noon in Shanghai
SMS_CAP = {"limit": "1", "per": '"recipient"', "window": '"day"', "channel": '"sms"'}


def test_a_channel_that_is_full_is_left_to_the_next_one() -> None:
    # Given one WeChat message a day
    book = Book(rule("cap", **SMS_CAP | {"channel": '"wechat"'}))
    first, second = book.one(NOW), book.one(NOW)
    # Then the first goes by WeChat, and the second by SMS, and says why
    assert (first.state, first.route) == ("send", ("wechat", "sms"))
    assert (second.state, second.route) == ("send", ("sms",))
    assert second.saw == {"full/wechat/cap": 1}
    # And whoever has no other channel is not told
    alone = book.one(NOW, a_recipient(phone=None))
    assert (alone.state, alone.rule, alone.saw) == ("suppressed", "cap", {"counter": 1, "limit": 1})


def test_an_alert_counts_for_a_channel_that_it_may_fall_back_to() -> None:
    # Given one SMS a day and an alert that goes by WeChat first
    book = Book(rule("cap", **SMS_CAP))
    assert book.one(NOW).route == ("wechat", "sms")
    # Then the next one may not fall back to SMS, for that has been decided once
    assert book.one(NOW).route == ("wechat",)


def test_a_cap_that_holds_for_a_channel_is_asked_of_the_first_one_only() -> None:
    # Given one SMS a day, held beyond that
    book = Book(rule("cap", **SMS_CAP | {"at_cap": '"hold"'}), MONTH)
    by_sms = a_recipient(channels=("sms", "wechat"))
    # Then alerts that go by WeChat first neither count nor wait
    assert [book.one(NOW).state for _ in range(2)] == ["send", "send"]
    assert [book.one(NOW, by_sms).state for _ in range(2)] == ["send", "held"]


def test_a_cap_that_holds_is_asked_again_when_its_channel_becomes_the_first() -> None:
    # Given one SMS a day, held beyond that, and after it in the file one WeChat message a day
    hold = rule("cap", id='"sms"', **SMS_CAP | {"at_cap": '"hold"'})
    take = rule("cap", id='"wechat"', **SMS_CAP | {"channel": '"wechat"'})
    book = Book(hold, take, MONTH)
    decisions = [book.one(NOW) for _ in range(3)]
    # Then the second falls to SMS, and the third finds SMS full and waits for a day on which WeChat has room again
    assert [each.route for each in decisions] == [("wechat", "sms"), ("sms",), ("wechat", "sms")]
    assert (decisions[2].state, decisions[2].rule, decisions[2].send_ms) == ("held", "sms", at("2026-11-28T16:00Z"))


def test_a_cap_per_channel_counts_each_for_itself() -> None:
    # Given one a day for each channel of a recipient
    book = Book(rule("cap", limit="1", per='["recipient", "channel"]', window='"day"'))
    assert book.one(NOW, a_recipient(phone=None)).route == ("wechat",)
    # Then WeChat is full and SMS is not
    assert book.one(NOW).route == ("sms",)
    assert book.one(NOW).state == "suppressed"


SCOPES = [
    ('"merchant"', {}, {"merchant": "book shop"}),
    ('["account", "merchant"]', {}, {"merchant": None}),
    ('["account", "category"]', {}, {"category": "a|b"}),
    ('"category"', {}, {"category": "entry"}),
    ('["recipient", "template"]', {}, {"category": "entry"}),
    ('["recipient", "account"]', {"id": 2}, {}),
    ('"account"', {"id": 2}, {"account": "A2"}),
]


@pytest.mark.parametrize(("per", "recipient", "event"), SCOPES)
def test_each_scope_has_its_own_count(per: str, recipient: dict[str, int], event: dict[str, str]) -> None:
    # Given a cap of 1 for a scope, when two come in it and one in another
    book = Book(rule("cap", limit="1", per=per, window='"day"'))
    states = [book.one(NOW).state for _ in range(2)]
    # Then the second is one too many, and the other is not
    assert states == ["send", "suppressed"]
    assert book.one(NOW, a_recipient(**recipient), event=an_event(**event)).state == "send"


def test_a_held_service_message_goes_by_template_when_its_time_is_over() -> None:
    # Given a recipient to whom customer-service messages may be sent for another hour, and quiet hours
    book = Book(NIGHT, channels=("wechat", "wechat_service", "sms"))
    recipient = a_recipient(service_until_ms=at("2026-11-28T16:00Z"))
    assert book.one(at("2026-11-28T13:00Z"), recipient).route == ("wechat_service", "wechat", "sms")
    # When an alert is held until after that, then it goes by template
    assert book.one(at("2026-11-28T15:00Z"), recipient).route == ("wechat", "sms")


def test_a_cap_on_wechat_is_one_on_its_service_messages_too() -> None:
    # Given one WeChat message a day and a recipient to whom customer-service messages may be sent
    book = Book(rule("cap", **SMS_CAP | {"channel": '"wechat"'}), channels=("wechat", "wechat_service", "sms"))
    recipient = a_recipient(service_until_ms=NOW + DAY_MS)
    assert book.one(NOW, recipient).route == ("wechat_service", "wechat", "sms")
    assert book.one(NOW, recipient).route == ("sms",)
    assert book.counters["cap|cap|2026-11-28|1"] == 1


def test_a_hold_on_wechat_is_one_on_its_service_messages_too() -> None:
    # Given one WeChat message a day, held beyond that, and a recipient to whom customer-service messages may be sent
    hold = rule("cap", **SMS_CAP | {"channel": '"wechat"', "at_cap": '"hold"'})
    book = Book(hold, channels=("wechat", "wechat_service", "sms"))
    recipient = a_recipient(service_until_ms=NOW + DAY_MS)
    assert [book.one(NOW, recipient).state for _ in range(2)] == ["send", "held"]


def test_a_route_that_a_brown_out_has_changed_is_asked_about_anew() -> None:
    # Given one SMS a day, held beyond that, and a brown-out of WeChat that leaves only SMS to a small swipe
    book = Book(rule("cap", **SMS_CAP | {"at_cap": '"hold"'}))
    terms = BrownOutTerms({"CNY": 20_000}, {}, {}, frozenset())
    decisions = []
    for number in range(2):
        event = an_event(id=f"e{number}")
        plan, _ = degrade(book.decider.plan(event, NOW, a_recipient(), NOW), event, "wechat", 1, terms)
        decisions.append(book.decide([(event, [plan])])[0][0])
    # Then SMS is what is counted and what is full
    assert [(each.state, each.route) for each in decisions] == [("send", ("sms",)), ("held", ("sms",))]
