"""Decisions as sentences."""

from __future__ import annotations

from typing import Any

import pytest

from ratelimit.explain import explain_decision
from tests.ratelimit.book_kit import MINUTE_MS, Book, a_recipient, an_event, at, rule

MIDNIGHT_MS = at("2026-11-28T00:00Z")

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
    (
        {"state": "sending", "rule": None, "saw": {"full/wechat/monthly": 4}, "route": ["sms"]},
        "allowed on sms; not on wechat, where rule monthly has no room",
    ),
    (
        {"state": "suppressed", "rule": "r", "saw": {"counter": 2, "limit": 2, "window/week": 1}},
        "suppressed by rule r: 2 of 2 alerts of that week were already counted; a limit of 3 or more would have "
        "allowed it",
    ),
    (
        {"state": "suppressed", "rule": "promotion-consent", "saw": {"consent": 0}},
        "suppressed by rule promotion-consent: the recipient has never agreed to be told; a yes would have allowed it",
    ),
    (
        {"state": "suppressed", "rule": "r", "saw": {"consent": -1, "consent_at": MIDNIGHT_MS}},
        "suppressed by rule r: the recipient said no at 00:00 on 2026-11-28 UTC; a yes after that would have "
        "allowed it",
    ),
    (
        {
            "state": "folded",
            "rule": "brown-out-digest",
            "saw": {"brownout": 2, "amount": 300, "threshold/wechat": 2000, "digest_due_ms": MIDNIGHT_MS + 1000},
            "currency": "CNY",
        },
        "folded by rule brown-out-digest into a digest that leaves by 00:00:01 on 2026-11-28 UTC, because the daily "
        "quota of wechat ran low (brown-out level 2), and 3.00 CNY was below 20.00",
    ),
]


@pytest.mark.parametrize(("stored", "sentence"), SENTENCES)
def test_a_decision_explains_itself(stored: dict[str, Any], sentence: str) -> None:
    # Given what the ledger keeps of a decision, when it is explained, then the sentence says why and what
    # else
    assert explain_decision(**stored) == sentence


NIGHT = rule("quiet_hours", id='"promo-hours"', from_='"21:00"', to='"08:00"')
GAP = rule("min_gap", id='"gap"', minutes="5", at_gap='"hold"')
NOON_MS, LATE_MS = at("2026-11-28T04:00Z"), at("2026-11-28T15:10Z")
HELD = "held by rule promo-hours until 08:00 on 2026-11-29 Asia/Shanghai, because "
AT_NIGHT = "in the quiet hours 21:00 to 08:00; outside of them it would have been sent"


def cap(at_cap: str, **more: str) -> str:
    return rule("cap", limit="1", per='"account"', at_cap=f'"{at_cap}"', **{"window": '"day"'} | more)


DECIDED: list[tuple[list[str], list[int], str]] = [
    ([NIGHT], [LATE_MS], f"{HELD}it came at 23:10, {AT_NIGHT}"),
    ([NIGHT + 'then = "suppress"\n'], [LATE_MS], f"suppressed by rule promo-hours: it came at 23:10, {AT_NIGHT}"),
    (
        [GAP],
        [NOON_MS, NOON_MS + MINUTE_MS],
        "held by rule gap until 12:05 on 2026-11-28 Asia/Shanghai, because another one has its time at 12:00 on "
        "2026-11-28 Asia/Shanghai; 5 min or more away from that it would have been sent",
    ),
    (
        [rule("dedup", minutes="10")],
        [NOON_MS, NOON_MS],
        "suppressed by rule dedup: the same is told at 12:00 on 2026-11-28 Asia/Shanghai; 10 min later it would have "
        "been sent again",
    ),
    (
        [cap("hold")],
        [NOON_MS, NOON_MS],
        "held by rule cap until 00:00 on 2026-11-29 Asia/Shanghai, because 1 of 1 alerts of that day were already "
        "counted; a limit of 2 or more would have allowed it",
    ),
    (
        [rule("cap", limit="1", per='"account"', rolling_hours="3")],
        [NOON_MS, NOON_MS],
        "suppressed by rule cap: 1 of 1 alerts of the 3 h around it were already counted; a limit of 2 or more would "
        "have allowed it",
    ),
    (
        [cap("digest")],
        [NOON_MS, NOON_MS],
        "folded by rule cap into a digest that leaves by 20:00 on 2026-11-28 Asia/Shanghai, because 1 of 1 alerts of "
        "that day were already counted; a limit of 2 or more would have allowed it",
    ),
    (
        [rule("expire_after", category='"swipe"', hours="1"), NIGHT],
        [LATE_MS],
        f"suppressed by rule promo-hours: it came at 23:10, {AT_NIGHT}, so it could leave at 08:00 on 2026-11-29 "
        "Asia/Shanghai only, and expires at 00:10 on 2026-11-29 Asia/Shanghai",
    ),
    (
        [NIGHT, rule("min_gap", id='"gap"', hours="10", at_gap='"hold"')],
        [NOON_MS, NOON_MS],
        f"{HELD}it would have left at 22:00, {AT_NIGHT}",
    ),
    (
        [rule("storm", fingerprint='"merchant"', limit="1", minutes="1")],
        [NOON_MS, NOON_MS],
        "held by rule storm, until somebody releases or discards it or it expires, because 1 like it came before it "
        "and 1 may pass",
    ),
    ([GAP, cap("hold")], [NOON_MS], "allowed on wechat, then sms: 0 of 1 alerts of that day were counted before it"),
]


@pytest.mark.parametrize(("rules", "times", "sentence"), DECIDED)
def test_a_new_decision_explains_itself(rules: list[str], times: list[int], sentence: str) -> None:
    # Given rules and alerts that come one after the other
    book = Book(*rules)
    decisions = [book.one(now_ms, a_recipient(), event=an_event()) for now_ms in times]
    # When the last one is explained, then the sentence names the rule, what it saw and what would have allowed it
    last = decisions[-1]
    assert explain_decision(last.state, last.rule, last.saw, currency="CNY", route=last.route) == sentence
    # And so it does once the ledger knows it as a retry, or as suppressed with its digest
    later = {"held": "retrying", "folded": "suppressed"}.get(last.state, last.state)
    assert explain_decision(later, last.rule, last.saw, currency="CNY", route=last.route) == sentence


def test_what_was_put_off_for_ever_says_so() -> None:
    saw = {"moves": 64, "held_until_ms": MIDNIGHT_MS}
    assert explain_decision("suppressed", "cap", saw) == (
        "suppressed by rule cap: it was put off 64 times and there was still no room for it"
    )
