"""How long after an overload a new swipe is as fast again as before it. Pure.

Judged by when swipes were *scheduled*: a backlog that is still being worked off is late and stays late, and does not
count against those that arrive after the overload. They are what a cardholder at a till notices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

from loadtest.load.schedule import Curve
from loadtest.load.tally import PER_MS

SLOT_S: Final = 5
"""Arrivals of so many seconds are judged together: at 100 a second their p99 is the fifth largest, not one mishap."""

TIMES_AS_SLOW: Final = 2.0
"""Up to so many times the p99 from before the overload is normal."""

NORMAL_MS: Final = 100.0
"""So much is normal in any case: twice a p99 of 30 ms is noise of a machine, and nobody notices a tenth of a second."""


class Recovery(msgspec.Struct, kw_only=True):
    """``recovery_seconds`` after the end of the overload begins the first slot whose p99 is within ``limit_ms``, as is
    the p99 of all that were scheduled from then to the end of the run (``after_p99_ms``); None when there is none.
    ``worst_slot_ms`` is the largest p99 of a slot since then. Times are seconds from the begin of the run.
    """

    overload_from: float
    overload_to: float
    before_p99_ms: float
    limit_ms: float
    recovery_seconds: float | None = None
    after_p99_ms: float | None = None
    worst_slot_ms: float | None = None


def overload_of(curve: Curve) -> tuple[float, float] | None:
    """Begin and end of the time at the highest rate, when there was less before it and is less after it."""
    top = max((rate for _, rate in curve), default=0.0)
    begin: float | None = None
    end = at = 0.0
    for seconds, rate in curve:
        if rate == top:
            begin = at if begin is None else begin
            end = at + seconds
        at += seconds
    return None if not begin or end >= at else (begin, end)


def recovery(overload: tuple[float, float], seconds: Sequence[Sequence[int]]) -> Recovery | None:
    """``seconds`` are the latencies of the arrivals scheduled in each second of the run, in ``1 / PER_MS`` ms.

    None when nothing was seen before the overload or after it. What never reached a provider is not in here; that it
    is nothing is for other assertions.
    """
    begin, end = overload
    # Without the first half: a cold start would make everything look normal afterwards.
    before = _p99(seconds[int(begin / 2) : max(int(begin), int(begin / 2) + 1)])
    first = math.ceil(end)
    slots = [seconds[at : at + SLOT_S] for at in range(first, len(seconds), SLOT_S)]
    each = [_p99(slot) for slot in slots]
    if before is None or all(one is None for one in each):
        return None
    limit = max(before * TIMES_AS_SLOW, NORMAL_MS)
    found = Recovery(overload_from=begin, overload_to=end, before_p99_ms=before, limit_ms=limit)
    for number in _normal_from(slots, limit):
        at_once = each[number]
        if at_once is not None and at_once <= limit:
            found.recovery_seconds = float(first + number * SLOT_S - end)
            found.after_p99_ms = _p99([one for slot in slots[number:] for one in slot])
            found.worst_slot_ms = max(one for one in each[number:] if one is not None)
            break
    return found


def _normal_from(slots: Sequence[Sequence[Sequence[int]]], limit: float) -> list[int]:
    """The slots with which a stretch to the end of the run begins whose p99 is within the limit, the first first."""
    found = []
    count = over = 0
    for number in range(len(slots) - 1, -1, -1):
        for second in slots[number]:
            count += len(second)
            over += sum(value > limit * PER_MS for value in second)
        if over < count - _at_p99(count):
            found.append(number)
    return found[::-1]


def _at_p99(count: int) -> int:
    return min(int(count * 0.99), count - 1)


def _p99(seconds: Sequence[Sequence[int]]) -> float | None:
    values = sorted(value for one in seconds for value in one)
    return values[_at_p99(len(values))] / PER_MS if values else None
