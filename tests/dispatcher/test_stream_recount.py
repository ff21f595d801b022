"""Whatever comes, in whatever pieces: the acknowledgements add up to an independent recount."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from dispatcher.events import Rejected
from dispatcher.intake.acks import ACK_REJECTIONS, WAITING_BATCHES, Acknowledgements
from dispatcher.intake.door import Taken
from tests.dispatcher.stream_kit import connected, line, new_world

EVENTS = st.integers(1, 6)
LINES = st.one_of(
    st.tuples(st.just("event"), EVENTS),
    st.tuples(st.just("changed"), EVENTS),
    st.tuples(st.sampled_from(["blank", "broken"]), st.just(0)),
)

Line = tuple[str, int]


def written(kind: str, number: int) -> bytes:
    match kind:
        case "event":
            return line(number)
        case "changed":
            return line(number, merchant="another")
        case "blank":
            return b" \r\n"
        case _:
            return b"{broken\n"


def recount(lines: list[Line]) -> list[str]:
    """What has to become of each line, one after the other: the product's words, found without its code."""
    seen: dict[int, str] = {}
    became = []
    for kind, number in lines:
        if kind in ("blank", "broken"):
            became.append({"blank": "nothing", "broken": "rejected"}[kind])
        elif number not in seen:
            seen[number] = kind
            became.append("accepted")
        else:
            became.append("duplicate" if seen[number] == kind else "rejected")
    return became


@given(lines=st.lists(LINES, max_size=40), batch=st.integers(1, 5), data=st.data())
def test_any_lines_in_any_pieces_are_acknowledged_as_recounted(
    lines: list[Line], batch: int, data: st.DataObject
) -> None:
    # Given lines of every kind, cut anywhere (the first one begins as NDJSON does)
    lines = [("event", 1), *lines]
    whole = b"".join(written(*one) for one in lines)
    whole = data.draw(st.sampled_from([whole, whole.rstrip(b"\r\n ")])) if lines[-1][0] != "blank" else whole
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    pauses = data.draw(st.lists(st.booleans(), min_size=len(pieces), max_size=len(pieces)))

    # When they are written with and without pauses, and the acknowledgements read
    acks, durable = trio.run(written_and_read, pieces, pauses, batch, clock=MockClock(autojump_threshold=0))

    # Then they rise, and each tells exactly what became of the lines since the one before
    became = recount(lines)
    numbers = [one["ack"] for one in acks]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == len(lines)
    for before, ack in zip([0, *numbers], acks, strict=False):
        part = became[before : ack["ack"]]
        assert [ack["accepted"], ack["duplicate"]] == [part.count("accepted"), part.count("duplicate")]
        refused = [before + 1 + at for at, word in enumerate(part) if word == "rejected"]
        assert [one["line"] for one in ack["rejected"]] == refused

    # And when it was read, every event up to its line was in the ledger
    for ack, ids in zip(acks, durable, strict=True):
        wanted = {f"e{number}" for kind, number in lines[: ack["ack"]] if kind in ("event", "changed")}
        assert wanted <= ids


async def written_and_read(
    pieces: list[bytes], pauses: list[bool], batch: int
) -> tuple[list[dict[str, Any]], list[set[str]]]:
    world = new_world()
    durable: list[set[str]] = []
    async with world.running(batch_events=batch, lane_capacity=64) as engine, connected(engine) as peer:

        async def write() -> None:
            for piece, pause in zip(pieces, pauses, strict=True):
                await peer.send(piece)
                await trio.sleep(1 if pause else 0)
            assert isinstance(peer.stream, trio.abc.HalfCloseableStream)
            await peer.stream.send_eof()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            while await peer.answer() is not None:
                durable.append({row[0] for row in world.ledger.store.connection.execute("SELECT id FROM events")})
    world.ledger.store.close()
    return peer.lines, durable


@pytest.mark.parametrize("seed", range(5))
async def test_going_on_behind_the_last_acknowledgement_loses_nothing_and_doubles_nothing(
    seed: int, autojump_clock: Any
) -> None:
    # Given two hundred events, and connections that break at any moment, also between commit and acknowledgement
    random = Random(seed)
    events = [line(number) for number in range(200)]
    world = new_world()
    done = accepted = duplicate = connections = 0
    async with world.running(batch_events=7) as engine:
        while done < len(events):
            connections += 1
            async with connected(engine) as peer:
                await peer.send(b"".join(events[done : done + random.randrange(1, 60)]) + b'{"id":"cut o')
                # When the peer goes away after some answers or none, and comes again behind the last one it has read
                for _ in range(random.randrange(0, 4)):
                    with trio.move_on_after(1):
                        await peer.answer()
            sums = peer.sums()
            done += sums["ack"]
            accepted += sums["accepted"]
            duplicate += sums["duplicate"]
    # Then every event is in the ledger once, and what had been accepted without its word was called duplicate
    rows = world.ledger.store.connection.execute("SELECT id, count(*) FROM events GROUP BY id").fetchall()
    world.ledger.store.close()
    assert sorted(rows) == sorted((f"e{number}", 1) for number in range(200))
    assert accepted + duplicate == 200
    assert duplicate > 0
    assert connections > 3


# ---- the bookkeeping alone


@given(
    sizes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, ACK_REJECTIONS)), max_size=WAITING_BATCHES),
    data=st.data(),
)
def test_batches_may_be_settled_in_any_order(sizes: list[tuple[int, int]], data: st.DataObject) -> None:
    # Given batches of accepted and refused lines, settled in any order and told at any moment
    acks = Acknowledgements()
    batches = []
    upto = 0
    for accepted, refused in sizes:
        numbers = range(upto + accepted + 1, upto + accepted + refused + 1)
        upto += accepted + refused
        taken = Taken(accepted + refused, accepted, 0, [Rejected(number, None, None, "x") for number in numbers])
        batches.append((acks.expect(upto), taken))
    settled: set[int] = set()
    told: list[int] = []
    for at in data.draw(st.permutations(range(len(batches)))):
        acks.settle(*batches[at])
        settled.add(at)
        if data.draw(st.booleans()):
            while (text := acks.take()) is not None:
                told.append(acks.line)
                assert text.endswith(b"\n")
                assert text.count(b'"line"') <= ACK_REJECTIONS
            # Then what is told is exactly what has no unsettled batch before it
            first_open = next((n for n in range(len(batches)) if n not in settled), len(batches))
            assert acks.line == (batches[first_open - 1][0].upto if first_open else 0)
    assert told == sorted(set(told))
