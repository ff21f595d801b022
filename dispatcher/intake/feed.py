"""Feeding a file or stdin: read in a thread, a batch a hop, several batches in the ledger at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

import trio

from dispatcher.engine import Engine
from dispatcher.events import Rejected
from dispatcher.intake.door import take
from dispatcher.intake.ndjson import read_batches

Batch = list[tuple[int, bytes]]


async def feed(engine: Engine, stream: BinaryIO, *, restamped: bool, on_rejected: Callable[[Rejected], None]) -> None:
    """Take every line of ``stream`` in. Ends when all of them are durable or refused.

    Raises `InputError` when the input breaks off (what came before it was taken), and what `Engine.admit` raises.
    """
    batches = read_batches(stream, max_lines=engine.config.batch_events)

    async def take_one(batch: Batch) -> None:
        try:
            taken = await take(engine, batch, restamped=restamped)
            for one in taken.rejected:
                on_rejected(one)
        finally:
            engine.release(len(batch))

    async with trio.open_nursery() as nursery:
        while True:
            # abandon_on_cancel: a read from a terminal or a pipe may never return; nothing is lost by leaving it.
            batch = await trio.to_thread.run_sync(next, batches, None, abandon_on_cancel=True)
            if batch is None:
                return
            await engine.reserve(len(batch), None if restamped else batch[-1][1])
            nursery.start_soon(take_one, batch)
