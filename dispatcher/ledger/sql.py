"""Statements of many rows, for SQLite.

Python's ``sqlite3`` lets go of the GIL for every row it steps over and then waits for it again. Beside a busy event
loop that wait, not the database, is the cost: measured with 256 rows a commit, 1,100 rows/s through ``executemany``
against 45,000–60,000 with one multi-row statement (docs/decisions/0002-multi-row-statements.md). So rows go in as one
``VALUES`` list, and come out as one JSON array.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any

CHUNKS = (1024, 256, 64, 16, 4, 1)
"""Rows a statement. Few sizes, so that every statement is compiled once and stays in the cache; 1,024 rows of the
widest statement (13 columns) stay under SQLite's 32,766 parameters."""

Row = Sequence[Any]


def chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Cut into runs whose lengths are all in ``CHUNKS``."""
    start = 0
    for size in CHUNKS:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


@cache
def values(count: int, width: int) -> str:
    """``VALUES (?,?),(?,?)`` for ``count`` rows of ``width`` columns."""
    row = "(" + ",".join("?" * width) + ")"
    return "VALUES " + ",".join([row] * count)


@cache
def _filled(statement: str, count: int, width: int) -> str:
    # The same text object each time: SQLite's statements are looked up by it, and several KB are not hashed again.
    return statement.replace("{values}", values(count, width))


def write_rows(connection: sqlite3.Connection, statement: str, rows: Sequence[Row], extra: Row = ()) -> int:
    """Run ``statement`` with its ``{values}`` replaced by the rows; returns how many rows changed.

    ``extra`` are parameters that stand after the rows in the statement.
    """
    changed = 0
    for part in chunks(rows):
        text = _filled(statement, len(part), len(part[0]))
        parameters = list(chain.from_iterable(part))
        parameters.extend(extra)
        changed += connection.execute(text, parameters).rowcount
    return changed


def write_flat(connection: sqlite3.Connection, statement: str, cells: list[Any], width: int) -> None:
    """The same for rows of ``width`` cells that stand one behind the other."""
    start, rows = 0, len(cells) // width
    for size in CHUNKS:
        while rows - start >= size:
            text = _filled(statement, size, width)
            connection.execute(text, cells[start * width : (start + size) * width])
            start += size


@cache
def _asked(statement: str, count: int) -> str:
    return statement.replace("{keys}", ",".join("?" * count))


def read_keys(connection: sqlite3.Connection, statement: str, keys: Sequence[Any], first: Row = ()) -> Iterator[Any]:
    """Run ``statement`` with its ``{keys}`` replaced by lists of keys; yields the first column of each row.

    The last list is filled up with NULL, which is equal to nothing. ``first`` are parameters that stand before the keys
    in the statement.
    """
    for start in range(0, len(keys), CHUNKS[0]):
        part = list(keys[start : start + CHUNKS[0]])
        size = next(size for size in reversed(CHUNKS) if size >= len(part))
        part.extend([None] * (size - len(part)))
        for row in connection.execute(_asked(statement, size), [*first, *part]):
            yield row[0]
