"""What a load test saw, as plain data: written by the run, read by the display, the summary and the report."""

from __future__ import annotations

from typing import Any

import msgspec


class Interval(msgspec.Struct, kw_only=True):
    """One second of a run. ``at`` is its end in seconds from the start; counts are of this interval alone.

    ``scheduled`` arrivals were due, ``acknowledged`` events became durable, ``delivered`` alerts were accepted by a
    provider, ``pushed_back`` arrivals met a 429 or a reader that was slowed. ``open`` is how many alerts had not ended
    at its end. Latencies are in ms from the scheduled arrival to the provider's acceptance, of the arrivals that were
    scheduled in this interval (while the run lasts: of those accepted in it); None when there was none. So an overload
    shows in the seconds in which it came, and not in those in which its backlog was worked off.
    ``retries`` counts attempts that were not accepted, by cause. ``engine_cores`` is processor time over wall time of
    all engine processes, ``engine_mb`` the resident memory of the largest one.
    """

    at: float
    scheduled: int = 0
    acknowledged: int = 0
    delivered: int = 0
    pushed_back: int = 0
    open: int = 0
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    retries: dict[str, int] = {}
    engine_cores: float | None = None
    engine_mb: float | None = None


class Percentiles(msgspec.Struct, kw_only=True):
    """One latency as HdrHistogram's percentile plot needs it: ``points`` are (percentile 0–100, ms), rising."""

    name: str
    count: int
    points: list[tuple[float, float]]


class Verdict(msgspec.Struct, kw_only=True):
    """One ``--assert``: its text, what was measured (as shown), and whether it holds."""

    text: str
    measured: str
    holds: bool


class LoadResult(msgspec.Struct, kw_only=True):
    """A whole run.

    ``scenario`` says what was asked for (profile, rate, duration, accounts, speedup, seed, faults, target …), name to
    shown text. ``summary`` is the common summary of ``send``, ``demo`` and ``loadtest`` as plain data.
    ``books`` are the two independent books side by side (``accepted``, ``ended``, ``open``, ``lost``,
    ``duplicates``, ``unknown`` …). ``generator_note`` is set when the generator, not the engine, was the limit.
    ``recovery`` is there when the rate had an overload in it (`loadtest.load.recovery.Recovery` as plain data).
    """

    started: str
    seconds: float
    scenario: dict[str, str]
    intervals: list[Interval]
    latencies: list[Percentiles]
    summary: dict[str, Any]
    books: dict[str, int]
    retries: dict[str, int]
    verdicts: list[Verdict]
    machine: dict[str, str]
    interrupted: bool = False
    generator_note: str | None = None
    recovery: dict[str, float | None] | None = None
