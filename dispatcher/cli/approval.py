"""What the commands of maker and checker share, be it about rules or about templates."""

from __future__ import annotations

import difflib
import os
import sys
import time
from collections.abc import Iterator
from datetime import datetime

import click
from rich.console import Console
from rich.table import Table

from dispatcher.ledger.people import Person, checked_name
from dispatcher.watched import name_of

PIPED_COLUMNS = 160
"""Width of a table where it goes to no terminal."""

by_option = click.option("--by", metavar="NAME", help="Who says so. Default: this account of the operating system.")


def person(by: str | None) -> Person:
    """Who acts. Raises `ChangeRefused` for a name that is none."""
    # Not from the environment, where everybody may call himself what he likes.
    account = name_of(os.getuid())
    return Person(account if by is None else checked_name(by), account)


def now_ms() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000


def moment(at_ms: int) -> str:
    """A time as people here read it."""
    return datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def with_account(name: str, account: str | None) -> str:
    """A name with the account of the operating system that gave it."""
    return name if account is None else f"{name} (account {account})"


def noted(note: str) -> str:
    """A note behind what it is about."""
    return f": {note}" if note else ""


def difference(old: str, new: str, old_name: str, new_name: str) -> Iterator[str]:
    """How two texts differ, line by line, as ``diff -u`` says it."""
    for line in difflib.unified_diff(old.splitlines(), new.splitlines(), old_name, new_name, lineterm=""):
        # Nothing that a terminal obeys: it could hide a change from the one who is to approve it.
        yield "".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in line)


def table_of(*columns: str, last: str) -> Table:
    """An empty table; its ``last`` column is for longer texts."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in columns:
        table.add_column(name, no_wrap=True)
    table.add_column(last, overflow="fold")
    return table


def print_table(table: Table) -> None:
    """A table on stdout. In a pipe nobody has a width, and a row is not to be torn apart."""
    Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_COLUMNS).print(table)
