"""Dealing blocks of lines to workers, and what becomes of them when one dies."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any, BinaryIO, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

from dispatcher.errors import InputError
from dispatcher.events import Rejected
from dispatcher.fleet.dealer import READ_AHEAD_BLOCKS, WINDOW_BLOCKS, Dealer, Link
from dispatcher.intake.blocks import BLOCK_BYTES, Block, BlockCutter, read_blocks
from dispatcher.intake.ndjson import LineSplitter
from dispatcher.strictjson import MAX_LINE_BYTES

# ---- blocks -------------------------------------------------------------------------------------------------------

LINES = st.lists(
    st.one_of(st.binary(max_size=40), st.integers(0, 2 * MAX_LINE_BYTES).map(lambda n: b"x" * n)), max_size=12
).map(lambda lines: [line.replace(b"\n", b"") for line in lines])


@given(LINES, st.booleans(), st.lists(st.integers(1, 70_000), min_size=1, max_size=5))
def test_blocks_hold_the_same_lines_under_the_same_numbers(lines: list[bytes], ends: bool, sizes: list[int]) -> None:
    # Given any text, read in chunks of any size
    text = b"\n".join(lines) + (b"\n" if ends and lines else b"")
    cutter = BlockCutter()
    blocks: list[Block] = []
    start = turn = 0
    while start < len(text):
        size = sizes[turn % len(sizes)]
        blocks += cutter.feed(text[start : start + size])
        start, turn = start + size, turn + 1
    blocks += cutter.finish()
    # Then the blocks follow each other without a gap
    first = 1
    for block in blocks:
        assert (block.first, block.lines) == (first, block.text.count(b"\n"))
        assert block.text.endswith(b"\n")
        assert len(block.text) <= BLOCK_BYTES or block.lines == 1
        first += block.lines
    assert cutter.line == first - 1
    # And whoever takes them apart finds what it would have found in the text
    apart, whole = LineSplitter(), LineSplitter()
    numbered = [pair for block in blocks for pair in apart.feed(block.text)]
    assert numbered == whole.feed(text) + whole.finish()


def test_what_follows_some_lines_of_a_block() -> None:
    block = Block(11, 3, b"a\n\nc\n")
    assert block.after(0) == block
    assert block.after(2) == Block(13, 1, b"c\n")


class Breaks(io.RawIOBase):
    """Two lines and a half, then the disk fails."""

    name = "events.ndjson"

    def __init__(self) -> None:
        self.chunks = [b"one\ntwo\n", b"thr"]

    def read1(self, _size: int) -> bytes:
        if not self.chunks:
            raise OSError(5, "Input/output error")
        return self.chunks.pop(0)


def test_a_stream_that_breaks_off_says_where_after_what_came_before() -> None:
    blocks = read_blocks(cast(BinaryIO, Breaks()))
    assert next(blocks) == [Block(1, 2, b"one\ntwo\n")]
    with pytest.raises(InputError) as error:
        next(blocks)
    assert str(error.value) == (
        "events.ndjson: cannot be read (input/output error) at line 3; the lines before it were read"
    )


# ---- one worker's bookkeeping --------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.lists(st.integers(0, 9), max_size=12))
def test_every_line_is_acknowledged_or_left_exactly_once(sizes: list[int], steps: list[int]) -> None:
    # Given blocks that were dealt to a worker, not in the file's order, and what it acknowledged before it died
    link, blocks, first = Link(), [], 1
    for size in sizes:
        blocks.append(Block(first, size, b"".join(b"%d\n" % n for n in range(first, first + size))))
        first += size + 7
    order = [number for block in reversed(blocks) for number in range(block.first, block.first + block.lines)]
    for block in reversed(blocks):
        link.sent(block)
    done = 0
    for step in steps:
        step = min(step, len(order) - done)
        for offset in range(step):
            assert link.file_line(done + offset + 1) == order[done + offset]
        assert link.acknowledged(done + step) == step
        done += step
    # Then what is left are the other lines, with their own numbers
    left = link.left()
    numbers = [number for block in left for number in range(block.first, block.first + block.lines)]
    assert numbers == order[done:]
    assert b"".join(block.text for block in left) == b"".join(b"%d\n" % number for number in numbers)
    assert link.left() == []


def test_an_acknowledgement_of_a_line_that_was_never_sent_is_a_defect() -> None:
    link = Link()
    link.sent(Block(1, 3, b"a\nb\nc\n"))
    link.acknowledged(2)
    for line in (1, 4):
        with pytest.raises(ValueError, match=str(line)):
            link.acknowledged(line)
    with pytest.raises(ValueError, match="4"):
        link.file_line(4)


# ---- dealing ------------------------------------------------------------------------------------------------------


class Taker:
    """A worker's end of a connection, played by the test."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.splitter = LineSplitter()
        self.lines: list[bytes] = []

    async def take(self, at_least: int = 1) -> None:
        """Read until so many lines are here."""
        while len(self.lines) < at_least:
            chunk = await self.stream.receive_some(1_000_000)
            assert chunk, "the supervisor closed the connection"
            self.lines += [line for _, line in self.splitter.feed(chunk)]

    async def acknowledge(self, line: int, accepted: int, duplicate: int = 0, *rejected: dict[str, Any]) -> None:
        ack = {"ack": line, "accepted": accepted, "duplicate": duplicate, "rejected": list(rejected)}
        await self.stream.send_all(json.dumps(ack).encode() + b"\n")

    async def die(self) -> None:
        await self.stream.aclose()


