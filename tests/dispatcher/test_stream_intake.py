"""Stream intake in virtual time: what is acknowledged, to whom, when, and how a connection ends."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio
from trio.testing import lockstep_stream_pair, memory_stream_pair

from dispatcher.engine import Engine
from dispatcher.errors import LedgerFailed, LedgerUnavailable
from dispatcher.intake.acks import ACK_REJECTIONS
from dispatcher.intake.stream import (
    ACK_WAIT_S,
    OPENING_S,
    TOKEN_LINE_BYTES,
    WRONG_TOKEN_S,
    Connection,
    Ending,
    take_stream,
)
from dispatcher.model.private import Secret
from tests.dispatcher.stream_kit import IDLE_S, Peer, connected, line, new_world
from tests.dispatcher.test_engine import World

TOKEN = Secret("core-token-4711")


@pytest.fixture
def world() -> Iterator[World]:
    made = new_world()
    yield made
    made.ledger.store.close()


async def known(world: World, *numbers: int) -> list[bool]:
    return [await world.ledger.explain(f"e{number}") is not None for number in numbers]


# ---- acknowledgements


async def test_a_lone_line_is_acknowledged_at_once_and_durable(world: World, autojump_clock: Any) -> None:
    async with world.running() as engine, connected(engine) as peer:
        started = trio.current_time()
        await peer.send(line(1))
        assert await peer.answer() == {"ack": 1, "accepted": 1, "duplicate": 0, "rejected": []}
        assert trio.current_time() == started
        assert await known(world, 1) == [True]


async def test_acknowledgements_are_cumulative_and_their_sums_exact(world: World, autojump_clock: Any) -> None:
    # Given a connection on which lines come alone, together, twice, broken, blank, and in pieces
    async with world.running() as engine, connected(engine) as peer:
        await peer.send(line(1))
        await peer.acknowledged(1)
        await peer.send(line(2) + line(1) + b"\n\r\n{broken\n" + line(3, amount=1.5) + line(4)[:20])
        await peer.acknowledged(7)
        await peer.send(line(4)[20:])
        await peer.acknowledged(8)
        # Then each acknowledgement tells what became of the lines since the one before
        assert peer.lines[0] == {"ack": 1, "accepted": 1, "duplicate": 0, "rejected": []}
        assert peer.lines[-1] == {"ack": 8, "accepted": 1, "duplicate": 0, "rejected": []}
        refused = [one for each in peer.lines for one in each["rejected"]]
        assert [(one["line"], one["id"]) for one in refused] == [(6, None), (7, "e3")]
        assert "amount" in refused[1]["error"]
        sums = {"ack": 8, "accepted": 3, "duplicate": 1, "rejected": [6, 7]}
        assert await peer.finish() == sums


async def test_the_last_line_needs_no_newline_and_a_half_closed_peer_hears_everything(
    world: World, autojump_clock: Any
) -> None:
    async with world.running() as engine, connected(engine) as peer:
        await peer.send(line(1) + line(2).rstrip())
        assert await peer.finish() == {"ack": 2, "accepted": 2, "duplicate": 0, "rejected": []}


async def test_a_line_over_64_kib_is_refused_and_the_next_one_is_taken(world: World, autojump_clock: Any) -> None:
    async with world.running() as engine, connected(engine) as peer:
        await peer.send(line(1, merchant="x" * 70_000) + line(2))
        assert await peer.finish() == {"ack": 2, "accepted": 1, "duplicate": 0, "rejected": [1]}
        assert "longer than 65,536 bytes" in str(peer.lines)


async def test_many_refused_lines_are_told_in_parts_that_add_up(world: World, autojump_clock: Any) -> None:
    # Given far more broken lines than one acknowledgement lists
    count = 3 * ACK_REJECTIONS + 7
    async with world.running(batch_events=4096) as engine, connected(engine) as peer:
        await peer.send(b"{broken\n" * count + line(1))
        sums = await peer.finish()
    assert sums == {"ack": count + 1, "accepted": 1, "duplicate": 0, "rejected": list(range(1, count + 1))}
    assert max(len(one["rejected"]) for one in peer.lines) <= ACK_REJECTIONS


async def test_the_first_of_two_lines_with_one_id_stands_even_in_different_batches(
    world: World, autojump_clock: Any
) -> None:
    async with world.running(batch_events=1) as engine, connected(engine) as peer:
        await peer.send(b"".join(line(n) + line(n, amount=1) for n in range(20)))
        sums = await peer.finish()
    assert sums == {"ack": 40, "accepted": 20, "duplicate": 0, "rejected": list(range(2, 41, 2))}


async def test_recorded_events_get_the_present_time(world: World, autojump_clock: Any) -> None:
    async with world.running() as engine, connected(engine, restamped=True) as peer:
        await peer.send(line(1, time="2013-11-11T00:00:00Z"))
        await peer.acknowledged(1)
        story = await world.ledger.explain("e1")
        assert story is not None
        assert [alert.reason for alert in story.alerts] == ["no-recipient"]  # and not: expired


# ---- backpressure


async def test_full_lanes_slow_the_reader_and_lose_nothing(world: World, autojump_clock: Any) -> None:
    # Given a lane of four places, one request in flight, and a provider that takes ten seconds an alert
    world.seconds = 10.0
    await world.tell()
    config = {"lane_capacity": 4, "batch_events": 4, "in_flight": 1}
    async with world.running(**config) as engine, connected(engine, lockstep_stream_pair) as peer:
        sent = 0

        async def write() -> None:
            nonlocal sent
            for number in range(60):
                await peer.send(line(number))
                sent += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            nursery.start_soon(peer.acknowledged, 60)
            # When five seconds have passed, then only so much was read as there is room for
            await trio.sleep(5)
            assert 5 <= sent <= 20
            assert engine.full
        # And all of it comes through, in the provider's time
        assert trio.current_time() > 300
        assert peer.sums() == {"ack": 60, "accepted": 60, "duplicate": 0, "rejected": []}


async def test_a_peer_that_reads_no_acknowledgements_is_read_no_further_and_closed(
    world: World, autojump_clock: Any
) -> None:
    # Given a connection whose every byte waits to be read, and a peer that only writes
    sent = 0
    async with world.running() as engine, connected(engine, lockstep_stream_pair) as peer:
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await peer.send(line(sent))
                sent += 1
        # Then it was stopped after a bounded number of batches, and cut off after a minute without progress
        assert 2 <= sent <= 40
        assert trio.current_time() == pytest.approx(ACK_WAIT_S, abs=1)
        # And what went on before that is in the ledger, acknowledged or not
        assert await known(world, *range(sent)) == [True] * (sent - 1) + [False]


async def test_a_slow_reader_gets_fewer_and_larger_acknowledgements(world: World, autojump_clock: Any) -> None:
    async with world.running() as engine, connected(engine, lockstep_stream_pair) as peer:

        async def read_slowly() -> None:
            while peer.sums()["ack"] < 100:
                await trio.sleep(ACK_WAIT_S / 2)
                await peer.answer()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_slowly)
            for number in range(100):
                await peer.send(line(number))
        assert peer.sums() == {"ack": 100, "accepted": 100, "duplicate": 0, "rejected": []}
        assert len(peer.lines) < 50


# ---- ends


async def test_an_idle_connection_is_closed_and_told_why(world: World, autojump_clock: Any) -> None:
    # Given a connection that was used once, kept alive by a blank line, and left in mid-line
    async with world.running() as engine, connected(engine) as peer:
        await peer.send(line(1))
        await peer.acknowledged(1)
        await trio.sleep(IDLE_S - 1)
        await peer.send(b"\n")
        await peer.acknowledged(2)
        await trio.sleep(IDLE_S - 1)
        await peer.send(line(3)[:-9])
        started = trio.current_time()
        # When nothing more comes
        (last,) = await peer.rest()
    # Then it ends after the time that is configured, with the reason and the last line that counts
    assert last["ack"] == 2
    assert "nothing came for 30 seconds" in last["error"]
    assert IDLE_S <= trio.current_time() - started <= IDLE_S + 3
    assert await known(world, 1, 3) == [True, False]


async def test_a_connection_that_waits_for_its_acknowledgement_is_not_idle(world: World, autojump_clock: Any) -> None:
    # Given a ledger that takes three times as long as a connection may be idle
    async with world.running() as engine:
        slowly_admitting(engine, 3 * IDLE_S)
        async with connected(engine) as peer:
            await peer.send(line(1))
            await peer.acknowledged(1)
            assert trio.current_time() >= 3 * IDLE_S
            # And from then on it is
            assert "nothing came" in (await peer.rest())[0]["error"]


async def test_without_a_limit_a_connection_may_be_idle_for_ever(world: World, autojump_clock: Any) -> None:
    async with world.running() as engine, connected(engine, idle_seconds=None) as peer:
        await trio.sleep(3 * IDLE_S)
        await peer.send(line(1))
        assert (await peer.acknowledged(1))["accepted"] == 1


def slowly_admitting(engine: Engine, seconds: float) -> None:
    admit = engine.admit

    async def slowly(batch: Any) -> Any:
        await trio.sleep(seconds)
        return await admit(batch)

    engine.admit = slowly  # type: ignore[method-assign]


@pytest.mark.parametrize("error", [LedgerUnavailable("disk is full"), LedgerFailed("fsync failed")])
async def test_a_ledger_that_cannot_write_is_told_with_the_last_line_that_counts(
    world: World, error: Exception, autojump_clock: Any
) -> None:
    # Given a ledger that refuses one batch and takes the one that follows it
    async with world.running(batch_events=2) as engine:
        admit = engine.admit

        async def unlucky(batch: Any) -> Any:
            if batch[0].event.id == "e2":
                await trio.sleep(1)
                raise error
            return await admit(batch)

        engine.admit = unlucky  # type: ignore[method-assign]
        async with connected(engine) as peer:
            # When six lines come in three batches
            await peer.send(b"".join(line(number) for number in range(6)))
            answers = await peer.rest()
    # Then nothing behind the refused batch is acknowledged, durable or not, and the connection ends
    assert answers == [
        {"ack": 2, "accepted": 2, "duplicate": 0, "rejected": []},
        {"error": str(error), "ack": 2},
    ]
    assert await known(world, 0, 1, 2, 3, 4, 5) == [True, True, False, False, True, True]


async def test_a_connection_that_breaks_in_mid_line_raises_nothing(world: World, autojump_clock: Any) -> None:
    async with world.running() as engine:
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: take_stream(engine, ours, idle_seconds=None))
            await theirs.send_all(line(1) + line(2)[:9])
            await Peer(theirs).answer()
            # When it is gone, and was not ended
            await ours.aclose()
        assert await known(world, 1, 2) == [True, False]


async def test_told_to_stop_it_acknowledges_what_is_under_way_and_reads_no_further(
    world: World, autojump_clock: Any
) -> None:
    async with world.running() as engine:
        slowly_admitting(engine, 2.0)
        ours, theirs = memory_stream_pair()
        connection = Connection(engine, ours, idle_seconds=None)
        endings = []
        peer = Peer(theirs)

        async def run() -> None:
            endings.append(await connection.run())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await peer.send(line(1))
            await trio.sleep(1)
            connection.end(Ending.STOPPED, "stopping")
            await peer.send(line(2))
            answers = await peer.rest()
            await theirs.aclose()
    assert answers == [
        {"ack": 1, "accepted": 1, "duplicate": 0, "rejected": []},
        {"error": "stopping", "ack": 1},
    ]
    assert endings == [Ending.STOPPED]
    assert await known(world, 1, 2) == [True, False]


# ---- the opening


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"POST /v1/events HTTP/1.1\r\nHost: x\r\n\r\n", "no HTTP: POST /v1/events goes to the address of intake.http"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "without TLS"),
        (b"\x1f\x8b\x08\x00", "no gzip"),
        (b'[{"id":"1"}]', "no JSON array"),
        (b"\n \r\n  id,account\n", "does not begin with a brace"),
        (b"\xef\xbb\xbf\xff", "does not begin with a brace"),
    ],
)
@pytest.mark.parametrize("token", [None, TOKEN])
async def test_what_is_no_ndjson_gets_one_clear_line(
    world: World, start: bytes, said: str, token: Secret | None, autojump_clock: Any
) -> None:
    async with world.running() as engine, connected(engine, token=token) as peer:
        await peer.send(start)
        *_, last = await peer.rest()
    assert set(last) == {"error", "ack"}
    assert token is not None or said in last["error"]
    assert await known(world, 1) == [False]


async def test_a_byte_order_mark_and_blank_lines_may_come_first(world: World, autojump_clock: Any) -> None:
    async with world.running() as engine, connected(engine) as peer:
        for piece in (b"\xef", b"\xbb", b"\xbf", b"\r\n", b" \n", line(1)):
            await peer.send(piece)
            await trio.sleep(1)
        assert await peer.finish() == {"ack": 3, "accepted": 1, "duplicate": 0, "rejected": []}


async def test_the_right_token_opens_and_counts_as_no_line(world: World, autojump_clock: Any) -> None:
    async with world.running() as engine, connected(engine, token=TOKEN) as peer:
        await peer.send(json.dumps({"token": TOKEN.reveal()}).encode() + b"\r\n" + line(1)[:9])
        await trio.sleep(OPENING_S * 2)  # from here on it is a connection like any other
        await peer.send(line(1)[9:])
        assert await peer.finish() == {"ack": 1, "accepted": 1, "duplicate": 0, "rejected": []}


@pytest.mark.parametrize(
    "first",
    [
        b'{"token":"core-token-4712"}\n',
        b'{"token":""}\n',
        b'{"token":4711}\n',
        b'{"token":"\xff"}\n',
        b'{"token":"\\ud800"}\n',
        b"{}\n",
        b"\n",
        line(1),
        b"{" + b"x" * 2 * TOKEN_LINE_BYTES,
    ],
)
async def test_without_the_right_token_nothing_is_read_and_the_same_time_passes(
    world: World, first: bytes, autojump_clock: Any
) -> None:
    async with world.running() as engine, connected(engine, token=TOKEN) as peer:
        await peer.send(first + line(2))
        answer = await peer.answer()
        assert trio.current_time() == pytest.approx(WRONG_TOKEN_S)
        assert await peer.rest() == []
    assert answer is not None
    assert answer["ack"] == 0
    assert 'the first line is not {"token":"…"}' in answer["error"]
    assert "4711" not in answer["error"]
    assert await known(world, 1, 2) == [False, False]


async def test_a_token_that_does_not_come_is_not_waited_for(world: World, autojump_clock: Any) -> None:
    async with world.running() as engine, connected(engine, token=TOKEN) as peer:
        await peer.send(b'{"token":')
        (answer,) = await peer.rest()
    assert "did not come within 10 seconds" in answer["error"]


async def test_a_peer_that_goes_before_its_token_raises_nothing(world: World, autojump_clock: Any) -> None:
    async with world.running() as engine:
        for end in (lambda stream: stream.aclose(), lambda stream: stream.send_eof()):
            await gone_after(engine, b'{"tok', end)


async def gone_after(engine: Engine, start: bytes, end: Callable[[Any], Awaitable[None]]) -> None:
    async with connected(engine, token=TOKEN) as peer:
        await peer.send(start)
        await end(peer.stream)
