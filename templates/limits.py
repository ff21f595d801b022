"""What each provider accepts in a field, as data, and how a value is made to fit. Pure.

WeChat's typed keys: providers.md 2.3, from the provider's documentation where marked D there. Where that
leaves a question, the stricter reading stands here, since one refused field (47003) loses the whole message:

- lengths are counted in UTF-16 units;
- the thousands separators of an ``amount`` count as digits, its decimals too, and it carries no minus;
- ``time`` needs a time of day; a ``name`` is all Chinese or all Latin and is not cut;
- ``short_thing`` has no published limit and is held to 5, that of ``phrase``;
- emoji, control characters and line breaks are removed, since the provider drops them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from templates.errors import FieldRefused
from templates.text import ELLIPSIS, PLAIN, clean, cut, has_emoji, units, without_emoji

MAX_SMS_UNITS = 500
"""UTF-16 units of a whole SMS with its sign (providers.md 6.3, Aliyun's maximum): 8 parts."""

MAX_SIGN_UNITS = 14
"""Of these, kept free for the sign in front: Aliyun allows 12 characters, and 【】 count."""

MAX_SMS_TEXT_UNITS = MAX_SMS_UNITS - MAX_SIGN_UNITS

SMS_SINGLE_UNITS = 70
SMS_PART_UNITS = 67
"""Of a part of a longer SMS: its header takes three."""

MAX_AMOUNT_DIGITS = 10
MAX_CHINESE_NAME = 10

CURRENCY_SIGN = r"[A-Z]{0,3}[$¢-¥฿₠-₿￥￦￡]|[A-Z]{1,3} "
"""A sign as WeChat's ``amount`` wants one: ¥, HK$, or a code with a blank where a currency has no sign of its
own.
"""

_DATE = r"[0-9]{4}(?:年[0-9]{1,2}月[0-9]{1,2}日|[-/.][0-9]{1,2}[-/.][0-9]{1,2})"
_CLOCK = r"(?:[01]?[0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9])?"
_MOMENT = rf"(?:{_DATE} ?)?{_CLOCK}"
_DAY = rf"{_DATE}(?: ?{_CLOCK})?"
_VISIBLE = r"(?s:.+)"

_AMOUNT = rf"(?:{CURRENCY_SIGN})([0-9]+(?:,[0-9]{{3}})*(?:\.[0-9]+)?)元?"

_amount = re.compile(_AMOUNT).fullmatch
_unsafe = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]").search


class Rule(msgspec.Struct, frozen=True):
    """One of WeChat's field types. ``limit`` is in UTF-16 units.

    ``allowed`` must match a whole value. ``fast`` must match only what needs no other look at all, and has no
    groups, so that the renderer can check a whole message with one expression. ``mark`` ends what was
    shortened; None says that a value of this type means something else when it is shortened, so it is refused
    instead.
    """

    limit: int
    what: str
    allowed: str
    fast: str
    mark: str | None = None


def _plain(limit: int) -> str:
    return f"(?! )[ {PLAIN}]{{1,{limit}}}(?<! )"


_FAST_AMOUNT = rf"(?:{CURRENCY_SIGN})(?:[0-9]{{1,3}}(?:,[0-9]{{3}})?|[0-9]{{4,7}})(?:\.[0-9]{{1,3}})?"
_FAST_TIME = rf"{_MOMENT}(?:~(?:{_DATE} ?)?(?:[01]?[0-9]|2[0-3]):[0-5][0-9])?"
"""The second without its seconds, so that both are within 40 characters: 20 of the first, 17 of this one and the ~."""
_NAME = "[\u3400-\u4dbf\u4e00-\u9fff·]+|[A-Za-z .·'-]+"

WECHAT_TYPES: dict[str, Rule] = {
    "thing": Rule(20, "any characters", _VISIBLE, _plain(20), ELLIPSIS),
    "short_thing": Rule(5, "any characters", _VISIBLE, _plain(5), ELLIPSIS),
    "const": Rule(20, "one word of the reviewed list", _VISIBLE, _plain(20)),
    "name": Rule(20, "a Chinese or a Latin name", _NAME, "[A-Z][A-Za-z]{0,19}"),
    "character_string": Rule(32, "digits, letters and symbols", "[ -~]+", "(?! )[ -~]{1,32}(?<! )", "..."),
    "time": Rule(40, "a time of day with or without its date", f"{_MOMENT}(?:~{_MOMENT})?", _FAST_TIME),
    "date": Rule(40, "a date with or without a time of day", f"{_DAY}(?:~{_DAY})?", _DAY),
    "amount": Rule(24, "a currency sign and at most 10 digits", _AMOUNT, _FAST_AMOUNT),
    "phrase": Rule(5, "Chinese characters", "[\u4e00-\u9fff]+", "[\u4e00-\u9fff]{1,5}"),
    "phone_number": Rule(17, "digits and symbols", "[0-9+() *-]+", "[0-9+*-]{1,17}"),
    "car_number": Rule(8, "a number plate", "[0-9A-Z\u4e00-\u9fff]+", "[0-9A-Z\u4e00-\u9fff]{1,8}"),
    "number": Rule(32, "digits", r"[0-9]+(?:\.[0-9]+)?", "[0-9]{1,32}"),
    "letter": Rule(32, "Latin letters", "[A-Za-z]+", "[A-Za-z]{1,32}"),
    "symbol": Rule(5, "symbols", r"[!-/:-@\[-`{-~]+", r"[!-/:-@\[-`{-~]{1,5}"),
}

