"""Lines out of files, pipes and bodies: any input, bounded memory, one line of explanation when it fails."""

from __future__ import annotations

import gzip
import io
import os
import sys
import tracemalloc
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.errors import InputError
from dispatcher.events import Rejected, decode_event
from dispatcher.intake import ndjson
from dispatcher.intake.ndjson import LineSplitter, open_input, read_batches
from dispatcher.strictjson import MAX_LINE_BYTES

# The machine may be busy, and a failure must come again.
REPEATABLE = settings(derandomize=True, deadline=None)

MIB = 1 << 20


def split(*chunks: bytes) -> list[tuple[int, bytes]]:
    splitter = LineSplitter()
    return [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.finish()


def read_all(path: str | Path) -> list[tuple[int, bytes]]:
    with open_input(str(path)) as stream:
        return [line for batch in read_batches(stream) for line in batch]


class Trickle(io.RawIOBase):
    """A pipe whose writer writes these pieces, one a read."""

    def __init__(self, *pieces: bytes) -> None:
        super().__init__()
        self.pieces = list(pieces)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self.pieces:
            return 0
        piece = self.pieces.pop(0)
        taken = piece[: len(buffer)]
        if taken != piece:
            self.pieces.insert(0, piece[len(buffer) :])
        buffer[: len(taken)] = taken
        return len(taken)


def stand_in_for_stdin(monkeypatch: pytest.MonkeyPatch, *pieces: bytes) -> BinaryIO:
    buffer = io.BufferedReader(Trickle(*pieces))
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=buffer))
    return cast("BinaryIO", buffer)


# ---- what a line is
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([], []),
        ([b""], []),
        ([b"a\nb\n"], [(1, b"a"), (2, b"b")]),
        ([b"a\nb"], [(1, b"a"), (2, b"b")]),
        ([b"a\r\nb\r"], [(1, b"a"), (2, b"b")]),
        ([b"a\r\r\n"], [(1, b"a\r")]),
        ([b"a\rb\n"], [(1, b"a\rb")]),
        ([b"\n\n \t\r\na\n\n"], [(4, b"a")]),
        ([b"\xef\xbb\xbf\r\na"], [(2, b"a")]),
        ([b"a", b"b", b"\n", b"c", b"\r", b"\n"], [(1, b"ab"), (2, b"c")]),
    ],
)
def test_lines_are_numbered_stripped_of_their_ends_and_blank_ones_passed_over(
    chunks: list[bytes], lines: list[tuple[int, bytes]]
) -> None:
    assert split(*chunks) == lines


@REPEATABLE
@given(st.lists(st.sampled_from([b"a", b"\n", b"\r\n", b" ", b"xyz", b"\r"]), max_size=30), st.data())
def test_how_the_bytes_arrive_does_not_matter(pieces: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert split(*parts) == split(whole)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
@pytest.mark.parametrize("chunk", [1000, 70_000, 300_000])
def test_a_line_of_64_kib_is_whole_and_a_longer_one_is_cut_to_be_refused(end: bytes, chunk: int) -> None:
    # Given a longest line, one a byte longer, one far longer, and a short one
    longest, longer = b"a" * MAX_LINE_BYTES, b"b" * (MAX_LINE_BYTES + 1)
    text = longest + b"\r\n" + longer + b"\n" + b"c" * 200_000 + b"\nd" + end
    # When they arrive in chunks
    lines = split(*(text[at : at + chunk] for at in range(0, len(text), chunk)))
    # Then the first is whole, the others end one byte after the limit, and the last is not disturbed
    assert [(number, len(line), line[:1]) for number, line in lines] == [
        (1, MAX_LINE_BYTES, b"a"),
        (2, MAX_LINE_BYTES + 1, b"b"),
        (3, MAX_LINE_BYTES + 1, b"c"),
        (4, 1, b"d"),
    ]
    refusal = decode_event(lines[2][1], lines[2][0])
    assert refusal == Rejected(3, None, None, "line is longer than 65,536 bytes")


def test_an_endless_line_is_passed_over_in_bounded_memory() -> None:
    splitter = LineSplitter()
    chunk = b"x" * 65_536
    tracemalloc.start()
    try:
        for _ in range(1000):
            assert splitter.feed(chunk) == []
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()
    assert [len(line) for _, line in splitter.feed(b"\n")] == [MAX_LINE_BYTES + 1]


# ---- batches
# ----------------------------------------------------------------------------------------------------


def batches_of(text: bytes, **limits: int) -> list[list[tuple[int, bytes]]]:
    return list(read_batches(io.BytesIO(text), **limits))


def test_batches_are_limited_in_lines() -> None:
    batches = batches_of(b"a\n" * 600)
    assert [len(batch) for batch in batches] == [256, 256, 88]
    assert [number for batch in batches for number, _ in batch] == list(range(1, 601))


def test_batches_are_limited_in_bytes_but_hold_one_line_at_least() -> None:
    batches = batches_of(b"aaaa\nbbbb\ncccccccccccc\nd\n", max_bytes=8)
    assert [[line[:1] for _, line in batch] for batch in batches] == [[b"a", b"b"], [b"c"], [b"d"]]


def test_empty_input_has_no_batch() -> None:
    assert batches_of(b"") == []
    assert batches_of(b"\n\n") == []


def test_a_line_does_not_wait_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a writer that has written one line and half of another
    pipe = Trickle(b'{"a":1}\n{"b"', b":2}\n")
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BufferedReader(pipe)))
    batches = read_batches(open_input("-"))
    # When the first batch is taken
    assert next(batches) == [(1, b'{"a":1}')]
    # Then the rest has not been read yet
    assert pipe.pieces == [b":2}\n"]
    assert list(batches) == [[(2, b'{"b":2}')]]


