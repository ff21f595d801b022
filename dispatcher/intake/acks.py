"""What became of the lines of one connection, told in their order: cumulative acknowledgements.

Batches are settled in any order, and an acknowledgement speaks only of a line when every line before it is settled too.
Pure bookkeeping: no trio, no stream, no clock.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from dispatcher.events import Rejected
from dispatcher.intake.door import Taken

ACK_REJECTIONS = 1024
"""Most refused lines listed in one acknowledgement (about 60 KB, 0.5 MB if every id is as long as it may be), and so
the most lines of a batch: a batch is told in one acknowledgement."""

WAITING_BATCHES = 32
"""Batches of one connection that may wait for their acknowledgement, in the ledger or unsaid. As many calls share a
commit (``ledger.worker.CALLS_PER_COMMIT``), so that one connection can fill it, and no more is ever held for one."""


class Batch:
    """Some lines on their way through the door; ``upto`` is the number of the last of them, blank ones included."""

    __slots__ = ("taken", "upto")

    def __init__(self, upto: int) -> None:
        self.upto = upto
        self.taken: Taken | None = None


class _Ack(msgspec.Struct):
    ack: int
    accepted: int
    duplicate: int
    rejected: list[dict[str, Any]]


class Acknowledgements:
    """``line`` is the last line that an acknowledgement was made for: all up to it are durable or refused."""

    def __init__(self) -> None:
        self.line = 0
        self._waiting: deque[Batch] = deque()
        self._untold = 0

    @property
    def outstanding(self) -> bool:
        """Whether some line waits for its acknowledgement."""
        return bool(self._waiting)

    @property
    def full(self) -> bool:
        """Whether so much waits that no further line should be read."""
        return len(self._waiting) >= WAITING_BATCHES or self._untold >= ACK_REJECTIONS

    def expect(self, upto: int) -> Batch:
        """The next batch, in the order of the lines. One that is never settled holds back all that follow it."""
        batch = Batch(upto)
        self._waiting.append(batch)
        return batch

    def settle(self, batch: Batch, taken: Taken) -> None:
        """The batch is in the ledger, or refused."""
        batch.taken = taken
        self._untold += len(taken.rejected)

    def take(self) -> bytes | None:
        """The acknowledgement of everything that is settled by now, as a line; None when there is nothing new.

        More than ``ACK_REJECTIONS`` refused lines are split over several; call it until it gives None.
        """
        ack = _Ack(self.line, 0, 0, [])
        while self._waiting and (taken := self._waiting[0].taken) is not None:
            if ack.rejected and len(ack.rejected) + len(taken.rejected) > ACK_REJECTIONS:
                break
            ack.ack = self._waiting.popleft().upto
            ack.accepted += taken.accepted
            ack.duplicate += taken.duplicate
            ack.rejected += map(_shown, taken.rejected)
        if ack.ack == self.line:
            return None
        self.line = ack.ack
        self._untold -= len(ack.rejected)
        return msgspec.json.encode(ack) + b"\n"

    def error(self, reason: str) -> bytes:
        """The last line of a connection that is closed by this side, and why."""
        return msgspec.json.encode({"error": reason, "ack": self.line}) + b"\n"


def _shown(rejected: Rejected) -> dict[str, Any]:
    return {"line": rejected.line, "id": rejected.id, "error": rejected.error}
