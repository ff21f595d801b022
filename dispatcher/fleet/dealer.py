"""Deals blocks of lines to the workers of a fleet, and keeps each block until its lines are acknowledged.

Whoever is free gets the next block. What a worker that died has not acknowledged goes to the others: what it had
admitted all the same is recognised there as duplicate.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import BinaryIO

import msgspec
import trio

from dispatcher.errors import InputError, SwipebellError
from dispatcher.events import Rejected
from dispatcher.intake.blocks import Block, read_blocks

WINDOW_BLOCKS = 16
"""Blocks a worker may have unacknowledged: 1 MiB, half a second of its work. More would only wait in its socket."""

READ_AHEAD_BLOCKS = 16
"""Blocks read and not yet dealt: beyond it the file is not read on."""

ACK_LINE_BYTES = 4 * 1024 * 1024
"""Longest acknowledgement: it lists 1,024 refused lines at most, 1 MB if every id is as long as it may be."""

RECEIVE_BYTES = 64 * 1024


class _RejectedLine(msgspec.Struct):
    line: int
    error: str
    id: str | None = None


class _Ack(msgspec.Struct):
    ack: int
    accepted: int = 0
    duplicate: int = 0
    rejected: list[_RejectedLine] = []
    error: str | None = None


_decode_ack = msgspec.json.Decoder(_Ack).decode


class Link:
    """What is under way to one worker: pure bookkeeping of line numbers."""

    def __init__(self) -> None:
        self._blocks: deque[Block] = deque()
        self._acked = 0
        self._start = 0  # acknowledged lines before the first block

    @property
    def full(self) -> bool:
        """Whether so much is unacknowledged that nothing more should be sent."""
        return len(self._blocks) >= WINDOW_BLOCKS

    def sent(self, block: Block) -> None:
        """A block goes out; its lines are numbered on from the last one."""
        self._blocks.append(block)

    def file_line(self, line: int) -> int:
        """The number in the file of a line of this connection that is not acknowledged yet. Raises ValueError."""
        start = self._start
        for block in self._blocks:
            if start < line <= start + block.lines:
                return block.first + line - start - 1
            start += block.lines
        raise ValueError(line)

    def acknowledged(self, line: int) -> int:
        """All up to ``line`` is settled; returns how many lines are new. Raises ValueError when it was never sent."""
        if not self._acked <= line <= self._start + sum(block.lines for block in self._blocks):
            raise ValueError(line)
        new = line - self._acked
        self._acked = line
        while self._blocks and self._start + self._blocks[0].lines <= line:
            self._start += self._blocks.popleft().lines
        return new

    def left(self) -> list[Block]:
        """What was never acknowledged, as blocks for somebody else."""
        if self._blocks and self._acked > self._start:
            self._blocks[0] = self._blocks[0].after(self._acked - self._start)
            self._start = self._acked
        left = list(self._blocks)
        self._blocks.clear()
        return left


class Dealer:
    """Reads one stream and deals it out. ``events`` counts what the acknowledgements say: read, accepted, duplicate,
    rejected. ``on_rejected`` is told of every refused line by its number in the file."""

    def __init__(self, stream: BinaryIO, on_rejected: Callable[[Rejected], None]) -> None:
        self.events: Counter[str] = Counter()
        self._stream = stream
        self._on_rejected = on_rejected
        self._waiting: deque[Block] = deque()
        self._unsettled = 0  # lines read and not acknowledged
        self._read_all = False
        self._failure: InputError | None = None
        self._changed = trio.Condition()

    async def read(self) -> None:
        """Read the stream to its end. Blocks that nobody takes hold it up; an `InputError` is kept for ``settled``."""
        blocks: Iterator[list[Block]] = read_blocks(self._stream)
        try:
            # abandon_on_cancel: a read from a terminal or a pipe may never return; nothing is lost by leaving it.
            while (some := await trio.to_thread.run_sync(next, blocks, None, abandon_on_cancel=True)) is not None:
                async with self._changed:
                    while len(self._waiting) >= READ_AHEAD_BLOCKS:
                        await self._changed.wait()
                    self._waiting += some
                    self._unsettled += sum(block.lines for block in some)
                    self._changed.notify_all()
        except InputError as error:
            self._failure = error
        async with self._changed:
            self._read_all = True
            self._changed.notify_all()

    async def settled(self) -> None:
        """Wait until the whole stream is read and every line of it acknowledged. Raises `InputError` when it broke off,
        after what came before was acknowledged."""
        async with self._changed:
            while self._unsettled or not self._read_all:
                await self._changed.wait()
        if self._failure is not None:
            raise self._failure

    async def deal(self, stream: trio.abc.HalfCloseableStream) -> None:
        """Deal to one worker until its end of ``stream`` is closed. Cancelled or not, what it has not acknowledged is
        dealt again."""
        link = Link()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send, stream, link)
                await self._receive(stream, link)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                async with self._changed:
                    self._waiting.extendleft(reversed(link.left()))
                    self._changed.notify_all()

    async def _send(self, stream: trio.abc.HalfCloseableStream, link: Link) -> None:
        while True:
            async with self._changed:
                while link.full or not self._waiting:
                    await self._changed.wait()
                block = self._waiting.popleft()
                link.sent(block)
                self._changed.notify_all()
            try:
                await stream.send_all(block.text)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # `_receive` sees the end too, after the acknowledgements that are still to be read

    async def _receive(self, stream: trio.abc.Stream, link: Link) -> None:
        rest = b""
        while True:
            try:
                chunk = bytes(await stream.receive_some(RECEIVE_BYTES))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > ACK_LINE_BYTES:
                raise SwipebellError("a worker's acknowledgement does not end; this is a defect, please report it")
            if lines:
                await self._settle(lines, link)

    async def _settle(self, lines: list[bytes], link: Link) -> None:
        async with self._changed:
            for line in lines:
                ack = _decode_ack(line)
                if ack.error is None:  # with it the worker's connection ends, and its control socket says why
                    self._count(ack, link)
            self._changed.notify_all()

    def _count(self, ack: _Ack, link: Link) -> None:
        for one in ack.rejected:
            # The error begins with "field NAME:" where it is about one.
            words = one.error.split(":", 1)[0].split()
            field = words[1] if len(words) == 2 and words[0] == "field" else None
            self._on_rejected(Rejected(link.file_line(one.line), one.id, field, one.error))
        self._unsettled -= link.acknowledged(ack.ack)
        settled = {"accepted": ack.accepted, "duplicate": ack.duplicate, "rejected": len(ack.rejected)}
        self.events.update({name: count for name, count in settled.items() if count})
        self.events["read"] += sum(settled.values())
