"""A decision of the send rules as a sentence: what decided, what it saw, and what would have been sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def explain_decision(
    state: str,
    rule: str | None,
    saw: Mapping[str, int] | None,
    *,
    currency: str | None = None,
    route: Sequence[str] = (),
) -> str:
    """One sentence about a stored decision. Needs no rule file: it says what was seen when it was decided.

    ``state`` is ``suppressed``, ``expired`` or anything else, which means that it was allowed. ``currency``
    is the event's; without it amounts are printed in minor units. Contains no personal datum.
    """
    saw = saw or {}
    if state == "suppressed" and "brownout" in saw:
        return f"suppressed ({rule}): {_browned_out(saw, currency)}, and the recipient has no other channel"
    if state == "suppressed" and rule in _REASONS:
        return f"suppressed ({rule}): {_REASONS[rule]}"
    if state == "suppressed" and "amount" in saw:
        by = "the recipient's own minimum" if rule == RECIPIENT_MIN_AMOUNT else f"rule {rule}"
        return f"suppressed by {by}: {_below_minimum(saw, currency)}"
    if state == "suppressed" and "counter" in saw:
        least = saw["counter"] + 1
        count = f"{saw['counter']} of {saw['limit']} alerts of that day were already counted"
        return f"suppressed by rule {rule}: {count}; a limit of {least} or more would have allowed it"
    if state == "expired" and "age_seconds" in saw:
        age, limit = _duration(saw["age_seconds"]), _duration(saw["limit_seconds"])
        seen = f"the swipe was {age} old and the limit is {limit}"
        return f"expired by rule {rule}: {seen}; sooner, it would have been sent"
    if state in ("suppressed", "expired"):
        return f"{state} by rule {rule}" if rule else state
    allowed = f"allowed on {', then '.join(route)}" if route else "allowed"
    if "brownout" in saw:
        return f"{allowed}: {_browned_out(saw, currency)}"
    if "counter" in saw:
        return f"{allowed}: {saw['counter']} of {saw['limit']} alerts of that day were counted before it"
    return allowed


def _browned_out(saw: Mapping[str, int], currency: str | None) -> str:
    channel, least = next((key.partition("/")[2], saw[key]) for key in saw if key.startswith("threshold/"))
    unit = "minor units" if currency is None else currency
    why = f"the daily quota of {channel} ran low (brown-out level {saw['brownout']})"
    if saw["amount"] >= least:
        return why
    return f"{why}, and {_money(saw['amount'], currency)} {unit} was below {_money(least, currency)}"


def _below_minimum(saw: Mapping[str, int], currency: str | None) -> str:
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
