"""WeChat's typed template fields, as the documentation has them (providers.md section 2.3). Pure.

Where it leaves a question this is our reading: an ``amount`` may group its digits and have letters with its
sign (``HK$1,234.50``, ``CHF 12.00``), and its decimals are among the ten digits; ``thing`` counts characters,
not UTF-16 units; ``time`` needs a time of day.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

MAX_KNOWN_KEYS: Final = 1024
"""Keys whose rule is remembered; a template has a dozen. Keys come from outside, so the memory is bounded."""

_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_CLOCK = r"(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d)?"
_DATE = r"(?:\d{4}年\d{1,2}月\d{1,2}日|\d{4}[-/.]\d{1,2}[-/.]\d{1,2})"
_MOMENT = rf"(?:{_DATE}\s?)?{_CLOCK}"
_SIGNS = "$¢-¥฿\u20a0-\u20cf﹩＄￠￡￥￦"
_AT_MOST_10_DIGITS = r"(?!(?:\D*\d){11})"

Rule = Callable[[str], object]


def _pattern(pattern: str) -> Rule:
    return re.compile(pattern, re.ASCII).fullmatch


def _at_most(chars: int) -> Rule:
    return lambda value: len(value) <= chars


RULES: Final[dict[str, Rule]] = {
    "thing": _at_most(20),
    "short_thing": _at_most(20),  # its real limit is not established
    "const": _at_most(20),  # the reviewed enumeration is the account's own
    "car_number": _at_most(8),
    "symbol": _at_most(5),
    "name": _pattern(rf"[{_HAN}·]{{1,10}}|[A-Za-z .·'-]{{1,20}}"),
    "character_string": _pattern(r"[ -~]{1,32}"),
    "time": _pattern(rf"{_MOMENT}(?:~{_MOMENT})?"),
    "date": _pattern(rf"{_DATE}(?:\s?{_CLOCK})?(?:~{_DATE}(?:\s?{_CLOCK})?)?"),
    "amount": _pattern(rf"(?:[A-Z]{{0,3}}[{_SIGNS}]|[A-Z]{{1,3}} )?{_AT_MOST_10_DIGITS}\d+(?:,\d{{3}})*(?:\.\d+)?元?"),
    "phone_number": _pattern(r"[0-9+\-() #*]{1,17}"),
    "phrase": _pattern(rf"[{_HAN}]{{1,5}}"),
    "number": _pattern(r"(?=.{1,32}\Z)\d+(?:\.\d+)?"),
    "letter": _pattern(r"[A-Za-z]{1,32}"),
}
"""What a value of each type must look like: a callable that is true for a good one."""

_TYPED_KEY: Final = re.compile(r"([a-z_]+?)\d+", re.ASCII)
_known: dict[str, Rule | None] = {}


def faulty_key(values: Mapping[str, str]) -> str | None:
    """The first key whose value is empty or breaks the rule of its type, or None.

    A key of no known type (``first``, ``keyword1``: historic templates) only must not be empty.
    """
    for key, value in values.items():
        if not value:
            return key
        try:
            rule = _known[key]
        except KeyError:
            rule = _learn(key)
        if rule is not None and not rule(value):
            return key
    return None


def _learn(key: str) -> Rule | None:
    if len(_known) >= MAX_KNOWN_KEYS:
        _known.clear()
    match = _TYPED_KEY.fullmatch(key)
    rule = _known[key] = RULES.get(match.group(1)) if match else None
    return rule
