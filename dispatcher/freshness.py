"""Fresh or late: how long ago a swipe was, and what waits for whom because of it. Pure.

A late alert is late either way; a fresh one must not be made late by it. So wherever something waits, at the door and
in a lane, what is fresh goes first, and what is late has a small share that is its own. docs/decisions/0009 says more.
In a lane, what the rules call urgent goes before both, however old it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from dispatcher.model.alert import Alert

FRESH_S: Final = 10
"""A swipe is fresh for so long: the cardholder still stands at the till. Much less would call whole systems late whose
clock is a few seconds behind or which hand over by the batch of a few seconds; much more would let a queue of so many
seconds build up in front of a swipe that is new."""

URGENT, FRESH, LATE = range(3)
"""Classes of a lane, the first leaves first."""
CLASSES: Final = 3

LATE_TURNS: Final = 8
"""Of so many places one is for the lower class while the higher one would take them all: nothing starves, and what is
fresh is hardly slower for it."""

FRESH_SHARE: Final = 0.25
"""Part of a lane's capacity that late batches leave free, so that a fresh one gets in at once: a quarter of 4,096 is a
full batch (1,024)."""

_TIME: Final = re.compile(rb'"time"\s*:\s*"([0-9TtZz:.+ -]{20,40})"')


class Split:
    """Tells the late alerts of a batch from the fresh ones at a moment, epoch ms."""

    __slots__ = ("_limit",)

    def __init__(self, now_ms: int) -> None:
        self._limit = datetime.fromtimestamp(now_ms / 1000, UTC) - timedelta(seconds=FRESH_S)

    def late(self, alert: Alert) -> bool:
        """Whether this one is late."""
        return alert.event.time < self._limit

    def batch(self, alerts: Sequence[Alert]) -> tuple[Sequence[Alert], Sequence[Alert]]:
        """(fresh ones, late ones), each in the order given."""
        if not alerts:
            return alerts, ()
        # Times of one and the same zone object are compared in 20 ns, others in 250, and a batch has mostly one.
        limit = self._limit.astimezone(alerts[0].event.time.tzinfo)
        late = [alert for alert in alerts if alert.event.time < limit]
        if not late:
            return alerts, ()
        return [alert for alert in alerts if alert.event.time >= limit], late


def telling_age(alerts: Sequence[Alert], now_ms: int, say_late_ms: Callable[[str], int | None]) -> Sequence[Alert]:
    """The same alerts in the same order; those that are old enough to say so know how late they are.

    ``say_late_ms`` gives that age by category, a minute at least (None: it never says it); ``now_ms`` is epoch ms.
    """
    if not Split(now_ms).batch(alerts)[1]:  # nearly always
        return alerts
    told: list[Alert] = []
    for alert in alerts:
        say_ms = say_late_ms(alert.event.category)
        if say_ms is not None:
            age_ms = now_ms - int(alert.event.time.timestamp() * 1000)
            if age_ms >= say_ms:
                alert = msgspec.structs.replace(alert, late_seconds=age_ms // 1000)
        told.append(alert)
    return told


def looks_late(line: bytes, now_ms: int) -> bool:
    """Whether an event's line, not decoded yet, tells of a swipe that is late. A hint: False where nothing is found.

    It only decides which of two queues a batch waits in, so a line that misleads it wins and breaks nothing.
    """
    match = _TIME.search(line)
    if match is None:
        return False
    try:
        time = msgspec.convert(match[1].decode(), datetime)
        return time.timestamp() * 1000 < now_ms - FRESH_S * 1000 if time.tzinfo is not None else False
    except (msgspec.ValidationError, OverflowError, ValueError):
        return False
