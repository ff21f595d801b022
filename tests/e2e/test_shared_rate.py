"""One rate for four processes that nobody has told of each other, measured at the provider."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tests.e2e.processes_kit import line, until, written
from tests.e2e.rate_kit import STALL_S, Alone, Recorder, busiest_second, recorder, within

RATE = 400
PROCESSES = 4
EVENTS = 4_000
"""Ten seconds' worth."""

SETTLED_S = 3.5
"""From the first alert on until the shares are where the work is."""

MEASURED_S = 5.0


pytestmark = pytest.mark.alone
"""What a machine does beside it is part of what is measured here."""


TRIES = 4
"""Of a measurement whose recorder stood still. One that did not is judged at once."""


def measured(measure: Callable[[Recorder], None], judge: Callable[[], None]) -> None:
    """``judge`` what ``measure`` did, if it could be measured."""
    for _ in range(TRIES):
        with recorder() as provider:
            measure(provider)
        if provider.longest_stall <= STALL_S:
            return judge()
    pytest.skip(f"this machine stands still for more than {STALL_S * 1000:.0f} ms at a time: no rate can be measured")


def services(site: Any, provider: Recorder, free_port: Callable[[], int], keep: ExitStack) -> list[Alone]:
    for left in site.folder.glob("ledger.db*"):
        left.unlink()
    site.configure(provider.url, sms=False)
    config = site.folder / "swipebell.toml"
    config.write_text(config.read_text().replace("rate_per_second = 50000", f"rate_per_second = {RATE}"))
    site.recipients_for(written(site, 200))
    alone = [keep.enter_context(closing(Alone(site, free_port, number))) for number in range(PROCESSES)]
    for one in alone:
        one.until_ready()
    return alone


def used(provider: Recorder, started: float) -> float:
    measured = within(provider.arrivals, started + SETTLED_S, started + SETTLED_S + MEASURED_S)
    return len(measured) / MEASURED_S / RATE


@pytest.mark.parametrize("demand", ["even", "uneven"])
def test_the_rate_is_kept_and_used(site: Any, free_port: Callable[[], int], demand: str) -> None:
    busiest, part = [0], [0.0]

    def measure(provider: Recorder) -> None:
        with ExitStack() as keep:
            # Given four processes on one ledger, started independently of each other
            alone = services(site, provider, free_port, keep)
            time.sleep(4)  # they are all idle by now, and each knows of the others
            # When all of them have the same to do, or one has everything to do
            started = time.monotonic()
            for number in range(0, EVENTS, 500):
                one = alone[number // 500 % PROCESSES if demand == "even" else 0]
                one.post([line(n) for n in range(number, number + 500)])
            until(lambda: len(provider.arrivals) >= EVENTS, "the last alert")
            busiest[0], part[0] = busiest_second(list(provider.arrivals)), used(provider, started)

    def judge() -> None:
        # Then no second at the provider holds more than the rate
        assert busiest[0] <= RATE
        # And at least 95 % of it are used
        assert part[0] >= 0.95

    measured(measure, judge)


def test_the_share_of_a_killed_process_goes_to_the_others(site: Any, free_port: Callable[[], int]) -> None:
    busiest, after = [0], [0]

    def measure(provider: Recorder) -> None:
        with ExitStack() as keep:
            # Given four processes that all have work to the end (one that runs out gives its share away, which takes
            # its time)
            alone = services(site, provider, free_port, keep)
            for number in range(0, 2 * EVENTS, 500):
                alone[number // 500 % PROCESSES].post([line(n) for n in range(number, number + 500)])
            until(lambda: len(provider.arrivals) >= 200, "the first alerts")
            # When one is killed
            killed_at = time.monotonic()
            alone[1].kill()
            time.sleep(8.5)
            arrivals = list(provider.arrivals)
            busiest[0], after[0] = busiest_second(arrivals), len(within(arrivals, killed_at + 6, killed_at + 8))

    def judge() -> None:
        # Then within six seconds the others use its share, too
        assert after[0] >= 0.9 * RATE * 2
        # And no second held more than the rate meanwhile
        assert busiest[0] <= RATE

    measured(measure, judge)