_allowed = {name: re.compile(rule.allowed).fullmatch for name, rule in WECHAT_TYPES.items()}
_key = re.compile(r"([a-z]+(?:_[a-z]+)*)[1-9][0-9]{0,2}").fullmatch
_chinese = re.compile("[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]").search


def type_of(key: str) -> str | None:
    """The type of a typed key (``character_string2`` -> ``character_string``), or None if WeChat has no such
    key.
    """
    found = _key(key)
    return found[1] if found and found[1] in WECHAT_TYPES else None


def limit_of(kind: str, value: str) -> int:
    """The longest value of this type in UTF-16 units; a name with a Chinese character in it is held to 10."""
    return MAX_CHINESE_NAME if kind == "name" and _chinese(value) else WECHAT_TYPES[kind].limit


def fit(kind: str, value: str, key: str | None = None) -> str:
    """``value`` as a WeChat field of type ``kind`` may hold it, shortened with an ellipsis where that is
    harmless.

    Raises ``FieldRefused`` (naming ``key``, or the type, and never the value) when it cannot be shortened or
    holds characters that the type does not allow, and ``KeyError`` when there is no such type.
    """
    rule = WECHAT_TYPES[kind]
    name = key or kind
    value = without_emoji(clean(value))
    if not value:
        raise FieldRefused(name, "is empty")
    if kind == "amount":
        return _fit_amount(value, name)
    if kind == "number":
        value = value.replace(",", "")  # points are written with them
    limit = limit_of(kind, value)
    if units(value) > limit:
        if rule.mark is None:
            raise FieldRefused(name, f"is longer than {limit} and cannot be shortened")
        value = cut(value, limit, rule.mark)
    if not _allowed[kind](value):
        raise FieldRefused(name, f"is not {rule.what}")
    return value


def _fit_amount(value: str, name: str) -> str:
    found = _amount(value)
    if found is None:
        raise FieldRefused(name, f"is not {WECHAT_TYPES['amount'].what}")
    if len(found[1].replace(".", "")) > MAX_AMOUNT_DIGITS:
        value = value.replace(",", "")
        if sum(character.isdigit() for character in value) > MAX_AMOUNT_DIGITS:
            raise FieldRefused(name, f"has more than {MAX_AMOUNT_DIGITS} digits")
    return value


def check(data: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Everything that WeChat would refuse or change in ``{"thing5": {"value": …}}``; empty when all is well.

    The same data as ``fit`` but none of its steps, so that it can judge what the renderer made. Names no
    value.
    """
    found: list[str] = []
    for key, field in data.items():
        kind = type_of(key)
        if kind is None:
            found.append(f"{key}: not a typed key")
            continue
        if set(field) != {"value"} or not isinstance(field["value"], str):
            found.append(f"{key}: not a value")
            continue
        value = field["value"]
        if not value.strip():
            found.append(f"{key}: is empty")
            continue
        if value != value.strip() or has_emoji(value) or _unsafe(value):
            found.append(f"{key}: holds characters that are not shown")
        if units(value) > limit_of(kind, value):
            found.append(f"{key}: {units(value)} of {limit_of(kind, value)} characters")
        if not _allowed[kind](value):
            found.append(f"{key}: is not {WECHAT_TYPES[kind].what}")
        if kind == "amount" and sum(character in "0123456789," for character in value) > MAX_AMOUNT_DIGITS:
            found.append(f"{key}: more than {MAX_AMOUNT_DIGITS} digits")
    return found


def segments(text: str) -> int:
    """Parts that an SMS of this text, its sign included, is sent and paid as; UCS-2 (providers.md 6.3).

    A part never ends inside a surrogate pair, so a text full of emoji may need one more than its length says.
    """
    total = units(text)
    if total <= SMS_SINGLE_UNITS:
        return 1
    if total == len(text):
        return -(-total // SMS_PART_UNITS)
    parts, used = 1, 0
    for character in text:
        size = 2 if character > "\uffff" else 1
        used += size
        if used > SMS_PART_UNITS:
            parts, used = parts + 1, size
    return parts
