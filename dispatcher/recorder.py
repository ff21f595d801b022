"""The recorder: what happened to alerts is written down in batches, and what follows from it is set going.

One task takes the steps that lanes, receipts and the clock hand over, commits them, and only then frees the lanes'
places, so nothing between a lane and the ledger can grow without bound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

import trio

from dispatcher.delivery import after_receipt, held_back, tried_again
from dispatcher.errors import LedgerUnavailable
from dispatcher.lane import Lane
from dispatcher.ledger.api import Ledger
from dispatcher.metrics import Meter
from dispatcher.model.alert import Step

RECORD_BATCH = 1024
"""Steps of one commit (and what came with the last of them): about 5 ms of work in the ledger's thread."""

RECORD_GATHER_S = 0.03
"""Under a flood (alerts wait in their lane) outcomes gather for so long before they are written: a commit of fifty
costs nearly what one of five hundred does. Not those of a fenced lane, whose few places in flight they hold."""

MAX_WAITING_STEPS = 4 * RECORD_BATCH
"""Steps that may wait for the recorder before receipts are taken no further. A lane's are bounded by its places."""

_Steps = tuple[Sequence[Step], Lane | None]


class RecorderHost(Protocol):
    """What the recorder needs of its engine."""

    owner: int

    def now_ms(self) -> int:
        """Wall clock, epoch ms."""

    async def ledger_trouble(self, error: LedgerUnavailable) -> None:
        """The ledger cannot write: waits a moment, or raises the error where waiting is not wanted."""

    def ledger_is_well(self) -> None:
        """The ledger has written."""

    def something_is_due(self) -> None:
        """The clock task need not wait for its tick."""


class Recorder:
    """See the module. `run` is its task; the rest is called from the same trio loop."""

    def __init__(self, *, host: RecorderHost, ledger: Ledger, meter: Meter, lanes: Mapping[str, Lane]) -> None:
        self.ended = False
        self._host = host
        self._ledger = ledger
        self._meter = meter
        self._lanes = lanes
        self._steps: deque[_Steps] = deque()
        self._came = trio.Event()
        self._recording = False

    def record(self, steps: Sequence[Step], lane: Lane | None) -> None:
        """Take steps. A lane's are bounded by its places in flight, the clock's by a batch a look, and it cannot look
        while the ledger cannot write; receipts wait for `room`."""
        if steps:
            self._steps.append((steps, lane))
            self._came.set()

    @property
    def waiting(self) -> int:
        """Steps that are not being written yet."""
        return sum(len(several) for several, _ in self._steps)

    @property
    def busy(self) -> bool:
        """Whether anything waits or is being written."""
        return bool(self._steps) or self._recording

    async def room(self) -> None:
        """Wait until few enough steps wait for more of them to be taken in."""
        while self.waiting > MAX_WAITING_STEPS:  # noqa: ASYNC110 - they are worked off by the commit
            await trio.sleep(RECORD_GATHER_S)

    async def run(self) -> None:
        """Write down what comes, for ever. Raises what `RecorderHost.ledger_trouble` raises, and `LedgerFailed`."""
        try:
            while True:
                await self._came.wait()
                if self._may_gather():
                    await trio.sleep(RECORD_GATHER_S)
                await self._write(self._taken())
        finally:
            self.ended = True

    def _may_gather(self) -> bool:
        # What receipts and the clock bring may wait along.
        lanes = [lane for _, lane in self._steps if lane is not None]
        flood = bool(lanes) and all(lane.queue and not lane.channel.fenced for lane in lanes)
        return flood and self.waiting < RECORD_BATCH

    def _taken(self) -> list[_Steps]:
        batch: list[_Steps] = []
        room = RECORD_BATCH
        while self._steps and room > 0:
            batch.append(self._steps.popleft())
            room -= len(batch[-1][0])
        if not self._steps:
            self._came = trio.Event()
        return batch

    async def _write(self, batch: list[_Steps]) -> None:
        host = self._host
        self._recording = True
        steps = [step for several, _ in batch for step in several]
        while True:
            try:
                answered = await self._ledger.record(steps, host.owner)
                break
            except LedgerUnavailable as error:
                await host.ledger_trouble(error)
        host.ledger_is_well()
        if answered:  # what comes back has not taken its step
            back = {alert.id for alert in answered}
            steps = [held_back(step) if step.alert.id in back else step for step in steps]
        self._meter.recorded(steps)
        for several, lane in batch:
            if lane is not None:
                lane.settled(len(several))
        for step in steps:
            if step.ended:
                continue
            if step.keep_lease:
                self._lanes[step.alert.channel].put([tried_again(step)], first=True)
            elif step.due_ms is not None and step.due_ms <= host.now_ms():
                host.something_is_due()
        if answered:  # their receipt had come before the answer to the send
            now_ms = host.now_ms()
            self.record([after_receipt(alert, alert.receipt or "delivered", now_ms) for alert in answered], None)
        self._recording = False
