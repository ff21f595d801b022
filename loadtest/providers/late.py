"""Answers of a simulated provider that take their time, all of them held by one task."""

from __future__ import annotations

import heapq
import itertools
import math
from typing import Final

import trio

from dispatcher.httpd import Answer, Deferred, answer_all

TICK_SECONDS: Final = 0.001
"""After some answers the next ones may be so much later: waking up once for many is cheaper than for each."""


class SimulatedAnswer(Answer, frozen=True, gc=False):
    """An answer that is given ``delay_seconds`` late."""

    delay_seconds: float = 0.0


class LateAnswers:
    """Keeps what has been promised until its time; bounded by what the server takes of each connection."""

    def __init__(self) -> None:
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, Deferred, Answer]] = []
        self._earlier = trio.Event()

    def __len__(self) -> int:
        """Requests that wait for their answer."""
        return len(self._waiting)

    def promise(self, answer: Answer) -> Answer | Deferred:
        """The answer itself when it is to be given at once, otherwise the promise of it."""
        if not isinstance(answer, SimulatedAnswer) or answer.delay_seconds <= 0.0:
            return answer
        deferred = Deferred()
        entry = (trio.current_time() + answer.delay_seconds, next(self._order), deferred, answer)
        heapq.heappush(self._waiting, entry)
        if self._waiting[0] is entry:
            self._earlier.set()
        return deferred

    async def run(self) -> None:
        """Give each answer in its time, until cancelled."""
        not_before = -math.inf
        while True:
            due_at = self._waiting[0][0] if self._waiting else math.inf
            with trio.move_on_at(max(due_at, not_before)):
                await self._earlier.wait()
            self._earlier = trio.Event()
            now, due = trio.current_time(), []
            while self._waiting and self._waiting[0][0] <= now:
                _, _, deferred, answer = heapq.heappop(self._waiting)
                due.append((deferred, answer))
            if due:
                not_before = now + TICK_SECONDS
                answer_all(due)
