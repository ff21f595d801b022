"""Lines out of files, pipes and request bodies, in bounded memory, whatever the input is.

``LineSplitter`` is the one place that knows what a line is; ``read_batches`` feeds it from a blocking stream
(a file, stdin, either of them gzipped), the HTTP intake feeds it from a body as it arrives.
"""

from __future__ import annotations

import errno
import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, cast

from dispatcher.errors import InputError
from dispatcher.strictjson import BOM, MAX_LINE_BYTES

MAX_BATCH_LINES = 256
"""Lines handed on at once where the caller does not say: one thread hop each. Admission takes more of them together
(``engine.batch_events``)."""

MAX_BATCH_BYTES = 1 << 20
"""Bytes of the lines handed on at once: an ordinary batch has 70 KB; this keeps 256 longest lines from being
16 MiB."""

READ_BYTES = 256 * 1024
"""Bytes asked of the stream at once: about a thousand events, four batches."""

_GZIP_MAGIC = b"\x1f\x8b"
_KEPT_BYTES = MAX_LINE_BYTES + 2
"""Of a line that is too long: one byte more than allowed, so that it is refused, and one for a carriage
return."""


class LineSplitter:
    """Bytes in, whole lines out, each with its number from 1, without its newline and one carriage return.

    Blank lines are counted but not handed out: they are no events. Of a line over 64 KiB only the first
    65,537 bytes are kept and handed out, which ``decode_event`` refuses by its length; the rest is passed
    over. Memory is bounded by one chunk and one such line.
    """

    def __init__(self) -> None:
        self._line = 0
        self._rest = bytearray()

    @property
    def line(self) -> int:
        """The number of the last line that is complete."""
        return self._line

    def feed(self, chunk: bytes) -> list[tuple[int, bytes]]:
        """The lines that this chunk completes."""
        head, newline, tail = chunk.partition(b"\n")
        self._keep(head)
        if not newline:
            return []
        first = bytes(self._rest)
        self._rest.clear()
        *lines, rest = tail.split(b"\n")
        self._keep(rest)
        return self._number((first, *lines))

    def finish(self) -> list[tuple[int, bytes]]:
        """The last line, if it has no newline."""
        last = bytes(self._rest)
        self._rest.clear()
        return self._number((last,)) if last else []

    def _keep(self, part: bytes) -> None:
        room = _KEPT_BYTES - len(self._rest)
        self._rest += part if len(part) <= room else part[:room]

    def _number(self, lines: Iterable[bytes]) -> list[tuple[int, bytes]]:
        numbered = []
        for line in lines:
            self._line += 1
            if line.endswith(b"\r"):
                line = line[:-1]
            if len(line) > MAX_LINE_BYTES:
                line = line[: MAX_LINE_BYTES + 1]
            if line and not line.isspace() and line != BOM:
                numbered.append((self._line, line))
        return numbered


def open_input(path: str) -> BinaryIO:
    """A file, or stdin for ``-``, unzipped if its first bytes say gzip; never seeks. Blocks.

    Raises ``InputError``. Closing the stream does not close stdin.
    """
    name = "standard input" if path == "-" else path
    try:
        source = _standard_input() if path == "-" else open(path, "rb")  # noqa: SIM115
        head = source.read(len(_GZIP_MAGIC))
    except OSError as error:
        raise InputError(f"{name}: {plain_words(error)}") from None
    except ValueError:
        raise InputError(f"{name!r} cannot be a file's name") from None
    stream = io.BufferedReader(_Replayed(name, head, source, owns_source=path != "-"), READ_BYTES)
    if head != _GZIP_MAGIC:
        return stream
    return cast("BinaryIO", _Gunzipped(name, cast("BinaryIO", stream)))


def read_batches(
    stream: BinaryIO, max_lines: int = MAX_BATCH_LINES, max_bytes: int = MAX_BATCH_BYTES
) -> Iterator[list[tuple[int, bytes]]]:
    """Batches of (line number, line) of a blocking stream, up to ``max_lines`` and ``max_bytes`` each.

    A line does not wait for lines that a slow writer has not written yet; only gzip, whose writers do not
    flush, is gathered to full batches. If reading fails, everything before the fault is yielded first, then
    ``InputError`` says at which line it was. Made for a thread: every ``next`` may block. Closing the
    iterator leaves the stream open.
    """
    splitter = LineSplitter()
    gathers = isinstance(stream, gzip.GzipFile)
    read = getattr(stream, "read1", stream.read)
    pending: list[tuple[int, bytes]] = []
    failure: str | None = None
    while True:
        try:
            chunk = read(READ_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            failure = plain_words(error)
            break
        pending += splitter.feed(chunk) if chunk else splitter.finish()
        keep_partial = gathers and bool(chunk)
        batches, pending = _cut(pending, max_lines, max_bytes, keep_partial=keep_partial)
        yield from batches
        if not chunk:
            return
    batches, _ = _cut(pending, max_lines, max_bytes, keep_partial=False)
    yield from batches
    name = getattr(stream, "name", "input")
    raise InputError(f"{name}: {failure} at line {splitter.line + 1:,}; the lines before it were read")


def _cut(
    lines: list[tuple[int, bytes]], max_lines: int, max_bytes: int, *, keep_partial: bool
) -> tuple[list[list[tuple[int, bytes]]], list[tuple[int, bytes]]]:
    batches = []
    batch: list[tuple[int, bytes]] = []
    size = 0
    for numbered in lines:
        length = len(numbered[1])
        if batch and (len(batch) >= max_lines or size + length > max_bytes):
            batches.append(batch)
            batch, size = [], 0
        batch.append(numbered)
        size += length
    if keep_partial:
        return batches, batch
    return ([*batches, batch] if batch else batches), []


class _Replayed(io.RawIOBase):
    """A stream whose first bytes have been looked at already; pipes cannot seek back."""

    def __init__(self, name: str, head: bytes, source: BinaryIO, *, owns_source: bool) -> None:
        super().__init__()
        self.name = name
        self._head = head
        self._source = source
        self._owns_source = owns_source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if self._head:
            data, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        else:
            # read1, because read would wait until a slow pipe has filled the whole buffer.
            data = getattr(self._source, "read1", self._source.read)(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if self._owns_source and not self.closed:
            self._source.close()
        super().close()


class _Gunzipped(gzip.GzipFile):
    """gzip leaves a file object that it was given open; here nobody else knows it."""

    def __init__(self, name: str, compressed: BinaryIO) -> None:
        super().__init__(filename=name, mode="rb", fileobj=compressed)
        self._compressed = compressed

    def close(self) -> None:
        super().close()
        self._compressed.close()


def _standard_input() -> BinaryIO:
    if sys.stdin is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return sys.stdin.buffer


def plain_words(error: Exception) -> str:
    match error:
        case FileNotFoundError():
            return "no such file"
        case IsADirectoryError():
            return "is a directory, not a file"
        case PermissionError():
            return "no permission to read it"
        case EOFError():
            return "the gzip data is cut off"
        case gzip.BadGzipFile() | zlib.error():
            return "the gzip data is damaged"
        case OSError():
            return f"cannot be read ({(error.strerror or type(error).__name__).lower()})"
    return f"cannot be read ({type(error).__name__})"
