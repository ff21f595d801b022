"""Minor units: CLDR knows which codes exist, ISO 4217 how many digits they count in."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from dispatcher.model.currency import UnknownCurrency, exponent, is_known

SHARED = Path(os.environ.get("SWIPEBELL_SHARED", Path(__file__).parents[2].parent / "shared"))
ISO_TABLE = SHARED / "data" / "iso4217-codes-all.csv"


@pytest.mark.parametrize(
    ("code", "digits"),
    [("CNY", 2), ("USD", 2), ("KRW", 0), ("JPY", 0), ("KWD", 3), ("TND", 3), ("CLF", 4), ("UYW", 4)],
)
def test_an_exponent_is_iso_4217s(code: str, digits: int) -> None:
    assert exponent(code) == digits


@pytest.mark.parametrize("code", ["AFN", "IDR", "IRR", "LBP", "MGA", "RSD", "XAD"])
def test_a_current_currency_that_cldr_prints_without_decimals_counts_in_hundredths(code: str) -> None:
    assert exponent(code) == 2


@pytest.mark.parametrize(("code", "digits"), [("HRK", 2), ("DEM", 2), ("ITL", 0), ("BYR", 0), ("TRL", 0)])
def test_a_withdrawn_currency_is_known_with_cldrs_digits(code: str, digits: int) -> None:
    assert is_known(code)
    assert exponent(code) == digits


@pytest.mark.parametrize("code", ["XAU", "XXX", "XTS", "XDR", "ZZZ", "usd", "US", "USD ", "", "４ＵＳ"])
def test_a_code_without_minor_unit_or_meaning_is_unknown_and_not_echoed(code: str) -> None:
    assert not is_known(code)
    with pytest.raises(UnknownCurrency, match=r"^unknown ISO 4217 code$"):
        exponent(code)


def test_every_code_of_iso_4217s_own_table_agrees() -> None:
    if not ISO_TABLE.exists():
        pytest.skip(f"{ISO_TABLE.name} is not in the shared folder")
    # Given ISO 4217's list of codes in use
    with ISO_TABLE.open(newline="", encoding="utf-8") as table:
        current = {
            row["AlphabeticCode"]: row["MinorUnit"]
            for row in csv.DictReader(table)
            if row["AlphabeticCode"] and not row["WithdrawalDate"]
        }
    assert len(current) > 150
    # When each is looked up
    ours = {code: str(exponent(code)) if is_known(code) else "-" for code in current}
    # Then the digits are the same, and codes without a minor unit are unknown
    assert ours == current
