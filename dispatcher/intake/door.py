"""The door: numbered lines in, decoded and admitted by the batch. Files, stdin and HTTP all come through here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
import trio

from dispatcher.engine import Engine
from dispatcher.events import Rejected, decode_lines, restamp

CONFLICT = "field id: was accepted before with other content; the first stands"


class Taken(msgspec.Struct):
    """What became of some lines; read = accepted + duplicate + len(rejected)."""

    read: int = 0
    accepted: int = 0
    duplicate: int = 0
    rejected: list[Rejected] = []


async def take(engine: Engine, lines: Sequence[tuple[int, bytes]], *, restamped: bool = False) -> Taken:
    """Decode and admit a batch of (line number, line); what it reports as accepted is durable.

    ``restamped`` gives each event the present time. Call it between `Engine.reserve` and `release`. Raises what
    `Engine.admit` raises; then none of these lines was accepted. A checkpoint in any case.
    """
    decoded = decode_lines(lines)
    batch, rejected = decoded.accepted, decoded.rejected
    accepted = duplicate = 0
    if batch:
        if restamped:
            batch = restamp(batch, datetime.fromtimestamp(engine.now_ms() / 1000, UTC))
        admission = await engine.admit(batch)
        accepted, duplicate = admission.accepted, len(admission.duplicates)
        if admission.conflicts:
            for position in admission.conflicts:
                rejected.append(Rejected(decoded.numbers[position], batch[position].event.id, "id", CONFLICT))
            rejected.sort(key=lambda one: one.line)
    else:
        await trio.lowlevel.checkpoint()
    engine.meter.read(len(lines))
    engine.meter.rejected(len(rejected))
    return Taken(len(lines), accepted, duplicate, rejected)
