"""A ledger as it is after months: recipients of a whole bank and millions of past alerts, for benchmarks.

Written by SQLite itself from a counter, at some hundred thousand rows a second; the ids are random, as UUIDs are, so
the index of ids is as scattered as it gets. The people are invented.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

from dispatcher.ledger.sqlite_id_runs import file_more, read_state
from dispatcher.ledger.sqlite_open import connect
from dispatcher.model.alert import ALERT_ID_BITS

ROWS_AT_ONCE: Final = 250_000
"""Rows of one transaction: progress every second or so."""

BUILD_CACHE_KIB: Final = 1024 * 1024
DAY_MS: Final = 86_400_000
ALERTS_A_DAY: Final = 400_000

# ?1 is the first number, ?2 the last one; ?3 a moment in epoch ms.
_NUMBERS: Final = "WITH RECURSIVE n(i) AS (SELECT ?1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)"

RECIPIENTS: Final = f"""
{_NUMBERS} INSERT INTO recipients (id, account, role, card)
SELECT i, printf('62200%07d', i), 'primary', json_array(i, printf('62200%07d', i), 'primary',
    'o' || substr(lower(hex(randomblob(14))), 1, 27), printf('+8613%09d', i), NULL, 'zh-CN', 'Asia/Shanghai',
    json('["wechat","sms"]'), json('{{}}'), json('[]'), json('{{}}')) FROM n
"""

EVENTS: Final = f"""
{_NUMBERS} INSERT INTO events (seq, id, digest, account, swiped_at, accepted_at, payload)
SELECT i, id, crc32(id), account, ?3 + i, ?3 + i + 40,
    '{{"id":"' || id || '","account":"' || account || '","pan":"************' || substr(account, -4) || '","amount":'
    || (1000 + i * 37 % 500000) || ',"currency":"CNY","merchant":"Starbucks Coffee","mcc":"5812","city":"上海",'
    || '"country":"CN","time":"2026-01-01T12:00:00+08:00","type":"purchase"}}'
FROM (SELECT i, lower(hex(randomblob(16))) AS id, printf('62200%07d', 1 + i * 7919 % ?4) AS account FROM n)
"""

ALERTS: Final = f"""
{_NUMBERS} INSERT INTO alerts (id, recipient, template, route, channel, state, ruleset, day_total, attempts, first_at,
    msgid, expires_at, ended_at, answered_at, answered_to, took, code)
SELECT i << {ALERT_ID_BITS}, 1 + i * 7919 % ?4, 'swipe@1', 'wechat,sms', 'wechat', 'delivered', 1, i * 41 % 900000, 1,
    ?3 + i + 60, 3717005636572528642 + i, ?3 + i + {DAY_MS}, ?3 + i + 80, ?3 + i + 80, 1, 20, '0' FROM n
"""

COUNTERS: Final = f"""
{_NUMBERS} INSERT INTO counters (kind, who, value) SELECT ?4, printf('62200%07d', i * 3), i * 97 % 900000 FROM n
"""

Progress = Callable[[str, int, int], None]
"""(what, rows written, rows in all)."""


def fill(path: Path, *, recipients: int, alerts: int, now_ms: int, progress: Progress) -> None:
    """Make a ledger at ``path`` with so many recipients (accounts 622000000001 …) and alerts delivered before
    ``now_ms``, and two days of counters; with no alerts there are no counters either. Blocks: about 15 µs an alert.
    Not durable while it is being written."""
    with closing(connect(str(path))) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute(f"PRAGMA cache_size=-{BUILD_CACHE_KIB}")
        began_ms = now_ms - alerts - DAY_MS
        _write(connection, "recipients", RECIPIENTS, recipients, (), progress)
        _write(connection, "events", EVENTS, alerts, (began_ms, recipients), progress)
        _file_ids(connection, alerts, progress)
        _write(connection, "alerts", ALERTS, alerts, (began_ms, recipients), progress)
        for days_ago in (1, 2) if alerts else ():
            kind = connection.execute(
                "INSERT INTO counter_kinds (name, keep_until) VALUES (?,?) RETURNING id",
                (f"day|Asia/Shanghai|{days_ago} days ago|CNY|", now_ms + DAY_MS),
            ).fetchall()[0][0]
            count = min(ALERTS_A_DAY, recipients // 3)
            _write(connection, "counters", COUNTERS, count, (None, kind), progress)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _file_ids(connection: sqlite3.Connection, alerts: int, progress: Progress) -> None:
    more = True
    while more:
        connection.execute("BEGIN IMMEDIATE")
        more = file_more(connection)
        connection.execute("COMMIT")
        progress("ids", max(0, read_state(connection).filed), alerts)


def _write(
    connection: sqlite3.Connection,
    what: str,
    statement: str,
    rows: int,
    more: tuple[int | None, ...],
    progress: Progress,
) -> None:
    for first in range(1, rows + 1, ROWS_AT_ONCE):
        last = min(rows, first + ROWS_AT_ONCE - 1)
        connection.execute("BEGIN IMMEDIATE")
        # Statements take the parameters that they name; the rest is passed over by number.
        given = (first, last, *more)[: 2 + max((n for n in (1, 2) if f"?{n + 2}" in statement), default=0)]
        connection.execute(statement, given)
        connection.execute("COMMIT")
        progress(what, last, rows)
