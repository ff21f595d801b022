"""Looks on from outside: the simulated providers' book, the engine's metrics, the engine's processes.

The book is read independently of the engine: what it calls accepted is what a cardholder would have seen.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Final

import httpx
import trio

from dispatcher.errors import SwipebellError
from loadtest.load.machine import ProcessTree, Usage
from loadtest.load.tally import Tally

BOOK_EVERY_S: Final = 0.2
METRICS_EVERY_S: Final = 1.0
TIMEOUT_S: Final = 30.0
PAGE_ROWS: Final = 20_000
"""Rows of the book in one answer: 1 MB, 20 ms to match, so that the generator is not held up."""

CHANNELS: Final = ("wechat", "sms")
CAUSES: Final = {
    "retry": "provider busy",
    "throttle": "throttled",
    "unknown": "no answer",
    "recipient_gone": "recipient gone",
    "opted_out": "opted out",
    "refresh_token": "token expired",
    "permanent": "refused for good",
    "configuration": "configuration",
}
"""The engine's classes of answers, in words; an attempt that was accepted is none of them."""


class BookWatch:
    """Reads the keys of new messages from the providers' book into the tally."""

    def __init__(self, url: str, tally: Tally, now: Callable[[], float]) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False)
        self._tally = tally
        self._now = now
        self._offsets = dict.fromkeys(CHANNELS, 0)
        self._looking = trio.Lock()
        """Two looks at a time would take the same page, and every message of it for one that was shown twice."""

    async def start(self) -> None:
        """Begin behind what the book holds already. Raises ``SwipebellError`` when there is no such book."""
        try:
            book = (await self._client.get("/_book")).json()
            self._offsets = {channel: book[channel]["delivered"] - book[channel]["unlisted"] for channel in CHANNELS}
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            raise SwipebellError(
                f"--providers {self._client.base_url}: no simulated providers answer there; start them with"
                " `swipebell providers` and name the address that they print"
            ) from None

    async def run(self) -> None:
        """Look a few times a second until cancelled."""
        while True:
            await self.look()
            await trio.sleep(BOOK_EVERY_S)

    async def look(self) -> None:
        """Take all that is new. A book that does not answer is asked again at the next look."""
        async with self._looking:
            began = self._now()
            try:
                for channel in CHANNELS:
                    while await self._page(channel) == PAGE_ROWS:
                        await trio.lowlevel.checkpoint()
            except httpx.HTTPError:
                return
            self._tally.seen_until = began

    async def _page(self, channel: str) -> int:
        query: dict[str, str | int] = {"channel": channel, "offset": self._offsets[channel], "limit": PAGE_ROWS}
        response = await self._client.get("/_book/keys", params=query)
        response.raise_for_status()
        words = response.text.split()
        keys = words[::2]
        self._tally.show(channel, keys, list(map(float, words[1::2])))
        self._offsets[channel] += len(keys)
        return len(keys)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.aclose()


class Metrics:
    """What an engine's ``/metrics`` said last. ``answers`` is False while it does not answer."""

    def __init__(self) -> None:
        self.answers = False
        self.open = 0
        self.ended: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()
        self.attempts: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self._last: dict[str, float] = {}

    def take(self, text: str) -> None:
        """Advance by an answer. A counter that fell belongs to a process that began anew."""
        for line in text.splitlines():
            if not line.startswith("swipebell_"):
                continue
            series, _, value_text = line.rpartition(" ")
            value = float(value_text)
            name, _, labels = series.partition("{")
            if math.isnan(value):
                continue
            if name == "swipebell_open_alerts":
                self.open = int(value)
                continue
            if name not in _COUNTED:
                continue
            before = self._last.get(series, 0.0)
            self._last[series] = value
            self._advance(name, _labels(labels), int(value - before if value >= before else value))
        self.answers = True

    def _advance(self, name: str, labels: dict[str, str], by: int) -> None:
        if name == "swipebell_attempts_total":
            self.attempts[labels["channel"]] += by
            if labels["outcome"] != "accepted":
                self.retries[CAUSES.get(labels["outcome"], labels["outcome"])] += by
        elif name == "swipebell_alerts_ended_total":
            self.ended[labels["state"]] += by
        else:
            self.events[labels["result"]] += by


_COUNTED: Final = frozenset({"swipebell_attempts_total", "swipebell_alerts_ended_total", "swipebell_events_total"})


def _labels(text: str) -> dict[str, str]:
    """Labels of ours: their values hold no comma and no quote."""
    pairs = (pair.partition("=") for pair in text.rstrip("}").split(",") if pair)
    return {name: value.strip('"') for name, _, value in pairs}


class Sampler:
    """Once a second: the engine's metrics and processes, into the tally's seconds.

    ``metrics_url`` None: there are none to ask. ``tree`` None: the engine runs elsewhere. ``measured``: the providers'
    book tells what was delivered; otherwise the engine's word is taken.
    """

    def __init__(
        self,
        tally: Tally,
        now: Callable[[], float],
        *,
        metrics_url: str | None,
        tree: Callable[[], ProcessTree | None],
        measured: bool,
    ) -> None:
        self.metrics = Metrics()
        self.usage: Usage | None = None
        self.largest_mb = 0.0
        self._tally = tally
        self._now = now
        self._tree = tree
        self._measured = measured
        self._asking = trio.Lock()  # answers are taken in the order of the questions
        self._client = None if metrics_url is None else httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False)
        self._url = metrics_url
        self._retries: Counter[str] = Counter()
        self._delivered = 0
        self._next_second = 0

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            await self.sample()
            await trio.sleep(METRICS_EVERY_S - self._now() % METRICS_EVERY_S)

    async def sample(self) -> None:
        """Ask once. Metrics that do not answer leave what was known."""
        await self.ask()
        index = max(int(self._now() - METRICS_EVERY_S / 2), 0)
        interval = self._tally.second(index).interval
        new = self.metrics.retries - self._retries
        self._retries = self.metrics.retries.copy()
        for cause, count in new.items():
            interval.retries[cause] = interval.retries.get(cause, 0) + count
        if not self._measured:
            interval.delivered += self.metrics.ended["delivered"] - self._delivered
            self._delivered = self.metrics.ended["delivered"]
        tree = self._tree()
        usage = None if tree is None else tree.usage()
        if usage is not None:
            self.usage = usage
            self.largest_mb = max(self.largest_mb, usage.largest_mb)
        # A look that took longer than a second stands for all the seconds since the last one.
        for each in range(min(self._next_second, index), index + 1):
            interval = self._tally.second(each).interval
            interval.open = self.metrics.open
            if usage is not None:
                interval.engine_cores, interval.engine_mb = usage.cores, usage.largest_mb
        self._next_second = index + 1
        self._tally.close(self._tally.seen_until if self._measured else self._now())

    async def ask(self) -> None:
        """Read the metrics."""
        if self._client is None or self._url is None:
            return
        async with self._asking:
            try:
                response = await self._client.get(self._url)
                response.raise_for_status()
            except httpx.HTTPError:
                self.metrics.answers = False
                return
            self.metrics.take(response.text)

    async def start(self) -> None:
        """What was counted before the run is not the run's."""
        await self.ask()
        said = self.metrics
        for counted in (said.ended, said.retries, said.attempts, said.events):
            counted.clear()

    async def aclose(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.aclose()
