"""A blocking stream cut into blocks of whole lines, without looking at any line: for a reader that only deals them out.

`dispatcher.intake.ndjson` is what takes lines apart; here a line costs a few nanoseconds.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from dispatcher.errors import InputError
from dispatcher.intake.ndjson import READ_BYTES, plain_words
from dispatcher.strictjson import MAX_LINE_BYTES

BLOCK_BYTES = 64 * 1024
"""About 256 events: small enough that the last blocks of a file keep everybody busy."""

_KEPT_BYTES = MAX_LINE_BYTES + 2
"""Of a line that does not end: enough that it is refused for its length."""


class Block(msgspec.Struct, frozen=True):
    """Whole lines; ``first`` is the number of the first one in its file, ``lines`` how many they are."""

    first: int
    lines: int
    text: bytes

    def after(self, count: int) -> Block:
        """What follows the first ``count`` lines."""
        start = 0
        for _ in range(count):
            start = self.text.index(b"\n", start) + 1
        return Block(self.first + count, self.lines - count, self.text[start:])


class BlockCutter:
    """Bytes in, blocks out; every line but a last one without newline is passed on as it is. Of a line over 64 KiB the
    end may be missing. Memory is bounded by one chunk and one such line."""

    def __init__(self) -> None:
        self.line = 0
        """The number of the last line that is complete."""
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> list[Block]:
        """The blocks that this chunk completes, each of ``BLOCK_BYTES`` or one line."""
        end = chunk.rfind(b"\n") + 1
        if not end:
            self._keep(chunk)
            return []
        head = chunk.index(b"\n") + 1
        self._keep(chunk[: head - 1])
        whole = bytes(self._rest) + chunk[head - 1 : end]
        self._rest.clear()
        self._keep(chunk[end:])
        return self._cut(whole)

    def finish(self) -> list[Block]:
        """The last line, if it has no newline."""
        last = bytes(self._rest)
        self._rest.clear()
        return self._cut(last + b"\n") if last else []

    def _keep(self, part: bytes) -> None:
        room = _KEPT_BYTES - len(self._rest)
        self._rest += part[:room]

    def _cut(self, whole: bytes) -> list[Block]:
        blocks = []
        start = 0
        while start < len(whole):
            limit = start + BLOCK_BYTES
            end = len(whole) if limit >= len(whole) else whole.rfind(b"\n", start, limit) + 1
            if not end:
                end = whole.index(b"\n", limit) + 1
            text = whole[start:end]
            blocks.append(Block(self.line + 1, text.count(b"\n"), text))
            self.line += blocks[-1].lines
            start = end
        return blocks


def read_blocks(stream: BinaryIO) -> Iterator[list[Block]]:
    """The blocks of a blocking stream, as they come. If reading fails, everything before the fault is yielded first,
    then `InputError` says at which line it was. Made for a thread: every ``next`` may block."""
    cutter = BlockCutter()
    read = getattr(stream, "read1", stream.read)
    failure = None
    while True:
        try:
            chunk = read(READ_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            failure = plain_words(error)
            break
        if not chunk:
            break
        if blocks := cutter.feed(chunk):
            yield blocks
    if failure is None:
        if blocks := cutter.finish():
            yield blocks
        return
    name = getattr(stream, "name", "input")
    raise InputError(f"{name}: {failure} at line {cutter.line + 1:,}; the lines before it were read")
