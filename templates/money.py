"""Amounts as a cardholder reads them: the currency's own sign and its own number of decimals."""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec
from babel.numbers import get_currency_symbol

from dispatcher.model.currency import exponent
from templates.limits import CURRENCY_SIGN
from templates.words import words_for

MAX_CACHED_FORMATS = 1024
"""Pairs of currency and language: the world has under 200 currencies, and we speak two languages."""

SIGNS = {
    "CNY": "¥",  # at home in both languages; Babel's English CN¥ would look foreign on a Chinese card
    "JPY": "JP¥",  # because ¥ is taken
    "USD": "$",
    "KRW": "₩",
    "KWD": "KD ",
}
"""Where Babel's sign is not what a Chinese bank prints. One character wherever it stays clear."""

_is_sign = re.compile(CURRENCY_SIGN).fullmatch


class MoneyFormat(msgspec.Struct, frozen=True, gc=False):
    """How one currency is written: ``sign``, and ``digits`` decimals, so ``scale`` minor units make a major
    one.
    """

    sign: str
    digits: int
    scale: int


@lru_cache(maxsize=MAX_CACHED_FORMATS)
def money_format(currency: str, language: str) -> MoneyFormat:
    """The format of an ISO 4217 code. Raises ``UnknownCurrency`` (a ``ValueError``)."""
    digits = exponent(currency)
    sign = SIGNS.get(currency) or get_currency_symbol(currency, words_for(language).babel)
    # Some of Babel's signs are words or hold odd blanks (F CFA); WeChat wants a sign, so these show their
    # code.
    return MoneyFormat(sign if _is_sign(sign) else f"{currency} ", digits, 10**digits)


def format_money(minor: int, currency: str, language: str) -> str:
    """``123450`` minor units of CNY -> ``¥1,234.50``; a negative amount is ``-¥5.00``.

    Raises ``UnknownCurrency``.
    """
    form = money_format(currency, language)
    if minor < 0:
        return "-" + format_money(-minor, currency, language)
    if form.digits == 2 and 100 <= minor < 100_000_000:
        # Nearly all amounts, and cutting the digits costs half of what a format specification does.
        digits = str(minor)
        if minor < 100_000:
            return f"{form.sign}{digits[:-2]}.{digits[-2:]}"
        return f"{form.sign}{digits[:-5]},{digits[-5:-2]}.{digits[-2:]}"
    if form.digits == 0:
        return f"{form.sign}{minor:,}"
    whole, part = divmod(minor, form.scale)
    return f"{form.sign}{whole:,}.{part:0{form.digits}}"


def compact(amount: str) -> str:
    """The same amount without its thousands separators, for a field with little room."""
    return amount.replace(",", "")
