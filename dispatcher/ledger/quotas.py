"""The day's quota that a fleet shares: who may hand how many more attempts to the provider today.

Pure: a row and a report in, a row and permits out; a backend runs each in one transaction. Processes take permits by
the hundred and not one by one, so it costs a commit now and then. What is used and what the processes hold never
exceeds the limit together, so the fleet cannot either, however many processes there are and whichever of them die.

Times are epoch ms. WeChat's counters start anew at midnight in China (providers.md section 1).
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ratelimit.quota import china_day

HOLDER_TTL_MS = 60_000
"""A process reports every few seconds. One that has not for a minute is dead, or as good as: what it held counts as
used then, because it may have been; the provider's own count sets that right at the next reading."""

MAX_HOLDERS = 256
"""Processes that hold permits at the same time; one more gets none until another is gone. Far above any fleet on one
ledger: it bounds the row."""

READ_EVERY_MS = 5 * 60_000
"""Between two readings of the provider's own count, for the whole fleet."""

READ_AGAIN_MS = 10_000
"""The same right after the provider has said that the quota is used up: soon, but a burst of such answers is one
reading."""

FIRST_READING_MS = 12_000
"""How long the first reading ever is waited for before the configured limit is believed: a call's time-out."""

PERMIT_LIFE_MS = HOLDER_TTL_MS // 2
"""How long after its last report a process may use what it holds. One that slept longer may be taken for dead, and
what it held be given to others."""

SHARE = 4
"""A process gets at most one part in so many of what is left, so that the last permits do not all lie with one."""


class QuotaRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the ledger keeps of one account. ``used`` counts attempts of ``day`` (China's, as a number) that were
    handed over, by others with the same account too, as far as the provider has told; ``diverted`` alerts that would
    have been handed over but for the quota; ``yesterday`` both of the day before.

    ``limit`` is what the provider has told (0: never read), and ``asking`` that a process is about to. ``spent``: it
    has said that nothing more goes today. ``holders`` is by process what it holds and when it was last heard of.
    """

    day: int = 0
    used: int = 0
    diverted: int = 0
    yesterday: int = 0
    limit: int = 0
    spent: bool = False
    level: int = 0
    read_at: int = -READ_EVERY_MS
    asking: bool = False
    holders: dict[str, tuple[int, int]] = {}

    @property
    def held(self) -> int:
        """Permits that are with the processes."""
        return sum(held for held, _ in self.holders.values())


class Standing(msgspec.Struct, frozen=True):
    """What the brown-out ladder looks at: ``remaining`` permits for ordinary alerts, ``demand`` of today so far (what
    was used and what was diverted) and of ``yesterday``, and the ``level`` in force."""

    remaining: int
    demand: int
    yesterday: int
    level: int
    now_ms: int


class QuotaTerms(msgspec.Struct, frozen=True):
    """How the configuration wants it: the limit while none was read, the share that is kept for reserved alerts, and
    the ladder's judgement."""

    fallback: int
    reserve_percent: int
    judge: Callable[[Standing], int]


class QuotaView(msgspec.Struct, frozen=True):
    """How the account stands, and the permits that were granted: ``ordinary`` for any alert, ``reserved`` for those
    that may use the reserve. ``remaining`` includes the reserve and what the processes hold unused. ``pending``: there
    are none yet, because the first reading is under way."""

    ordinary: int
    reserved: int
    used: int
    limit: int
    remaining: int
    spent: bool
    level: int
    day: int
    pending: bool = False


class Report(msgspec.Struct, frozen=True):
    """What a process tells when it asks: permits ``used`` and given ``back`` since the last time, alerts ``diverted``,
    and how many it wants (``ordinary`` and ``reserved``)."""

    holder: str
    used: int = 0
    back: int = 0
    diverted: int = 0
    ordinary: int = 0
    reserved: int = 0


def today(row: QuotaRow, now_ms: int) -> QuotaRow:
    """The row as it is on the day of ``now_ms``: at midnight everything starts anew but what is in the processes'
    hands, which may yet be used on the new day. A clock that goes back does not bring a day back."""
    day = china_day(now_ms)
    if day <= row.day:
        return row
    yesterday = row.used + row.diverted if day == row.day + 1 else 0
    return QuotaRow(day=day, yesterday=yesterday, limit=row.limit, read_at=row.read_at, holders=row.holders)


def take(row: QuotaRow, report: Report, terms: QuotaTerms, now_ms: int) -> tuple[QuotaRow, QuotaView]:
    """Take a report, and grant permits."""
    row = today(row, now_ms)
    used, holders = row.used, dict(row.holders)
    held, _ = holders.pop(report.holder, (0, 0))
    for name, (left_behind, seen) in row.holders.items():
        if name in holders and now_ms - seen >= HOLDER_TTL_MS:
            used += left_behind
            del holders[name]
    # What was given up as lost while the process lived on is counted already, so no more than it is known to hold.
    spent_now = min(report.used, held)
    used, held = used + spent_now, held - spent_now
    held -= min(report.back, held)

    limit = row.limit or terms.fallback
    reserve = limit * terms.reserve_percent // 100
    pending = row.limit == 0 and row.asking and abs(now_ms - row.read_at) < FIRST_READING_MS
    free = 0 if row.spent or pending else max(limit - used - held - sum(one for one, _ in holders.values()), 0)
    ordinary = reserved = 0
    if len(holders) < MAX_HOLDERS:
        ordinary = _share(report.ordinary, free - reserve)
        reserved = _share(report.reserved, free - ordinary)
        holders[report.holder] = (held + ordinary + reserved, now_ms)
    diverted = row.diverted + report.diverted
    remaining = 0 if row.spent else max(limit - used, 0)
    standing = Standing(max(remaining - reserve, 0), used + diverted, row.yesterday, row.level, now_ms)
    level = terms.judge(standing)
    row = msgspec.structs.replace(row, used=used, diverted=diverted, holders=holders, level=level)
    return row, QuotaView(ordinary, reserved, used, limit, remaining, row.spent, level, row.day, pending)


def _share(want: int, free: int) -> int:
    return min(want, -(-free // SHARE)) if free > 0 else 0


def reading(row: QuotaRow, now_ms: int, at_once: bool) -> tuple[QuotaRow, int | None]:
    """Whether a process may ask the provider now; what it has to give to `told` afterwards."""
    row = today(row, now_ms)
    # Either way: a process reads its clock before it waits for its turn to write.
    if abs(now_ms - row.read_at) < (READ_AGAIN_MS if at_once else READ_EVERY_MS):
        return row, None
    return msgspec.structs.replace(row, read_at=now_ms, asking=True), row.used


def told(row: QuotaRow, counted: int, used: int, limit: int, now_ms: int) -> QuotaRow:
    """The provider's word. What was reported since it was asked comes on top, and what the processes hold stays
    theirs: some of it may be in the provider's count already, so that ours is too high by it for a moment and never
    too low. An answer from before midnight says nothing about the new day.
    ``limit`` 0: none could be read."""
    row = msgspec.structs.replace(row, asking=False)
    if limit <= 0 or china_day(now_ms) > row.day or china_day(row.read_at) < row.day:
        return row
    since = max(row.used - counted, 0)
    return msgspec.structs.replace(row, used=used + since, limit=limit, spent=used >= limit)


def spent(row: QuotaRow, now_ms: int) -> QuotaRow:
    """The provider has refused an attempt because of the quota."""
    return msgspec.structs.replace(today(row, now_ms), spent=True)