class Table:
    def __init__(self, nursery: trio.Nursery, stream: BinaryIO) -> None:
        self.refused: list[Rejected] = []
        self.dealer = Dealer(stream, self.refused.append)
        self._nursery = nursery
        nursery.start_soon(self.dealer.read)

    def seat(self) -> Taker:
        ours, theirs = memory_stream_pair()
        self._nursery.start_soon(self.dealer.deal, ours)
        return Taker(theirs)


@pytest.fixture
def text() -> Callable[[int], BinaryIO]:
    return lambda count: io.BytesIO(b"".join(b'{"id":"%06d"}\n' % number for number in range(1, count + 1)))


async def test_lines_are_settled_when_they_are_acknowledged(text: Callable[[int], BinaryIO]) -> None:
    async with trio.open_nursery() as nursery:
        table = Table(nursery, text(5))
        taker = table.seat()
        await taker.take(5)
        # When the first are acknowledged, one of them refused, and then the others
        broken = {"line": 2, "id": "x", "error": "field amount: is missing"}
        await taker.acknowledge(3, 1, 1, broken)
        with trio.move_on_after(0.05) as waiting:
            await table.dealer.settled()
        assert waiting.cancelled_caught
        await taker.acknowledge(5, 1, 0, {"line": 5, "id": None, "error": "is not JSON"})
        await table.dealer.settled()
        # Then everything is counted once, and refused lines are named as they would be by one process
        assert table.dealer.events == {"read": 5, "accepted": 2, "duplicate": 1, "rejected": 2}
        assert table.refused == [
            Rejected(2, "x", "amount", "field amount: is missing"),
            Rejected(5, None, None, "is not JSON"),
        ]
        nursery.cancel_scope.cancel()


async def test_an_empty_input_is_settled_at_once() -> None:
    async with trio.open_nursery() as nursery:
        table = Table(nursery, io.BytesIO(b""))
        await table.dealer.settled()
        assert not table.dealer.events
        nursery.cancel_scope.cancel()


async def test_what_a_dead_worker_did_not_acknowledge_goes_to_another(text: Callable[[int], BinaryIO]) -> None:
    async with trio.open_nursery() as nursery:
        # Given a worker that has taken ten lines and acknowledged three, and one that came later
        table = Table(nursery, text(10))
        first = table.seat()
        await first.take(10)
        await first.acknowledge(3, 3)
        second = table.seat()
        await wait_all_tasks_blocked()
        # When the first dies, the acknowledgement of its fourth still unread
        await first.acknowledge(4, 1)
        await first.die()
        # Then the second gets the six others, which are numbered anew for it
        await second.take(6)
        assert second.lines == [b'{"id":"%06d"}' % number for number in range(5, 11)]
        await second.acknowledge(6, 4, 1, {"line": 2, "id": None, "error": "is not JSON"})
        await table.dealer.settled()
        # And in the file it was another line that was refused
        assert [one.line for one in table.refused] == [6]
        assert table.dealer.events == {"read": 10, "accepted": 8, "duplicate": 1, "rejected": 1}
        nursery.cancel_scope.cancel()


async def test_who_does_not_acknowledge_gets_no_more_and_holds_nobody_up(text: Callable[[int], BinaryIO]) -> None:
    async with trio.open_nursery() as nursery:
        # Given a worker that takes everything and acknowledges nothing, and one that does both
        lines = 100_000
        table = Table(nursery, text(lines))
        idle = table.seat()
        swallowed = 0

        async def swallow() -> None:
            nonlocal swallowed
            while True:
                swallowed += (await idle.stream.receive_some(1_000_000)).count(b"\n")

        nursery.start_soon(swallow)
        await wait_all_tasks_blocked(0.05)
        # Then the first has its window, and nothing more is read from the file than a little ahead
        in_block = BLOCK_BYTES // 16
        assert swallowed == pytest.approx(WINDOW_BLOCKS * in_block, rel=0.05)
        held = sum(block.lines for block in table.dealer._waiting)
        assert held <= (READ_AHEAD_BLOCKS + 4) * in_block
        busy = table.seat()
        taken = 0
        while taken < lines - swallowed:
            await busy.take()
            taken += len(busy.lines)
            await busy.acknowledge(taken, len(busy.lines))
            busy.lines = []
        await wait_all_tasks_blocked()
        # And the other has done all the rest
        assert table.dealer.events["accepted"] == lines - swallowed
        nursery.cancel_scope.cancel()


async def test_an_input_that_breaks_off_is_told_after_what_came_before() -> None:
    async with trio.open_nursery() as nursery:
        table = Table(nursery, cast(BinaryIO, Breaks()))
        taker = table.seat()
        await taker.take(2)
        with trio.move_on_after(0.05) as waiting:
            await table.dealer.settled()
        assert waiting.cancelled_caught
        await taker.acknowledge(2, 2)
        with pytest.raises(InputError):
            await table.dealer.settled()
        nursery.cancel_scope.cancel()


async def test_a_connection_that_ends_with_an_error_is_dealt_again(
    text: Callable[[int], BinaryIO], autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        table = Table(nursery, text(4))
        first = table.seat()
        await first.take(4)
        await first.stream.send_all(b'{"error":"ledger: the disk is full","ack":0}\n')
        await first.die()
        second = table.seat()
        await second.take(4)
        await second.acknowledge(4, 4)
        await table.dealer.settled()
        assert table.dealer.events == {"read": 4, "accepted": 4}
        nursery.cancel_scope.cancel()
