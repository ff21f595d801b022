"""This process's lease on what it works on: taken at the start, renewed for as long as it lives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from dispatcher.errors import LeaseLost, LedgerUnavailable
from dispatcher.ledger.api import Ledger

RENEWALS = 4
"""Renewals in the time of one lease: three may fail before others take over."""


class Lease:
    """Nothing is sent without it, because others send what a process held whose lease has run out."""

    def __init__(self, ledger: Ledger, seconds: float, now_ms: Callable[[], int]) -> None:
        self._ledger = ledger
        self._seconds = seconds
        self._now_ms = now_ms
        self._owner = 0
        self._until_ms = 0
        self._renewed = trio.Event()

    @property
    def _length_ms(self) -> int:
        return int(self._seconds * 1000)

    async def take(self, name: str) -> int:
        """Enter this process in the ledger; returns its owner number."""
        self._until_ms = self._now_ms() + self._length_ms
        self._owner = await self._ledger.register(name, self._now_ms(), self._until_ms)
        return self._owner

    async def keep(self, trouble: Callable[[LedgerUnavailable], Awaitable[None]]) -> None:
        """Renew it for ever. Raises `LeaseLost` when others have taken over, and what ``trouble`` raises."""
        while True:
            await trio.sleep(self._seconds / RENEWALS)
            until = self._now_ms() + self._length_ms
            try:
                kept = await self._ledger.heartbeat(self._owner, until)
            except LedgerUnavailable as error:
                await trouble(error)
                continue  # no lease, no sending: see `held`
            if not kept:
                raise LeaseLost(
                    "another process took this one's alerts over (it did not answer in time); start it again"
                )
            self._until_ms = until
            self._renewed.set()
            self._renewed = trio.Event()

    async def held(self) -> None:
        """Wait until the lease holds for a while yet: a process that was stopped for long must not send what others
        took over."""
        while self._now_ms() > self._until_ms - self._length_ms // RENEWALS:
            await self._renewed.wait()
