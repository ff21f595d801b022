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

MAX_CACHED_AMOUNTS = 16_384
"""Amounts kept as text, about 4 MB. Prices repeat, and a day's first total is the amount itself."""

SIGNS = {
    "CNY": "¥",  # at home in both languages; Babel's English CN¥ would look foreign on a Chinese card
    "JPY": "JP¥",  # because ¥ is taken
    "USD": "$",
    "KRW": "₩",
    "KWD": "KD ",
}
"""Where Babel's sign is not what a Chinese bank prints. One character wherever it stays clear."""

_is_sign = re.compile(CURRENCY_SIGN).fullmatch
_TWO_DIGITS = tuple(f"{number:02}" for number in range(100))


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


@lru_cache(maxsize=MAX_CACHED_AMOUNTS)
def format_money(minor: int, currency: str, language: str) -> str:
    """``123450`` minor units of CNY -> ``¥1,234.50``; a negative amount is ``-¥5.00``. Raises
    ``UnknownCurrency``.
    """
    form = money_format(currency, language)
    if minor < 0:
        return "-" + format_money(-minor, currency, language)
    if form.digits == 2:
        whole, part = divmod(minor, 100)
        return f"{form.sign}{whole:,}.{_TWO_DIGITS[part]}"
    if form.digits == 0:
        return f"{form.sign}{minor:,}"
    whole, part = divmod(minor, form.scale)
    return f"{form.sign}{whole:,}.{part:0{form.digits}}"


def compact(amount: str) -> str:
    """The same amount without its thousands separators, for a field with little room."""
    return amount.replace(",", "")
