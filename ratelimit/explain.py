"""A decision of the send rules as a sentence: what decided, what it saw, and what would have been sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from dispatcher.model.currency import exponent, is_known
from ratelimit.rulefile import (
    NO_ADDRESS,
    NO_CHANNEL,
    NO_RECIPIENT,
    OPT_OUT,
    RECIPIENT_GONE,
    RECIPIENT_MIN_AMOUNT,
    REVERSED,
)

_REASONS = {
    OPT_OUT: "the recipient has opted out of this category; without that it would have been sent",
    NO_CHANNEL: "none of the recipient's channels is configured; configuring one would have allowed it",
    NO_ADDRESS: "the recipient has no address for a configured channel; adding one would have allowed it",
    RECIPIENT_GONE: "the provider has refused this recipient on every channel that has an address; "
    "a new address, or word that the recipient is back, would have allowed it",
    NO_RECIPIENT: "the account has no recipient; importing one would have allowed it",
    REVERSED: "what it takes back was cancelled before anybody was told; had that been sent, this would have followed "
    "as its correction",
}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Saw = Mapping[str, int]


def explain_decision(
    state: str,
    rule: str | None,
    saw: Saw | None,
    *,
    currency: str | None = None,
    route: Sequence[str] = (),
) -> str:
    """One sentence about a stored decision. Needs no rule file: it says what was seen when it was decided.

    ``state`` is ``suppressed``, ``folded``, ``expired``, ``held`` or anything else, which means that it was allowed;
    whether that was later than at once, and whether what is suppressed is the member of a digest, is seen. ``currency``
    is the event's; without it amounts are printed in minor units. Contains no personal datum.
    """
    saw = saw or {}
    if state in ("suppressed", "folded"):
        return _kept_back(rule, saw, currency)
    if state == "expired":
        if "age_seconds" not in saw:
            return f"expired by rule {rule}" if rule else state
        age, limit = _duration(saw["age_seconds"]), _duration(saw["limit_seconds"])
        seen = f"the swipe was {age} old and the limit is {limit}"
        return f"expired by rule {rule}: {seen}; sooner, it would have been sent"
    if "storm" in saw:
        burst = f"{saw['counter']} like it came before it and {saw['limit']} may pass"
        return f"held by rule {rule}, until somebody releases or discards it or it expires, because {burst}"
    if "held_until_ms" in saw:
        by = _word_of(saw, "by/") or rule
        until = f"until {_moment(saw['held_until_ms'], saw)}"
        return f"held by rule {by} {until}, because {_against(saw)}{_left_out(saw)}"
    return _allowed(saw, currency, route)


def _kept_back(rule: str | None, saw: Saw, currency: str | None) -> str:
    if "digest_due_ms" in saw:
        why = _browned_out(saw, currency) if "brownout" in saw else _against(saw)
        return f"folded by rule {rule} into a digest that leaves by {_moment(saw['digest_due_ms'], saw)}, because {why}"
    if "brownout" in saw:
        return f"suppressed ({rule}): {_browned_out(saw, currency)}, and the recipient has no other channel"
    if rule in _REASONS:
        return f"suppressed ({rule}): {_REASONS[rule]}"
    if "consent" in saw:
        return f"suppressed by rule {rule}: {_no_consent(saw)}"
    if "amount" in saw:
        by = "the recipient's own minimum" if rule == RECIPIENT_MIN_AMOUNT else f"rule {rule}"
        return f"suppressed by {by}: {_below_minimum(saw, currency)}"
    if "expires_ms" in saw:
        until, expires = (_moment(saw[key], saw) for key in ("held_until_ms", "expires_ms"))
        return (
            f"suppressed by rule {rule}: {_against(saw)}, so it could leave at {until} only, and expires at {expires}"
        )
    if "moves" in saw and "held_until_ms" in saw:
        return f"suppressed by rule {rule}: it was put off {saw['moves']} times and there was still no room for it"
    seen = _against(saw)
    if seen:
        return f"suppressed by rule {rule}: {seen}"
    return f"suppressed by rule {rule}" if rule else "suppressed"


def _against(saw: Saw) -> str:
    """What a timed rule had against sending, and what would have allowed it; empty when it is not known."""
    if "quiet_at_ms" in saw:
        hours = f"{_clock(saw['from_minute'])} to {_clock(saw['to_minute'])}"
        came = "it would have left" if saw.get("moves", 1) > 1 else "it came"
        return (
            f"{came} at {_moment(saw['quiet_at_ms'], saw, 'time')}, in the quiet hours {hours}; "
            "outside of them it would have been sent"
        )
    if "gap_s" in saw:
        gap = _duration(saw["gap_s"])
        return (
            f"another one has its time at {_moment(saw['last_ms'], saw)}; "
            f"{gap} or more away from that it would have been sent"
        )
    if "last_ms" in saw:
        window = _duration(saw["window_s"])
        return f"the same is told at {_moment(saw['last_ms'], saw)}; {window} later it would have been sent again"
    if "counter" in saw:
        least = saw["counter"] + 1
        count = f"{saw['counter']} of {saw['limit']} alerts of {_window(saw)} were already counted"
        return f"{count}; a limit of {least} or more would have allowed it"
    return ""


def _window(saw: Saw) -> str:
    if "window_s" in saw:
        return f"the {_duration(saw['window_s'])} around it"
    return f"that {_word_of(saw, 'window/') or 'day'}"


def _no_consent(saw: Saw) -> str:
    if saw["consent"] < 0:
        return f"the recipient said no at {_moment(saw['consent_at'], saw)}; a yes after that would have allowed it"
    return "the recipient has never agreed to be told; a yes would have allowed it"


def _allowed(saw: Saw, currency: str | None, route: Sequence[str]) -> str:
    allowed = f"allowed{_on(route)}"
    if "brownout" in saw:
        return f"{allowed}: {_browned_out(saw, currency)}"
    full = _left_out(saw)
    if full:
        return f"{allowed}{full}"
    if "counter" in saw:
        return f"{allowed}: {saw['counter']} of {saw['limit']} alerts of {_window(saw)} were counted before it"
    return allowed


def _on(route: Sequence[str]) -> str:
    return f" on {', then '.join(route)}" if route else ""


def _left_out(saw: Saw) -> str:
    """The channels that a full cap has taken out of the route."""
    full = [key.split("/", 2)[1:] for key in saw if key.startswith("full/")]
    return "".join(f"; not on {channel}, where rule {rule} has no room" for channel, rule in full)


def _word_of(saw: Saw, start: str) -> str | None:
    """What is seen are numbers, so the few words among it are written in its keys."""
    return next((key.removeprefix(start) for key in saw if key.startswith(start)), None)


def _moment(at_ms: int, saw: Saw, what: str = "all") -> str:
    """``08:00 on 2026-11-29 Asia/Shanghai``; without a zone among what was seen in UTC."""
    zone = _word_of(saw, "zone/")
    info: tzinfo = UTC if zone is None else ZoneInfo(zone)
    moment = (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(info)
    time = f"{moment:%H:%M}" if moment.second == 0 else f"{moment:%H:%M:%S}"
    return time if what == "time" else f"{time} on {moment.date().isoformat()} {zone or 'UTC'}"


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def _browned_out(saw: Saw, currency: str | None) -> str:
    channel, least = next((key.partition("/")[2], saw[key]) for key in saw if key.startswith("threshold/"))
    unit = "minor units" if currency is None else currency
    why = f"the daily quota of {channel} ran low (brown-out level {saw['brownout']})"
    if saw["amount"] >= least:
        return why
    return f"{why}, and {_money(saw['amount'], currency)} {unit} was below {_money(least, currency)}"


def _below_minimum(saw: Saw, currency: str | None) -> str:
    unit = "minor units" if currency is None else currency
    thresholds = {key.partition("/")[2]: value for key, value in saw.items() if key.startswith("threshold/")}
    named = " and ".join(f"{_money(value, currency)} {unit} for {channel}" for channel, value in thresholds.items())
    least = _money(min(thresholds.values()), currency)
    seen = _money(saw["amount"], currency)
    return f"{seen} {unit} is below {named}; an amount of {least} or more would have been sent"


def _money(amount: int, currency: str | None) -> str:
    """Plain digits with a point, the same in every locale: this is for operators and for grep."""
    digits = exponent(currency) if currency is not None and is_known(currency) else 0
    if digits == 0:
        return str(amount)
    whole, part = divmod(amount, 10**digits)
    return f"{whole}.{part:0{digits}d}"


def _duration(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{value} {unit}" for value, unit in ((hours, "h"), (minutes, "min"), (rest, "s")) if value]
    return " ".join(parts) or "0 s"
