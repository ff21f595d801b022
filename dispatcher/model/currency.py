"""How many minor units a currency has, by ISO 4217.

CLDR (through Babel) says which codes exist or existed; its digits say how people *print* amounts, which is
not what a core system *counts* in: CLDR prints 0 digits for AFN, IDR or RSD, ISO 4217 counts in hundredths.
So the exponent of a current code comes from ISO's own short list of exceptions, and CLDR's digits serve only
codes that ISO has withdrawn and gives no figure for.
"""

from __future__ import annotations

from typing import Any

from babel.core import get_global

DEFAULT_EXPONENT = 2

_EXCEPTIONS = {
    code: digits
    for digits, codes in (
        (0, "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"),
        (3, "BHD IQD JOD KWD LYD OMR TND"),
        (4, "CLF UYW"),
    )
    for code in codes.split()
}
"""ISO 4217 list one, column "minor unit", where it is neither 2 nor "N.A."."""

_WITHOUT_MINOR_UNIT = "XAG XAU XPD XPT XBA XBB XBC XBD XDR XSU XUA XTS XXX XFO XFU XRE"
"""Metals, bond units, drawing rights, the test code and "no currency", then the withdrawn accounting
francs."""

_NEWER_THAN_CLDR = ("XAD",)
"""In ISO 4217 since 2025 (amendment 178), not yet in CLDR."""


class UnknownCurrency(ValueError):
    """The code is not in ISO 4217, or has no minor unit to count in. The message does not repeat the code."""

    def __init__(self) -> None:
        super().__init__("unknown ISO 4217 code")


def _read_cldr() -> dict[str, int]:
    # Babel types its data files as Mapping[str, Any].
    tenders: Any = get_global("territory_currencies")
    digits: Any = get_global("currency_fractions")
    names: Any = get_global("all_currencies")
    current = {code for entries in tenders.values() for code, _since, until, _tender in entries if until is None}
    exponents = dict.fromkeys(_NEWER_THAN_CLDR, DEFAULT_EXPONENT)
    for code in names:
        withdrawn = digits.get(code, digits["DEFAULT"])[0] if code not in current else DEFAULT_EXPONENT
        exponents[code] = _EXCEPTIONS.get(code, withdrawn)
    for code in _WITHOUT_MINOR_UNIT.split():
        exponents.pop(code, None)
    return exponents


EXPONENTS: dict[str, int] = _read_cldr()
"""Code to exponent, for the intake's inner loop; everybody else calls ``exponent``."""


def exponent(code: str) -> int:
    """Digits after the decimal point: 2 for CNY, 0 for KRW, 3 for KWD. Raises ``UnknownCurrency``."""
    try:
        return EXPONENTS[code]
    except KeyError:
        raise UnknownCurrency from None


def is_known(code: str) -> bool:
    """Whether ``exponent`` has an answer. Case counts: ISO 4217 codes are capitals."""
    return code in EXPONENTS
