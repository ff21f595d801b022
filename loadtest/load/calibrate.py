"""How many events a second this generator can schedule on this machine, measured before a run."""

from __future__ import annotations

import time
from typing import Final

from dispatcher.errors import ConfigurationError
from loadtest.load.lines import SwipeLines
from loadtest.load.schedule import Arrivals, poisson
from loadtest.load.tally import PER_MS, Tally

TRIED_EVENTS: Final = 20_000
BATCH_EVENTS: Final = 100
ROUNDS: Final = 3
"""About 0.3 seconds in all; the best round counts, for the machine may be busy with something else."""

COMFORTABLE: Final = 0.5
"""Of what it can schedule alone: the rest is for the connections, the answers and the book."""


def capacity() -> float:
    """Events a second that can be drawn, built, acknowledged and matched, with nothing sent."""
    return max(_round(seed) for seed in range(ROUNDS))


def _round(seed: int) -> float:
    tally = Tally()
    arrivals = Arrivals(poisson([(1.0, float(TRIED_EVENTS))], seed))
    lines = SwipeLines(seed=seed, accounts=1_000_000, run="calibration")
    began = time.perf_counter()
    done = 0
    while times := arrivals.due(1.0, BATCH_EVENTS):
        tally.arrive(times)
        _, keys = lines.build(done, times, 0.0)
        tally.build(keys)
        tally.lateness.add([int((1.0 - at) * 1000 * PER_MS) for at in times])
        tally.answer(done, len(times), 1.0, duplicate=0, rejected={})
        tally.show("wechat", keys, times)
        done += len(times)
    return done / (time.perf_counter() - began)


def check_rate(peak: float) -> str | None:
    """None, or a warning, for a schedule whose highest rate is ``peak``. Raises ``ConfigurationError`` beyond all."""
    able = capacity()
    words = f"the schedule goes up to {peak:,.0f} events a second, and this generator schedules about {able:,.0f} here"
    if peak > able:
        raise ConfigurationError(f"{words}: the generator, not the engine, would be the limit; take a lower rate")
    if peak > COMFORTABLE * able:
        return f"{words} if it does nothing else: the generator may be the limit, not the engine"
    return None