# ---- files and stdin
# --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"", b"a", b"a\n", b"\x1f", b"a\r\nb\n", b"x" * 300_000 + b"\ny"])
def test_a_file_reads_the_same_plain_zipped_and_through_stdin(
    text: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a text in a file whose name says nothing, and the same zipped
    plain, zipped = tmp_path / "plain", tmp_path / "zipped"
    plain.write_bytes(text)
    zipped.write_bytes(gzip.compress(text))
    expected = split(text)
    # Then each way of reading it gives the same lines
    assert read_all(plain) == expected
    assert read_all(zipped) == expected
    for content in (text, gzip.compress(text)):
        stand_in_for_stdin(monkeypatch, *(content[at : at + 1] for at in range(4)), content[4:])
        assert read_all("-") == expected


def test_several_gzip_members_are_one_input(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(gzip.compress(b"a\nb") + gzip.compress(b"c\nd\n") + b"\0" * 512)
    assert read_all(path) == [(1, b"a"), (2, b"bc"), (3, b"d")]


def test_closing_closes_the_file_but_not_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = stand_in_for_stdin(monkeypatch, b"a\n")
    open_input("-").close()
    assert not stdin.closed
    path = tmp_path / "events"
    for content in (b"a\n", gzip.compress(b"a\n")):
        path.write_bytes(content)
        before = len(os.listdir("/dev/fd"))
        open_input(str(path)).close()  # an unclosed file would be a warning, and warnings are errors
        assert len(os.listdir("/dev/fd")) == before


def test_gzip_is_gathered_to_full_batches(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(gzip.compress(b"".join(b'{"id":"%032d"}\n' % n for n in range(5000))))
    with open_input(str(path)) as stream:
        sizes = [len(batch) for batch in read_batches(stream)]
    assert sizes == [256] * 19 + [136]


def test_a_gzip_bomb_stays_in_bounded_memory(tmp_path: Path) -> None:
    # Given 64 KB that unzip to 64 MiB without a newline
    path = tmp_path / "bomb"
    path.write_bytes(gzip.compress(b"x" * (64 * MIB), compresslevel=9))
    # When it is read
    tracemalloc.start()
    try:
        lines = read_all(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Then there was never more than a few chunks of it in memory
    assert peak < 4 * MIB
    assert [len(line) for _, line in lines] == [MAX_LINE_BYTES + 1]


# ---- what cannot be read
# ----------------------------------------------------------------------------------------


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"/events: no such file$"):
        open_input(str(tmp_path / "events"))


def test_a_directory_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a directory, not a file"):
        open_input(str(tmp_path))


def test_no_permission_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> BinaryIO:
        raise PermissionError(13, "Permission denied")

    # The suite may run as root, whom no file mode stops.
    monkeypatch.setattr(ndjson, "open", refuse, raising=False)
    with pytest.raises(InputError, match=r"^events: no permission to read it$"):
        open_input("events")


def test_a_name_that_cannot_be_one_is_one_clear_line() -> None:
    with pytest.raises(InputError, match="cannot be a file's name"):
        open_input("a\0b")


def test_a_closed_stdin_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match=r"^standard input: cannot be read \(bad file descriptor\)$"):
        open_input("-")


def until_failure(batches: Iterator[list[tuple[int, bytes]]]) -> tuple[list[tuple[int, bytes]], str]:
    lines: list[tuple[int, bytes]] = []

    def exhaust() -> None:
        for batch in batches:
            lines.extend(batch)

    with pytest.raises(InputError) as caught:
        exhaust()
    return lines, str(caught.value)


ROWS = b"".join(b'{"id":"%032x","n":%d}\n' % (n * 7919**9, n) for n in range(3000))


def test_gzip_that_is_cut_off_gives_its_whole_lines_and_then_says_where(tmp_path: Path) -> None:
    path = tmp_path / "events"
    zipped = gzip.compress(ROWS)
    path.write_bytes(zipped[: len(zipped) // 2])
    with open_input(str(path)) as stream:
        lines, error = until_failure(read_batches(stream))
    assert 1000 < len(lines) < 2000
    assert lines == split(ROWS)[: len(lines)]
    place = f"line {len(lines) + 1:,}"
    assert error == f"{path}: the gzip data is cut off at {place}; the lines before it were read"


def test_damaged_gzip_says_where(tmp_path: Path) -> None:
    path = tmp_path / "events"
    zipped = bytearray(gzip.compress(ROWS))
    zipped[-6] ^= 0xFF  # in the check sum
    path.write_bytes(zipped)
    with open_input(str(path)) as stream:
        lines, error = until_failure(read_batches(stream))
    assert len(lines) == 3000
    assert error == f"{path}: the gzip data is damaged at line 3,001; the lines before it were read"


def test_garbage_that_only_begins_like_gzip_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(b"\x1f\x8bgarbage" * 10)
    with open_input(str(path)) as stream:
        lines, error = until_failure(read_batches(stream))
    assert lines == []
    assert error == f"{path}: the gzip data is damaged at line 1; the lines before it were read"


def test_a_failing_disk_is_one_clear_line() -> None:
    class Failing(io.RawIOBase):
        name = "events"

        def read1(self, _: int) -> bytes:
            raise OSError(5, "Input/output error")

    _, error = until_failure(read_batches(cast("BinaryIO", Failing())))
    assert error == "events: cannot be read (input/output error) at line 1; the lines before it were read"
