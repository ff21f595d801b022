"""What is wrong with a rule: one line that names the file, the rule, the key, and what is allowed."""

from __future__ import annotations

import pytest

from ratelimit.effects import MAX_ROLLING_LIMIT
from ratelimit.errors import RulesError
from ratelimit.rulefile import load_rules
from tests.ratelimit.book_kit import rule

CAP = {"limit": "3", "per": '"account"'}
DAY = CAP | {"window": '"day"'}
NIGHT = {"from_": '"22:00"', "to": '"08:00"'}
STORM = {"fingerprint": '"merchant"', "limit": "5", "minutes": "10"}
PER = "account, recipient, channel, category, template, merchant"
TIME = 'must be a time of day from "00:00" to "23:59"'
WINDOW = "cap: window: must be given, or rolling_hours and rolling_minutes, and not both"
EITHER = "needs fingerprint, limit and minutes, or volume_times and at_least, and not both"
UNITS = "must be a whole number of minor units, 0 or more"

BROKEN: list[tuple[str, dict[str, str], str]] = [
    ("cap", CAP, WINDOW),
    ("cap", DAY | {"rolling_hours": "1"}, WINDOW),
    ("cap", CAP | {"rolling_hours": "1", "limit": "0"}, "cap: limit: expected int >= 1"),
    (
        "cap",
        CAP | {"rolling_hours": "745"},
        "cap: rolling_hours and rolling_minutes must add up to 1 … 2678400 seconds",
    ),
    (
        "cap",
        CAP | {"rolling_hours": "1", "limit": "1001"},
        f"cap: limit: 1001 is too many for a rolling window; at most {MAX_ROLLING_LIMIT}",
    ),
    ("cap", DAY | {"per": "[]"}, f"cap: per: must name at least one of {PER}"),
    ("cap", DAY | {"per": "7"}, f"cap: per: must name at least one of {PER}"),
    ("cap", DAY | {"per": '["account", "acount"]'}, "cap: per: 'acount' is not known; did you mean 'account'?"),
    ("cap", DAY | {"per": '["account", "account"]'}, "cap: per: 'account' stands there twice"),
    ("cap", DAY | {"at_cap": '"hld"'}, "cap: at_cap: 'hld' is not known; did you mean 'hold'?"),
    ("cap", DAY | {"digest": '{ at = "20:00" }'}, "cap: digest: goes with at_cap = 'digest' only"),
    (
        "cap",
        DAY | {"at_cap": '"digest"', "digest": "{ count = 5 }"},
        "cap: digest: needs one of at and after_minutes: a digest that waits for its count alone may never leave",
    ),
    ("cap", DAY | {"at_cap": '"digest"', "digest": '{ at = "20h" }'}, f"cap: digest.at: '20h' {TIME}"),
    (
        "cap",
        DAY | {"at_cap": '"digest"', "digest": "{ after = 5 }"},
        "cap: key 'digest.after' is not known; allowed: at, after_minutes, count",
    ),
    ("min_gap", {}, "min-gap: hours, minutes and seconds must add up to 1 … 2678400 seconds"),
    ("min_gap", {"minutes": "1", "at_cap": '"hold"'}, "min-gap: key 'at_cap' is not known; did you mean 'at_gap'?"),
    ("dedup", {"seconds": "0"}, "dedup: hours, minutes and seconds must add up to 1 … 2678400 seconds"),
    (
        "dedup",
        {"seconds": "1", "fingerprint": '["amont"]'},
        "dedup: fingerprint: 'amont' is not known; did you mean 'amount'?",
    ),
    ("quiet_hours", {"to": '"08:00"'}, "quiet-hours: from: is missing"),
    (
        "quiet_hours",
        NIGHT | {"to": '"22:00"'},
        "quiet-hours: to: contradictory: they begin and end at 22:00; say an end that differs",
    ),
    ("quiet_hours", NIGHT | {"from_": '"24:00"'}, f"quiet-hours: from: '24:00' {TIME}"),
    ("quiet_hours", NIGHT | {"to": "8"}, f"quiet-hours: to: 8 {TIME}"),
    (
        "quiet_hours",
        NIGHT | {"days": '["monday"]'},
        "quiet-hours: days: 'monday' is not known; did you mean 'mon'?",
    ),
    (
        "quiet_hours",
        NIGHT | {"then": '"exempt"'},
        "quiet-hours: then: 'exempt' is not known; allowed: hold, suppress, pass",
    ),
    (
        "quiet_hours",
        NIGHT | {"zone": '"Mars/Olympus"'},
        "quiet-hours: key 'zone' is not known; allowed: effect, id, from, to, days, then, when",
    ),
    (
        "consent",
        {"category": '"promotion"', "mode": '"optin"'},
        "consent: mode: 'optin' is not known; did you mean 'opt-in'?",
    ),
    ("consent", {"mode": '"opt-in"'}, "consent: category: is missing"),
    ("route", {"channels": '"sms"'}, "route: when: is missing"),
    (
        "route",
        {"channels": '"sms"', "when": '{ type = "fraud" }'},
        "route: when.category: is missing: a route is for one category or several",
    ),
    (
        "route",
        {"channels": '["fax"]', "when": '{ category = "a" }'},
        "route: channels: 'fax' is not known; allowed: wechat, sms, email, webhook",
    ),
    ("priority", {"when": "{}"}, "priority: when: must name something: what is urgent when everything is?"),
    ("storm", {}, f"storm: {EITHER}"),
    ("storm", STORM | {"at_least": "5"}, f"storm: {EITHER}"),
    ("storm", {"volume_times": "5.0"}, f"storm: {EITHER}"),
    ("storm", {"limit": "5", "minutes": "5"}, f"storm: {EITHER}"),
    ("storm", {"volume_times": "0.5", "at_least": "1"}, "storm: volume_times: expected float >= 1.0"),
    (
        "storm",
        STORM | {"when": '{ role = "primary" }'},
        "storm: when.role: a storm is of events, whoever is told of them",
    ),
    ("cap", DAY | {"when": '"swipe"'}, 'cap: when: must be a table such as { category = "swipe" }'),
    (
        "cap",
        DAY | {"when": '{ categroy = "swipe" }'},
        "cap: key 'when.categroy' is not known; did you mean 'category'?",
    ),
    ("cap", DAY | {"when": "{ category = [] }"}, "cap: when.category: must be a word or a list of 1 to 64 words"),
    ("cap", DAY | {"when": '{ category = "" }'}, "cap: when.category: '' must be a word of 1 to 64 characters"),
    ("cap", DAY | {"when": "{ category = [1] }"}, "cap: when.category: 1 must be a word of 1 to 64 characters"),
    ("cap", DAY | {"when": '{ currency = "RMB" }'}, "cap: when.currency: 'RMB' is not a currency of ISO 4217"),
    (
        "cap",
        DAY | {"when": '{ mcc = "x5812" }'},
        "cap: when.mcc: 'x5812' must be four digits, or end in x such as \"58xx\"",
    ),
    (
        "cap",
        DAY | {"when": "{ amount_from = 1 }"},
        "cap: when.amount_from: needs one currency in the same table, such as currency = 'CNY'",
    ),
    (
        "cap",
        DAY | {"when": '{ amount_below = 1, currency = ["CNY", "USD"] }'},
        "cap: when.amount_below: needs one currency in the same table, such as currency = 'CNY'",
    ),
    ("cap", DAY | {"when": '{ amount_from = -1, currency = "CNY" }'}, f"cap: when.amount_from: -1 {UNITS}"),
    ("cap", DAY | {"when": '{ declined = "yes" }'}, "cap: when.declined: 'yes' must be true or false"),
]


