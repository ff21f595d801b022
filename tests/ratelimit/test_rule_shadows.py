"""Warnings about rules that can never decide anything, and none about those that can."""

from __future__ import annotations

import pytest

from ratelimit.rulefile import load_rules
from tests.ratelimit.book_kit import rule

DAY = {"limit": "3", "per": '"account"', "window": '"day"'}
NIGHT = {"from_": '"22:00"', "to": '"08:00"'}
SWIPES = {"when": '{ category = "swipe" }'}
SOME = {"when": '{ category = "swipe", currency = "CNY", amount_from = 5, amount_below = 9 }'}
GOOD, LATER = {"id": '"good"'}, {"id": '"later"'}
AGE, AGREED = {"category": '"swipe"', "hours": "1"}, {"category": '"swipe"', "mode": '"opt-in"'}
SMS = {"channel": '"sms"'}


def never(what: str) -> str:
    return f"rules.toml: rule later: can never {what}"


VAIN = [
    (
        rule("cap", **LATER, **DAY, when='{ currency = "CNY", amount_from = 5, amount_below = 5 }'),
        never("match: no amount is 5 or more and below 5"),
    ),
    (
        rule("cap", **LATER, **DAY, when='{ currency = "CNY", amount_below = 0 }'),
        never("match: no amount is 0 or more and below 0"),
    ),
    (
        rule("expire_after", **LATER, **AGE, when='{ category = "entry" }'),
        never("match: its category 'swipe' is not in when.category"),
    ),
    (
        rule("min_amount", **LATER, **SMS, amounts="{ CNY = 5 }", when='{ currency = "USD" }'),
        never("match: when.currency has none of the currencies of amounts"),
    ),
    (rule("min_amount", **LATER, **SMS, amounts="{ CNY = 0 }"), never("match: no amount is below 0")),
    (
        rule("cap", **GOOD, **DAY) + rule("cap", **LATER, **DAY | {"limit": "4"}),
        never("decide: rule good is full at 3, before it"),
    ),
    (
        rule("cap", **LATER, **DAY | {"limit": "4"}) + rule("cap", **GOOD, **DAY, at_cap='"hold"'),
        never("decide: rule good is full at 3, before it"),
    ),
    (rule("cap", **GOOD, **DAY) + rule("cap", **LATER, **DAY), never("decide: rule good is full at 3, before it")),
    (
        rule("min_amount", **GOOD, **SMS, amounts="{ CNY = 5 }")
        + rule("min_amount", **LATER, **SMS, amounts="{ CNY = 5 }"),
        never("decide: rule good asks for as much or more on sms"),
    ),
    (
        rule("min_amount", **LATER, **SMS, amounts="{ CNY = 4 }", **SWIPES)
        + rule("min_amount", **GOOD, **SMS, amounts="{ CNY = 5 }"),
        never("decide: rule good asks for as much or more on sms"),
    ),
    (
        rule("min_gap", **GOOD, minutes="2") + rule("min_gap", **LATER, minutes="1"),
        never("decide: rule good already keeps a gap of 120 s"),
    ),
    (
        rule("dedup", **GOOD, minutes="2", fingerprint='"merchant"') + rule("dedup", **LATER, minutes="1", **SWIPES),
        never("decide: rule good finds all that it would find"),
    ),
    (
        rule("quiet_hours", **GOOD, **NIGHT) + rule("quiet_hours", **LATER, **NIGHT, then='"pass"', **SWIPES),
        never("decide: rule good has the same hours and comes first"),
    ),
    (
        rule("expire_after", **GOOD, **AGE) + rule("expire_after", **LATER, **AGE, **SOME),
        never("decide: rule good settles the age of all that it matches"),
    ),
    (
        rule("route", **GOOD, **SWIPES, channels='"sms"') + rule("route", **LATER, **SOME, channels='"wechat"'),
        never("decide: rule good settles the route of all that it matches"),
    ),
    (
        rule("consent", **GOOD, **AGREED) + rule("consent", **LATER, **AGREED),
        never("decide: rule good asks for the same consent"),
    ),
]


@pytest.mark.parametrize(("text", "warning"), VAIN)
def test_a_rule_in_vain_is_told_as_a_warning(text: str, warning: str) -> None:
    # Given a file that is understood, in which one rule can decide nothing, when it is loaded
    rules = load_rules("version = 1\n" + text, "rules.toml")
    # Then it is in force, and a sentence says why the rule is not needed
    assert rules.warnings == (warning,)


USEFUL = [
    rule("cap", **GOOD, **DAY, **SWIPES) + rule("cap", **LATER, **DAY | {"limit": "4"}),
    rule("cap", **GOOD, **DAY) + rule("cap", **LATER, **DAY | {"per": '"merchant"'}),
    rule("cap", **GOOD, **DAY) + rule("cap", **LATER, **DAY | {"window": '"week"'}),
    rule("cap", **GOOD, **DAY) + rule("cap", **LATER, **DAY, **SMS),
    rule("cap", **GOOD, **DAY, **SMS) + rule("cap", **LATER, **DAY, **SMS, at_cap='"hold"'),
    rule("min_gap", **GOOD, minutes="1") + rule("min_gap", **LATER, minutes="2"),
    rule("min_gap", **GOOD, minutes="2", **SMS) + rule("min_gap", **LATER, minutes="2", **SMS, at_gap='"hold"'),
    rule("dedup", **GOOD, minutes="1") + rule("dedup", **LATER, minutes="2"),
    rule("dedup", **GOOD, minutes="2") + rule("dedup", **LATER, minutes="1", fingerprint='"merchant"'),
    rule("quiet_hours", **GOOD, **NIGHT, days='"sat"') + rule("quiet_hours", **LATER, **NIGHT),
    rule("quiet_hours", **GOOD, **NIGHT, **SWIPES) + rule("quiet_hours", **LATER, **NIGHT),
    rule("expire_after", **GOOD, **AGE, **SOME) + rule("expire_after", **LATER, **AGE),
    rule("route", **GOOD, **SOME, channels='"sms"') + rule("route", **LATER, **SWIPES, channels='"wechat"'),
    rule("consent", **GOOD, **AGREED, **SMS) + rule("consent", **LATER, **AGREED),
    rule("min_amount", **GOOD, **SMS, amounts="{ CNY = 5 }")
    + rule("min_amount", **LATER, **SMS, amounts="{ CNY = 4, USD = 1 }"),
    rule("min_amount", **GOOD, **SMS, amounts="{ CNY = 5 }")
    + rule("min_amount", **LATER, channel='"wechat"', amounts="{ CNY = 4 }"),
    rule("cap", **GOOD, **DAY, when="{ declined = true }") + rule("cap", **LATER, **DAY, when="{ declined = false }"),
    rule("route", **GOOD, when='{ category = "swipe", mcc = "58xx" }', channels='"sms"')
    + rule("route", **LATER, when='{ category = "swipe", mcc = "5812" }', channels='"sms"'),
    rule("dedup", **GOOD, minutes="1", when='{ currency = "CNY", amount_below = 5 }')
    + rule("dedup", **LATER, minutes="1"),
    rule("dedup", **GOOD, minutes="1", when="{ declined = true }")
    + rule("dedup", **LATER, minutes="1", when="{ foreign = true }"),
]


@pytest.mark.parametrize("text", USEFUL)
def test_a_rule_that_may_decide_something_is_no_warning(text: str) -> None:
    assert load_rules("version = 1\n" + text, "rules.toml").warnings == ()
