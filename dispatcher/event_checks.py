"""What the door says of each field of an event that is not as it should be. Pure; no answer repeats a value."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from dispatcher.model.currency import EXPONENTS
from dispatcher.model.event import MAX_FACT_CHARS, MAX_FACTS, MAX_ID_CHARS, MAX_INT64, MIN_INT64, OWN_ID_PREFIX
from dispatcher.strictjson import kind_of

OWN_FIELD = "swipebell:digest"
"""The encoded name of ``Event.digest``."""

_OPTIONAL_TEXTS = ("pan", "merchant", "mcc", "city", "country", "status", "refers_to")
_LEAP_SECOND = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:60")
_FACT_NAME = re.compile(r"[a-z_]{1,40}")
_CURRENCY_SHAPE = re.compile(r"[A-Z]{3}")


def _check_key(value: Any) -> str | None:
    if type(value) is not str:
        return f"expected a string, got {kind_of(value)}"
    if not value:
        return "empty"
    if value.isspace():
        return "only blanks"
    if len(value) > MAX_ID_CHARS:
        return f"longer than {MAX_ID_CHARS} characters"
    return None


def _check_id(value: Any) -> str | None:
    if type(value) is str and value.startswith(OWN_ID_PREFIX):
        return f"begins with {OWN_ID_PREFIX}, which only Swipebell's own events do; send the id under another name"
    return _check_key(value)


def _check_own(value: Any) -> str | None:
    return None if value is None else "is Swipebell's own field; leave it out"


def _check_time(value: Any) -> str | None:
    if type(value) is not str:
        return f"expected a string such as 2024-05-01T12:30:00+08:00, got {kind_of(value)}"
    if not value:
        return "empty"
    if _LEAP_SECOND.match(value):
        return "leap seconds are not accepted; send :59 or :00"
    if value.startswith("0000-"):
        return "there is no year 0"
    try:
        time = msgspec.convert(value, datetime)
    except msgspec.ValidationError:
        return "not a date and time such as 2024-05-01T12:30:00+08:00 (RFC 3339)"
    if time.tzinfo is None:
        return "has no time zone; add Z or an offset such as +08:00"
    try:
        time.astimezone(UTC)
    except OverflowError:
        return "outside the years 1 to 9999 when converted to UTC"
    return None


def _check_amount(value: Any) -> str | None:
    if type(value) is not int:
        return f"expected an integer in minor units, got {kind_of(value)}"
    if not MIN_INT64 <= value <= MAX_INT64:
        return "expected an integer in minor units, got one beyond 64 bits"
    return None


def check_currency(value: Any) -> str | None:
    """Why this is not a currency that has minor units, or None if it is one."""
    if type(value) is not str:
        return f"expected an ISO 4217 code, got {kind_of(value)}"
    if not value:
        return "empty"
    if _CURRENCY_SHAPE.fullmatch(value) is None:
        return "expected an ISO 4217 code of three capital letters"
    return None if value in EXPONENTS else "unknown ISO 4217 code"


def _check_text(value: Any) -> str | None:
    return None if type(value) is str else f"expected a string, got {kind_of(value)}"


def _check_optional_text(value: Any) -> str | None:
    return None if value is None or type(value) is str else f"expected a string or null, got {kind_of(value)}"


def check_facts(value: Any) -> str | None:
    """Why this is not an object of a few strings and integers, or None if it is one, or null."""
    if value is None:
        return None
    if type(value) is not dict:
        return f"expected an object or null, got {kind_of(value)}"
    if len(value) > MAX_FACTS:
        return f"has more than {MAX_FACTS} entries"
    for name, told in value.items():
        if _FACT_NAME.fullmatch(name) is None:
            return "has a name that is not 1 to 40 of the characters a-z and _"
        if type(told) is str:
            if len(told) > MAX_FACT_CHARS:
                return f"{name} is longer than {MAX_FACT_CHARS} characters"
        elif type(told) is not int:
            return f"{name}: expected a string or an integer, got {kind_of(told)}"
        elif not MIN_INT64 <= told <= MAX_INT64:
            return f"{name}: expected an integer, got one beyond 64 bits"
    return None


REQUIRED = frozenset({"id", "account", "time", "amount", "currency"})
CHECKS = (
    ("id", _check_id),
    ("account", _check_key),
    ("time", _check_time),
    ("amount", _check_amount),
    ("currency", check_currency),
    ("type", _check_text),
    ("category", _check_text),
    *((name, _check_optional_text) for name in _OPTIONAL_TEXTS),
    ("orig_amount", lambda value: None if value is None else _check_amount(value)),
    ("orig_currency", lambda value: None if value is None else check_currency(value)),
    ("facts", check_facts),
    (OWN_FIELD, _check_own),
)
