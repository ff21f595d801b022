"""Names of countries in the recipient's language. Pure."""

from __future__ import annotations

from functools import lru_cache

from babel import Locale

MAX_CACHED_COUNTRIES = 1_024
"""Codes (times language) kept: ISO 3166 has 250, and what is none takes a place, too."""


def country_name(code: str | None, babel: str) -> str:
    """``FR`` -> ``法国`` or ``France``; empty for what is no two-letter code of ISO 3166."""
    if code is None or len(code) != 2:
        return ""
    return _name(code, babel)


@lru_cache(maxsize=MAX_CACHED_COUNTRIES)
def _name(code: str, babel: str) -> str:
    # Babel also knows ZZ, "unknown region", and groups of countries that have two letters.
    if code in ("EU", "EZ", "UN", "ZZ", "QO", "XA", "XB"):
        return ""
    return Locale.parse(babel).territories.get(code) or ""
