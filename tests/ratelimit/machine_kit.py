"""What the stateful test of the send rules draws from: people, swipes, moments and rule files of a small grammar."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from dispatcher.model.recipient import ConsentWord, RecipientLine
from tests.ratelimit.oracle_facts import ms_of

MINUTE_MS, HOUR_MS = 60_000, 3_600_000

MOST_BACK_MS = 110 * MINUTE_MS
"""How far the clock jumps back at most, all jumps together. Gaps and rolling windows below are longer than that: what
happened before them may be forgotten, so they are exact as long as a clock does not go back by more than their length.
Calendar windows are exact in any case."""


def _said(given: bool, day: int) -> ConsentWord:
    return ConsentWord(given, datetime(2026, 1, day, tzinfo=UTC), "form")


PEOPLE = (
    RecipientLine(
        account="A",
        openid="o-1",
        phone="+8613800000001",
        consents={"promo": _said(False, 5), "promo/sms": _said(True, 2), "promo/wechat/swipe": _said(True, 6)},
    ),
    RecipientLine(
        account="A",
        role="second",
        openid="o-2",
        phone="+12120000002",
        timezone="America/New_York",
        locale="en",
        consents={"promo": _said(True, 5), "promo/sms": _said(False, 2)},
    ),
    RecipientLine(
        account="B",
        openid="o-3",
        phone="+4930000003",
        email="b@example.com",
        timezone="Europe/Berlin",
        channels=("sms", "wechat", "email"),
        min_amount={"sms": {"CNY": 300}},
        locale="de",
    ),
    # Where midnight is left out in spring and comes twice in autumn; and where no time zone is.
    RecipientLine(account="C", role="primary", phone="+5370000004", timezone="America/Havana", opt_out=("promo",)),
    RecipientLine(account="C", role="second", openid="o-5", timezone="Mars/Olympus"),
)
"""Account D has nobody."""

CORNERS = tuple(
    ms_of(datetime.fromisoformat(text))
    for text in (
        "2026-11-01T04:00Z",  # the 25 hours of New York and Havana begin
        "2026-11-01T06:00Z",
        "2026-11-02T05:00Z",
        "2026-03-08T05:00Z",  # and the 23 hours
        "2026-03-08T07:00Z",
        "2026-03-09T04:00Z",
        "2026-03-29T01:00Z",  # Berlin's
        "2026-10-25T01:00Z",
        "2026-05-31T16:00Z",  # midnight of a month and a week in Shanghai
        "2027-01-03T23:00Z",  # of a week in Berlin
    )
)
"""Where clocks change and days end."""

LEAPS = [
    0,
    1,
    999,
    MINUTE_MS,
    7 * MINUTE_MS,
    50 * MINUTE_MS,
    HOUR_MS,
    5 * HOUR_MS,
    23 * HOUR_MS,
    24 * HOUR_MS,
    25 * HOUR_MS,
]

starts = st.builds(
    lambda corner, minutes, ms: corner + minutes * MINUTE_MS + ms,
    st.sampled_from(CORNERS),
    st.integers(-26 * 60, 60),
    st.integers(-1, 1),
)

swipes = st.fixed_dictionaries(
    {
        "account": st.sampled_from("AAAABBBCCCD"),
        "amount": st.sampled_from([100, 250, 400, -250]),
        "currency": st.sampled_from(["CNY", "CNY", "USD"]),
        "merchant": st.sampled_from(["shop", "shop", "café", None]),
        "type": st.sampled_from(["purchase", "purchase", "refund", "decline"]),
        "category": st.sampled_from(["swipe", "swipe", "promo"]),
        "mcc": st.sampled_from(["5411", "5812", None]),
        "country": st.sampled_from(["CN", "US", None]),
        "status": st.sampled_from([None, "approved", "declined: LIMIT"]),
        "orig_currency": st.sampled_from([None, None, "EUR", "CNY"]),
        "age_ms": st.sampled_from([0, 0, 0, 0, 0, 10_000, 5 * HOUR_MS, 30 * HOUR_MS, -HOUR_MS]),
    }
)


def swipe_line(event_id: str, drawn: dict[str, Any], now: int) -> bytes:
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=now - drawn["age_ms"])
    event = {"id": event_id, "time": when.isoformat(), **drawn}
    return json.dumps({key: value for key, value in event.items() if value is not None and key != "age_ms"}).encode()


# ---- rule files ----------------------------------------------------------------------------------------------------
# What a counter's key depends on is part of the id, so that a rule of the same id in a later file counts on; limits of
# calendar windows, what happens at the limit, and the order of the rules change from file to file.

WHENS: dict[str, dict[str, Any]] = {
    "any": {},
    "promo": {"category": "promo"},
    "large": {"currency": "CNY", "amount_from": 200},
    "small": {"currency": "CNY", "amount_below": 300},
    "typed": {"type": ["purchase", "refund"]},
    "food": {"mcc": ["58xx", "5411"], "country": ["CN", "US"]},
    "declined": {"declined": True},
    "foreign": {"foreign": True},
    "english": {"locale": ["en", "zh"]},
    "second": {"role": "second"},
}
whens = st.sampled_from(["any", "any", *WHENS])
of_events = st.sampled_from(["any", "any", "promo", "large", "declined", "foreign"])
"""A storm is of events: it does not ask who is told."""
PERS = ("account", "recipient", "channel", "category", "template", "merchant")
pers = st.one_of(
    st.sampled_from(PERS).map(lambda one: [one]), st.lists(st.sampled_from(PERS), min_size=2, max_size=2, unique=True)
)
actions = st.sampled_from(["suppress", "hold", "hold", "digest"])
WINDOWS: dict[str, dict[str, Any]] = {
    "day": {"window": "day"},
    "week": {"window": "week"},
    "month": {"window": "month"},
    "2h": {"rolling_hours": 2},
    "25h": {"rolling_hours": 25, "rolling_minutes": 1},
}
DIGESTS = ({"at": "20:00"}, {"after_minutes": 60}, {"after_minutes": 90, "count": 3})


def _limited(key: str, action: str, digest: int) -> dict[str, Any]:
    return {key: action, **({"digest": DIGESTS[digest]} if action == "digest" else {})}


def _when(name: str) -> dict[str, Any]:
    return {"when": WHENS[name]} if name != "any" else {}


def _channel(name: str) -> dict[str, Any]:
    return {} if name == "all" else {"channel": name}


channels = st.sampled_from(["all", "all", "all", "sms", "wechat"])


@st.composite
def caps(draw: st.DrawFn) -> dict[str, Any]:
    window, per, channel, when = draw(st.sampled_from(list(WINDOWS))), draw(pers), draw(channels), draw(whens)
    limit = draw(st.sampled_from([1, 1, 2, 3]))
    rolling = f"-{limit}" if window.endswith("h") else ""
    return {
        "id": f"cap-{window}-{'-'.join(per)}-{channel}-{when}{rolling}",
        "effect": "cap",
        "limit": limit,
        "per": per if len(per) > 1 else per[0],
        **WINDOWS[window],
        **_channel(channel),
        **_when(when),
        **_limited("at_cap", draw(actions), draw(st.integers(0, 2))),
    }


@st.composite
def gaps(draw: st.DrawFn) -> dict[str, Any]:
    hours, per, channel, when = draw(st.sampled_from([2, 24])), draw(pers), draw(channels), draw(whens)
    return {
        "id": f"gap-{hours}h-{'-'.join(per)}-{channel}-{when}",
        "effect": "min_gap",
        "hours": hours,
        "per": per if len(per) > 1 else per[0],
        **_channel(channel),
        **_when(when),
        **_limited("at_gap", draw(actions), draw(st.integers(0, 2))),
    }


@st.composite
def dedups(draw: st.DrawFn) -> dict[str, Any]:
    hours, when = draw(st.sampled_from([2, 24])), draw(whens)
    fields = draw(
        st.sampled_from([None, ["merchant"], ["amount", "mcc", "country"], ["type", "category"], ["amount", "time"]])
    )
    return {
        "id": f"dedup-{hours}h-{'-'.join(fields or ['usual'])}-{when}",
        "effect": "dedup",
        "hours": hours,
        **({} if fields is None else {"fingerprint": fields}),
        **_when(when),
    }


quiet_hours = st.builds(
    lambda number, span, days, then, when: {
        "id": f"quiet-{number}",
        "effect": "quiet_hours",
        "from": span[0],
        "to": span[1],
        **({} if days is None else {"days": days}),
        **({} if then is None else {"then": then}),
        **_when(when),
    },
    st.integers(1, 9),
    st.sampled_from(
        [
            ("22:00", "08:00"),
            ("20:00", "16:00"),
            ("00:00", "01:30"),
            ("01:30", "02:30"),
            ("23:45", "00:15"),
            ("08:00", "20:00"),
        ]
    ),
    st.sampled_from([None, None, None, ["sat", "sun"], ["mon"]]),
    st.sampled_from([None, "hold", "hold", "suppress", "pass"]),
    whens,
)

minimums = st.builds(
    lambda number, channel, amounts, when: {
        "id": f"least-{number}",
        "effect": "min_amount",
        "channel": channel,
        "amounts": amounts,
        **_when(when),
    },
    st.integers(1, 9),
    st.sampled_from(["sms", "wechat"]),
    st.sampled_from([{"CNY": 200}, {"CNY": 400, "USD": 200}]),
    whens,
)

ages = st.builds(
    lambda category, hours: {"id": f"age-{category}", "effect": "expire_after", "category": category, "hours": hours},
    st.sampled_from(["swipe", "promo"]),
    st.sampled_from([4, 12, 40]),
)

consents = st.builds(
    lambda number, category, where, mode: {
        "id": f"ask-{number}",
        "effect": "consent",
        "category": category,
        "mode": mode,
        **where,
    },
    st.integers(1, 3),
    st.sampled_from(["promo", "promo", "swipe"]),
    st.sampled_from([{}, {"channel": "sms"}, {"channel": "wechat"}, {"channel": "wechat", "template": "swipe"}]),
    st.sampled_from(["opt-in", "opt-out"]),
)

routes = st.builds(
    lambda category, order: {
        "id": f"route-{category}",
        "effect": "route",
        "when": {"category": category},
        "channels": order,
    },
    st.sampled_from(["swipe", "promo"]),
    st.sampled_from([["sms", "wechat"], ["wechat"], ["email", "sms"]]),
)

bursts = st.builds(
    lambda fields, limit, minutes, sample, when: {
        "id": f"storm-{minutes}-{'-'.join(fields)}-{when}",
        "effect": "storm",
        "fingerprint": fields,
        "limit": limit,
        "minutes": minutes,
        "sample": sample,
        **_when(when),
    },
    st.sampled_from([["merchant"], ["amount", "currency", "type"]]),
    st.integers(1, 3),
    st.sampled_from([5, 60]),
    st.integers(0, 2),
    of_events,
)

volumes = st.builds(
    lambda times, least, sample, when: {
        "id": f"storm-volume-{when}",
        "effect": "storm",
        "volume_times": times,
        "at_least": least,
        "sample": sample,
        **_when(when),
    },
    st.sampled_from([1.0, 1.5, 2.3]),
    st.integers(1, 4),
    st.integers(0, 2),
    of_events,
)

rule_lists = st.lists(
    st.one_of(
        caps(), caps(), gaps(), dedups(), quiet_hours, quiet_hours, minimums, ages, consents, routes, bursts, volumes
    ),
    min_size=1,
    max_size=7,
    unique_by=lambda rule: rule["id"],
)


def toml(rules: list[dict[str, Any]]) -> str:
    """A rule file of these rules."""
    tables = ["[[rule]]\n" + "".join(f"{key} = {_value(value)}\n" for key, value in rule.items()) for rule in rules]
    return "version = 1\n" + "".join(tables)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_value(one)}" for key, one in value.items()) + " }"
    return json.dumps(value)  # of texts, numbers, truths and lists of texts TOML thinks as JSON does
