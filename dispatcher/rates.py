"""One rate for all processes of a ledger: each leases a share of it, by what it has to send.

Also processes that were started independently of each other share, since it goes through the ledger. Time is the
machine's steady clock (CLOCK_MONOTONIC), the same for all of its processes and never set: a wall clock that jumps, in
either direction, changes nothing here. A ledger lives on one machine (SQLite's log in shared memory), so one clock is
enough. Where processes read different clocks (a container with a time namespace of its own), they must not share a
ledger.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

import trio

from dispatcher.channels.base import Channel
from dispatcher.errors import LedgerUnavailable
from dispatcher.lane_gate import Limits
from dispatcher.ledger.api import Ledger, RateAsk
from ratelimit.leased import LeasedPacer
from ratelimit.pacing import Pacer

LOOK_S = 0.5
"""Between two looks at the demand: a share moves to where it is wanted within two of them and ``GAP_MS``."""

HURRY_S = 0.1
"""Between two tries of a process that has work and no share for it."""

EXPECTED_S = 5.0
"""How long after the start the parts of processes that are to come are kept free for them."""


def machine_clock_ms() -> int:
    """Milliseconds of the clock that every process of this machine reads alike."""
    return time.monotonic_ns() // 1_000_000


def leased_pacers(
    channels: Mapping[str, tuple[Channel, Pacer | LeasedPacer]], limits: Mapping[str, Limits]
) -> dict[str, LeasedPacer]:
    """The pacers whose rates are shared with other processes, by the rate's name."""
    leased: dict[str, LeasedPacer] = {}
    for name, (_, pacer) in channels.items():
        if isinstance(pacer, LeasedPacer) and pacer not in leased.values():
            leased[name] = pacer
    for name, limit in limits.items():
        leased.update((f"{name}/{template}", pacer) for template, pacer in limit.templates.items())
    return leased


class SharedRates:
    """Keeps the shares of some pacers, by the rate's name. ``waiting(name)`` says whether there is work for one."""

    def __init__(
        self,
        pacers: Mapping[str, LeasedPacer],
        *,
        ledger: Ledger,
        processes: int,
        waiting: Callable[[str], bool],
        steady_ms: Callable[[], int] = machine_clock_ms,
    ) -> None:
        self._pacers = pacers
        self._ledger = ledger
        self._processes = processes
        self._waiting = waiting
        self._steady_ms = steady_ms

    async def run(self, owner: int, trouble: Callable[[LedgerUnavailable], Awaitable[None]]) -> None:
        """Renew the shares for ever; without a ledger they run out, and nothing is sent until it is back."""
        if not self._pacers:
            return
        expected_until = trio.current_time() + EXPECTED_S
        looked_at = trio.current_time() - LOOK_S
        wants = dict.fromkeys(self._pacers, 0)
        while True:
            now = trio.current_time()
            if now - looked_at >= LOOK_S:
                seconds, looked_at = now - looked_at, now
                wants = {name: one.demand(self._waiting(name), seconds) for name, one in self._pacers.items()}
            try:
                await self.renew(owner, wants, self._processes if now < expected_until else 1)
            except LedgerUnavailable as error:
                await trouble(error)
            in_need = any(not one.usable() and self._waiting(name) for name, one in self._pacers.items())
            await trio.sleep(HURRY_S if in_need else LOOK_S)

    async def renew(self, owner: int, wants: Mapping[str, int], expected: int = 1) -> None:
        """Claim once; where others want a part of a share, lower it and claim again, so that they know."""
        for _ in range(2):
            asks = [
                RateAsk(name, one.rate_per_second, wants[name], one.share, expected)
                for name, one in self._pacers.items()
            ]
            answers = await self._ledger.share_rates(asks, owner, self._steady_ms)
            lowered = False
            for one, answer in zip(self._pacers.values(), answers, strict=True):
                lowered = lowered or answer.fair < answer.share
                one.lend(min(answer.share, answer.fair), answer.until_ms)
            if not lowered:
                return

    async def leave(self, owner: int) -> None:
        """Give the shares back; nothing may be sent any more."""
        for one in self._pacers.values():
            one.lend(0, 0)
        if self._pacers:
            await self._ledger.leave_rates(owner, self._steady_ms)
