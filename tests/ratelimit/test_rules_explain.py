"""Decisions as sentences."""

from __future__ import annotations

from typing import Any

import pytest

from ratelimit.explain import explain_decision

SENTENCES: list[tuple[dict[str, Any], str]] = [
    (
        {
            "state": "suppressed",
            "rule": "sms-from-100",
            "saw": {"amount": 4500, "threshold/sms": 10000},
            "currency": "CNY",
        },
        "suppressed by rule sms-from-100: 45.00 CNY is below 100.00 CNY for sms; an amount of 100.00 or "
        "more would have been sent",
    ),
    (
        {
            "state": "suppressed",
            "rule": "recipient-min-amount",
            "saw": {"amount": 5, "threshold/wechat": 2000, "threshold/sms": 30000},
            "currency": "KWD",
        },
        "suppressed by the recipient's own minimum: 0.005 KWD is below 2.000 KWD for wechat and 30.000 "
        "KWD for sms; an amount of 2.000 or more would have been sent",
    ),
    (
        {
            "state": "suppressed",
            "rule": "r",
            "saw": {"amount": 900, "threshold/sms": 1000},
            "currency": "KRW",
        },
        "suppressed by rule r: 900 KRW is below 1000 KRW for sms; an amount of 1000 or more would have been sent",
    ),
    (
        {"state": "suppressed", "rule": "r", "saw": {"amount": 900, "threshold/sms": 1000}},
        "suppressed by rule r: 900 minor units is below 1000 minor units for sms; an amount of 1000 or "
        "more would have been sent",
    ),
    (
        {"state": "suppressed", "rule": "daily-cap", "saw": {"counter": 20, "limit": 20}},
        "suppressed by rule daily-cap: 20 of 20 alerts of that day were already counted; a limit of 21 "
        "or more would have allowed it",
    ),
    (
        {"state": "expired", "rule": "swipe-expiry", "saw": {"age_seconds": 90_061, "limit_seconds": 86_400}},
        "expired by rule swipe-expiry: the swipe was 25 h 1 min 1 s old and the limit is 24 h; sooner, "
        "it would have been sent",
    ),
    (
        {"state": "suppressed", "rule": "opt-out", "saw": None},
        "suppressed (opt-out): the recipient has opted out of this category; without that it would have been sent",
    ),
    (
        {"state": "suppressed", "rule": "no-channel", "saw": None},
        "suppressed (no-channel): none of the recipient's channels is configured; configuring one would "
        "have allowed it",
    ),
    (
        {"state": "suppressed", "rule": "no-recipient", "saw": None},
        "suppressed (no-recipient): the account has no recipient; importing one would have allowed it",
    ),
    (
        {"state": "suppressed", "rule": "of-a-later-release", "saw": None},
        "suppressed by rule of-a-later-release",
    ),
    ({"state": "expired", "rule": None, "saw": None}, "expired"),
    (
        {"state": "delivered", "rule": None, "saw": None, "route": ("wechat", "sms")},
        "allowed on wechat, then sms",
    ),
    ({"state": "send", "rule": "", "saw": None}, "allowed"),
    (
        {"state": "failed", "rule": "x", "saw": {"counter": 3, "limit": 20}, "route": ["wechat"]},
        "allowed on wechat: 3 of 20 alerts of that day were counted before it",
    ),
]


@pytest.mark.parametrize(("stored", "sentence"), SENTENCES)
def test_a_decision_explains_itself(stored: dict[str, Any], sentence: str) -> None:
    # Given what the ledger keeps of a decision, when it is explained, then the sentence says why and what
    # else
    assert explain_decision(**stored) == sentence
