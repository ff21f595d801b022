"""Admissions that come at the same time are one admission.

A call into the ledger has its price, however few events it brings: fifteen statements, a savepoint, a hand-over between
threads. Many connections with a line each would pay it a line. So while one admission is under way the next ones wait
together, and are admitted as one; a lone one goes at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import trio

from dispatcher.errors import LeaseLost, LedgerFailed, LedgerUnavailable
from dispatcher.events import Accepted
from dispatcher.ledger.api import Admission, Noted

AdmitBatch = Callable[[Sequence[Accepted]], Awaitable[Admission]]


class _Batch:
    __slots__ = ("admission", "done", "error", "events")

    def __init__(self, events: Sequence[Accepted]) -> None:
        self.events = events
        self.done = trio.Event()
        self.admission: Admission | None = None
        self.error: Exception | None = None


class Together:
    """Admits batches by ``admit``, up to ``most`` events at a time and in their order; `run` is its task."""

    def __init__(self, admit: AdmitBatch, most: int) -> None:
        self._admit = admit
        self._most = most
        self._waiting: deque[_Batch] = deque()  # bounded by the gate: nobody comes here without having passed it
        self._came = trio.Event()

    async def admit(self, events: Sequence[Accepted]) -> Admission:
        """What became of these events; ``alerts``, ``ended`` and what was held or noted are not told apart
        by batch and are empty.

        Raises what ``admit`` raises. When cancelled, they may have been admitted all the same.
        """
        batch = _Batch(events)
        self._waiting.append(batch)
        self._came.set()
        await batch.done.wait()
        if batch.error is not None:
            raise batch.error
        assert batch.admission is not None
        return batch.admission

    async def run(self) -> None:
        """Admit what comes, for ever; when it ends, whoever still waits hears that nothing was admitted."""
        group: list[_Batch] = []
        try:
            await self._run(group)
        finally:
            for batch in (*group, *self._waiting):
                batch.error = LedgerUnavailable("the process is ending; send it again")
                batch.done.set()

    async def _run(self, group: list[_Batch]) -> None:
        while True:
            await self._came.wait()
            group.append(self._waiting.popleft())
            room = self._most - len(group[0].events)
            while self._waiting and len(self._waiting[0].events) <= room:
                group.append(self._waiting.popleft())
                room -= len(group[-1].events)
            if not self._waiting:
                self._came = trio.Event()
            await self._admit_group(group)
            for batch in group:
                batch.done.set()
            group.clear()

    async def _admit_group(self, group: list[_Batch]) -> None:
        try:
            whole = await self._admit([event for batch in group for event in batch.events])
        except (LedgerUnavailable, LedgerFailed, LeaseLost) as error:  # it has nothing to do with the events
            for batch in group:
                batch.error = error
        except Exception as error:  # noqa: BLE001 - a defect of ours in one batch must not refuse the others
            if len(group) == 1:
                group[0].error = error
            else:
                for batch in group:
                    await self._admit_group([batch])
        else:
            _share_out(whole, group)


def _share_out(whole: Admission, group: Sequence[_Batch]) -> None:
    start = 0
    for batch in group:
        end = start + len(batch.events)
        duplicates = [place - start for place in whole.duplicates if start <= place < end]
        conflicts = [place - start for place in whole.conflicts if start <= place < end]
        accepted = len(batch.events) - len(duplicates) - len(conflicts)
        batch.admission = msgspec.structs.replace(
            whole,
            accepted=accepted,
            duplicates=duplicates,
            conflicts=conflicts,
            alerts=[],
            ended={},
            held={},
            noted=Noted(),
        )
        start = end
