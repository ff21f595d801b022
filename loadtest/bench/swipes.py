"""Plain purchases for the bench, no two alike: the common case and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

MERCHANTS: Final = (
    "海底捞火锅",
    "Lawson 便利店",
    "京东商城",
    "Starbucks Coffee",
    "中国石化加油站",
    "Din Tai Fung",
    "盒马鲜生",
)
STRIDE: Final = 7919
"""From one swipe's account to the next one's: a prime, so that all accounts are met before one is met again."""


def swipes(count: int, *, accounts: int, batch: str, first: int = 0) -> Iterator[bytes]:
    """Lines without newline, of the accounts that `loadtest.fill` makes, swiped now.

    Their ids are random, as UUIDs are (for the ledger's index of ids the dearest kind), and differ between batches.
    ``first`` is the number of the first one: batches that follow each other by number meet other accounts.
    """
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    for number in range(count):
        account = 1 + (first + number) * STRIDE % accounts
        digest = hashlib.blake2b(f"{batch}/{number}".encode(), digest_size=16).hexdigest()
        yield (
            f'{{"id":"{digest}","account":"62200{account:07}",'
            f'"pan":"************{account % 10_000:04}","amount":{1000 + number * 37 % 500_000},"currency":"CNY",'
            f'"merchant":"{MERCHANTS[number % len(MERCHANTS)]}","mcc":"5812","city":"上海","country":"CN",'
            f'"time":"{time}","type":"purchase"}}'
        ).encode()


def write_swipes(path: Path, count: int, *, accounts: int, batch: str, first: int = 0) -> None:
    """The same, as a file."""
    with path.open("wb") as file:
        file.writelines(line + b"\n" for line in swipes(count, accounts=accounts, batch=batch, first=first))