@pytest.mark.parametrize(("effect", "keys", "message"), BROKEN)
def test_a_broken_rule_is_refused_with_a_message_that_says_where(
    effect: str, keys: dict[str, str], message: str
) -> None:
    # Given a file with a broken rule, when it is loaded
    with pytest.raises(RulesError) as caught:
        load_rules("version = 1\n" + rule(effect, **keys), "rules.toml")
    # Then the message names the file, the rule and the key, on one line
    assert str(caught.value) == f"rules.toml: rule {message}"
    assert str(caught.value).isprintable()


TWICE = [
    (
        rule("cap", id='"a"', **DAY) + rule("min_gap", id='"a"', minutes="1"),
        "rule a: id: two rules have this id",
    ),
    (
        rule("route", id='"a"', when='{ category = ["b", "c"] }', channels='"sms"')
        + rule("route", id='"d"', when='{ category = ["c", "b"] }', channels='"wechat"'),
        "rule d: when.category: 'c', 'b' already goes by rule a",
    ),
]


@pytest.mark.parametrize(("text", "message"), TWICE)
def test_two_rules_about_one_thing_are_refused(text: str, message: str) -> None:
    with pytest.raises(RulesError) as caught:
        load_rules("version = 1\n" + text, "rules.toml")
    assert str(caught.value) == f"rules.toml: {message}"
