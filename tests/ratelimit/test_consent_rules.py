"""Consent, routes, urgent alerts and late ones."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.model.recipient import Consent
from tests.ratelimit.book_kit import HOUR_MS, Book, a_recipient, an_event, at, rule

NOW = at("2026-11-28T04:00Z")  # noon in Shanghai
YES, NO = Consent(given=True, at=NOW - HOUR_MS, source="form 7"), Consent(given=False, at=NOW - HOUR_MS, source="call")
LATER_NO = Consent(given=False, at=NOW, source="call")
WITHDRAWN = {"consent": -1, "consent_at": NOW - HOUR_MS}
OPT_IN = {"category": '"promotion"', "mode": '"opt-in"'}
OPT_OUT = {"category": '"promotion"', "mode": '"opt-out"'}
SMS = {"channel": '"sms"'}
SALE = {"template": '"sale"'}

CONSENTS: list[tuple[dict[str, str], dict[str, Consent], tuple[str, ...], dict[str, int] | None]] = [
    (OPT_IN, {}, (), {"consent": 0}),
    (OPT_IN, {"promotion": YES}, ("wechat", "sms"), None),
    (OPT_IN, {"promotion": NO}, (), WITHDRAWN),
    (OPT_IN, {"promotion/sms": YES}, (), {"consent": 0}),
    (OPT_OUT, {}, ("wechat", "sms"), None),
    (OPT_OUT, {"promotion": NO}, (), WITHDRAWN),
    (OPT_OUT, {"promotion/sms": NO}, ("wechat", "sms"), None),
    (OPT_IN | SMS, {}, ("wechat",), None),
    (OPT_IN | SMS, {"promotion": YES}, ("wechat", "sms"), None),
    (OPT_IN | SMS, {"promotion": YES, "promotion/sms": NO}, ("wechat",), None),
    (OPT_IN | SMS, {"promotion": LATER_NO, "promotion/sms": YES}, ("wechat",), None),
    (OPT_OUT | SMS, {"promotion/sms": NO}, ("wechat",), None),
    (OPT_IN | SALE, {}, (), {"consent": 0}),
    (OPT_IN | SALE, {"promotion/wechat/sale": YES}, ("wechat",), None),
    (OPT_IN | {"template": '"other"'}, {}, ("wechat", "sms"), None),
    (OPT_IN | {"category": '"broadcast"'}, {}, ("wechat", "sms"), None),
]


@pytest.mark.parametrize(("keys", "consents", "route", "saw"), CONSENTS)
def test_who_has_not_agreed_is_not_told(
    keys: dict[str, str], consents: dict[str, Consent], route: tuple[str, ...], saw: dict[str, int] | None
) -> None:
    # Given a consent rule and what a recipient has said
    book = Book(rule("consent", **keys))
    # When a promotion comes, told by the template `sale`
    decision = book.one(NOW, a_recipient(consents=consents), event=an_event(category="promotion"), template="sale")
    # Then it is told on the channels that the recipient agreed to
    state = "send" if route else "suppressed"
    assert (decision.state, decision.route, decision.rule) == (state, route, "" if route else "consent")
    assert decision.saw == saw


def test_a_consent_rule_with_more_conditions_is_asked_where_they_hold() -> None:
    # Given consent that only foreigners have to give, for everything and for SMS
    for more in ({}, SMS):
        book = Book(rule("consent", when='{ locale = "en" }', **OPT_IN | more))
        event = an_event(category="promotion")
        assert book.one(NOW, event=event).route == ("wechat", "sms")
        assert "sms" not in book.one(NOW, a_recipient(locale="en-GB"), event=event).route


def test_the_reason_is_that_of_the_channel_that_came_closest() -> None:
    # Given SMS without consent, and WeChat without an address
    book = Book(rule("consent", **OPT_IN | SMS))
    decision = book.one(NOW, a_recipient(openid=None), event=an_event(category="promotion"))
    assert (decision.rule, decision.saw) == ("consent", {"consent": 0})


ROUTES = [
    ({}, {}, ("sms", "wechat"), 30_000),
    ({"amount": 999}, {}, ("wechat",), None),
    ({"category": "entry"}, {}, ("wechat", "sms"), None),
    ({}, {"channels": ("wechat",)}, ("wechat",), 30_000),
    ({}, {"channels": ("email", "wechat"), "phone": None}, ("wechat",), 30_000),
]


@pytest.mark.parametrize(("event", "recipient", "route", "deadline_ms"), ROUTES)
def test_the_first_route_that_matches_orders_the_recipients_own_channels(
    event: dict[str, Any], recipient: dict[str, Any], route: tuple[str, ...], deadline_ms: int | None
) -> None:
    # Given two routes for swipes
    large = '{ category = "swipe", currency = "CNY", amount_from = 1000 }'
    book = Book(
        rule("route", id='"large"', when=large, channels='["sms", "wechat"]', deadline_seconds="30"),
        rule("route", id='"small"', when='{ category = "swipe" }', channels='"wechat"'),
    )
    # Then of the recipient's channels those of the first that matches are used, in its order, with its deadline
    given = a_recipient(**recipient)
    assert book.one(NOW, given, event=an_event(**event)).route == route
    assert book.decider.deadline_ms(an_event(**event), given) == deadline_ms
    assert book.decider.has_deadlines
    assert not book.decider.has_priorities


def test_a_route_that_leaves_nothing_is_no_channel() -> None:
    # Given a route over a channel that the recipient has not chosen, then it is not added
    book = Book(rule("route", when='{ category = "swipe" }', channels='"email"'), channels=("wechat", "sms", "email"))
    assert book.one(NOW, a_recipient(email="a@b.c")).rule == "no-channel"


def test_what_a_priority_rule_matches_is_urgent() -> None:
    # Given that fraud warnings and large amounts are urgent
    book = Book(
        rule("priority", id='"fraud"', when='{ type = ["fraud", "decline"] }'),
        rule("priority", id='"large"', when='{ currency = "CNY", amount_from = 1000000, country = "CN" }'),
    )
    assert book.decider.has_priorities
    urgent = [
        book.decider.is_urgent(an_event(**event), a_recipient())
        for event in (
            {"type": "fraud"},
            {"amount": -1_000_000, "country": "CN"},
            {"amount": 999_999, "country": "CN"},
            {"amount": 1_000_000, "currency": "USD", "country": "CN"},
            {},
        )
    ]
    assert urgent == [True, True, False, False, False]


def test_a_category_may_say_from_when_on_it_is_late() -> None:
    # Given swipes that say that they are late after ten minutes
    book = Book(rule("expire_after", category='"swipe"', hours="24", say_late_minutes="10"))
    assert (book.decider.say_late_ms("swipe"), book.decider.say_late_ms("entry")) == (600_000, None)


def test_of_several_ages_the_first_that_matches_holds() -> None:
    # Given an hour for declines and a day for the rest
    book = Book(
        rule("expire_after", id='"soon"', category='"swipe"', hours="1", when="{ declined = true }"),
        rule("expire_after", category='"swipe"', hours="24"),
    )
    now = NOW + 2 * HOUR_MS
    declined = an_event(status="Declined: no funds")
    assert book.one(now, event=declined, swiped_ms=NOW).rule == "soon"
    assert book.one(now, swiped_ms=NOW).state == "send"


def test_a_minimum_may_hold_for_some_only() -> None:
    # Given a minimum on SMS for restaurants, and a lower one for all
    book = Book(
        rule("min_amount", id='"food"', channel='"sms"', amounts="{ CNY = 50000 }", when='{ mcc = "5812" }'),
        rule("min_amount", channel='"sms"', amounts="{ CNY = 100 }"),
    )
    assert book.one(NOW).route == ("wechat", "sms")
    assert book.one(NOW, event=an_event(mcc="5812")).route == ("wechat",)
    assert book.one(NOW, event=an_event(mcc="5811", amount=99)).route == ("wechat",)
    assert book.one(NOW, a_recipient(openid=None), event=an_event(mcc="5812")).rule == "food"
