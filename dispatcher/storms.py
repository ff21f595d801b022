"""Storms: a source that rings many times for one thing, or far more than usual, pages somebody (the rules' ``storm``).

The rules hold the alerts; this says so once a storm and not once an alert: one line in the log when it begins and one
when it is over, and a gauge in between. Neither says anything about the events.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from dispatcher.logs import get_logger

OVER_MS = 5 * 60_000
"""A storm is over when its rule has held nothing for so long: long enough that a pager, which looks every minute or
less often, sees it; short enough that the next one is told apart."""

log = get_logger("storms")


class StormMeter(Protocol):
    """Who counts."""

    def storm(self, rule: str, active: bool) -> None:
        """A storm rule holds alerts, or does so no longer."""


class _Storm(msgspec.Struct):
    began_ms: int
    last_ms: int
    held: int = 0


class Storms:
    """The storms that this process sees; in a fleet each process says what it sees itself. Times are epoch ms."""

    def __init__(self, meter: StormMeter) -> None:
        self._meter = meter
        self._active: dict[str, _Storm] = {}
        """By rule: at most as many as there are rules."""

    def held(self, by_rule: Mapping[str, int], now_ms: int) -> None:
        """So many alerts were held, by rule."""
        for rule, count in by_rule.items():
            storm = self._active.get(rule)
            if storm is None:
                storm = self._active[rule] = _Storm(now_ms, now_ms)
                self._meter.storm(rule, True)
                hint = "alerts are held until somebody releases or discards them (swipebell held)"
                log.error("storm", rule=rule, hint=hint)
            # A clock that goes back makes no storm endless.
            storm.last_ms = now_ms
            storm.held += count

    def tick(self, now_ms: int) -> None:
        """The engine's clock comes by."""
        over = [rule for rule, storm in self._active.items() if not 0 <= now_ms - storm.last_ms < OVER_MS]
        for rule in over:
            storm = self._active.pop(rule)
            self._meter.storm(rule, False)
            log.warning("storm_over", rule=rule, held=storm.held, seconds=(storm.last_ms - storm.began_ms) // 1000)
