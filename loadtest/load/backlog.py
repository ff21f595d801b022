"""What a sender cannot get rid of in time: its backlog, as lines in a temporary file, so that it costs no memory."""

from __future__ import annotations

import tempfile
from collections import deque
from typing import IO, Final

from dispatcher.errors import SwipebellError
from loadtest.load.lines import Chunk
from loadtest.load.tally import Tally

FRESH_S: Final = 2.0
"""An arrival that has not left after so long joins the backlog, and no longer stands in the way of newer ones. It is a
part of what the engine calls fresh (`dispatcher.freshness`), so that what leaves as fresh arrives as fresh."""


class Backlog:
    """Chunks of lines, oldest first: late they are in any order, and so none gets older than the oldest has to be.

    The file takes 260 bytes an event; how many events wait at most is ``generator.MAX_WAITING``.
    """

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._file: IO[bytes] | None = None  # most runs have no backlog
        self._chunks: deque[tuple[Chunk, int, int]] = deque()
        self._end = 0

    def __bool__(self) -> bool:
        return bool(self._chunks)

    def add(self, chunk: Chunk) -> None:
        """Keep a chunk. Raises ``SwipebellError`` when the disk does not take it."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="swipebell-backlog-")  # noqa: SIM115 - see `close`
            self._file.seek(self._end)
            self._file.write(chunk.body)
        except OSError as error:
            raise SwipebellError(
                f"the backlog cannot be kept in {tempfile.gettempdir()}: {error.strerror}; free some space there, or"
                " name another folder in TMPDIR"
            ) from None
        self._chunks.append((Chunk(chunk.first, chunk.count, b"", chunk.again), self._end, len(chunk.body)))
        self._end += len(chunk.body)
        self._tally.kept += chunk.count

    def take(self) -> Chunk:
        """The oldest chunk. Raises ``IndexError`` when there is none."""
        chunk, start, length = self._chunks.popleft()
        assert self._file is not None
        self._file.seek(start)
        chunk.body = self._file.read(length)
        if not self._chunks:
            self._file.truncate(0)
            self._end = 0
        self._tally.kept -= chunk.count
        return chunk

    def close(self) -> None:
        """Forget all of it."""
        self._chunks.clear()
        if self._file is not None:
            self._file.close()
