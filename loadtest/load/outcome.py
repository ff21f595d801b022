"""What a run is judged to be: the common summary, the two books, the assertions, the words and the exit status."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from dispatcher.summary import ENDS, Summary
from loadtest.load.assertions import PERCENTILES, RECOVERY
from loadtest.load.generator import LATE_S, MAX_WAITING
from loadtest.load.machine import machine
from loadtest.load.plan import Plan
from loadtest.load.recovery import Recovery, recovery
from loadtest.load.run import Seen
from loadtest.load.tally import Latency
from loadtest.result import LoadResult, Percentiles, Verdict

LATE_SHARE: Final = 0.05
LATE_AT_LEAST_S: Final = 1.0
"""A schedule that took so much longer than it is long was never played: the run says nothing about the engine."""

DELIVERED: Final = "accepted by the provider"
ACKNOWLEDGED: Final = "acknowledged"
"""What the latencies are called; each counts from the scheduled arrival."""


class Outcome(msgspec.Struct):
    """``failures`` are sentences, each a reason for exit status 1; ``remarks`` are worth saying and no failure."""

    result: LoadResult
    summary: Summary
    failures: list[str]
    remarks: list[str]
    generator: dict[str, Any]


def judge(plan: Plan, seen: Seen) -> Outcome:
    """Put together what was seen, and hold the assertions against it."""
    books = _books(plan, seen)
    summary = _summary(plan, seen, books)
    measured = _measured(plan, seen, books)
    recovered = _recovery(plan, seen)
    if recovered is not None:
        seconds = recovered.recovery_seconds
        measured[RECOVERY] = math.inf if seconds is None else seconds * 1000
    verdicts = [one.judge(measured) for one in plan.assertions]
    tally = seen.tally
    latencies = [(DELIVERED, tally.delivered)] if plan.measured else []
    latencies.append((ACKNOWLEDGED, tally.acknowledged))
    failures = _failures(plan, seen, summary, books, verdicts)
    result = LoadResult(
        started=seen.started.isoformat(timespec="seconds"),
        seconds=round(seen.seconds, 3),
        scenario=plan.scenario,
        intervals=tally.intervals(),
        latencies=[Percentiles(name=name, count=latency.count, points=latency.points()) for name, latency in latencies],
        summary=msgspec.to_builtins(summary),
        books=books,
        retries=dict(seen.sampler.metrics.retries),
        verdicts=verdicts,
        machine=machine(),
        interrupted=seen.interrupted,
        generator_note=_generator_note(seen),
        recovery=None if recovered is None else msgspec.to_builtins(recovered),
    )
    generator = {
        "scheduled": len(tally.scheduled) + tally.abandoned,
        "late_ms": {name: tally.lateness.at(at) for name, at in (("p50", 50.0), ("p99", 99.0), ("max", 100.0))},
        "scheduled_seconds": round(seen.played_s, 3),
        "pushed_back": tally.pushed_back,
        "abandoned": tally.abandoned,
        "unsent": tally.waiting,
        "unanswered": tally.unanswered,
        "connections": plan.connections,
        "reconnected": seen.reconnected,
        "kills": seen.kills,
    }
    return Outcome(result, summary, failures, _remarks(plan, seen, result), generator)


def _books(plan: Plan, seen: Seen) -> dict[str, int]:
    """The intake's answers, the ledger and the providers' book side by side."""
    tally, metrics = seen.tally, seen.sampler.metrics
    found = {"acknowledged": tally.accepted, "accepted": tally.accepted}
    if seen.books is not None and seen.comparison is not None:
        states = seen.books.states
        found |= {
            # More than was acknowledged where an acknowledgement was lost on its way.
            "accepted": seen.books.events,
            "ended": sum(states.get(state, 0) for state in ENDS),  # type: ignore[call-overload]
            "delivered": states.get("delivered", 0),
            "open": seen.books.open,
            "lost": seen.comparison.lost,
            "unknown": seen.books.unknown_attempts,
        }
    elif metrics.answers:
        found |= {
            "ended": sum(metrics.ended.values()),
            "delivered": metrics.ended["delivered"],
            "open": metrics.open,
        }
    if plan.measured:
        found |= {"providers_delivered": tally.shown, "duplicates": tally.shown_twice}
    return found


def _summary(plan: Plan, seen: Seen, books: Mapping[str, int]) -> Summary:
    tally, metrics, ledger = seen.tally, seen.sampler.metrics, seen.books
    broken = _broken(plan)
    ended: dict[str, int] = dict(metrics.ended) if ledger is None else dict(ledger.states)  # type: ignore[arg-type]
    if ledger is None and not metrics.answers:
        ended = {"delivered": tally.shown}
    attempts = metrics.attempts if ledger is None else ledger.attempts
    latency = tally.delivered if plan.measured else tally.acknowledged
    delivered = tally.shown if plan.measured else ended.get("delivered", 0)
    balanced = tally.unanswered == 0 and (ledger is None or (ledger.balanced and books["lost"] == 0))
    return Summary(
        events={
            "read": tally.sent + broken,
            "accepted": tally.accepted,
            "duplicate": tally.duplicate,
            "rejected": tally.rejected + broken,
        },
        alerts={**{state: ended.get(state, 0) for state in ENDS}, "open": books.get("open", 0)},
        by_channel={
            channel: {"attempts": attempts.get(channel, 0), "delivered": tally.shown_by[channel]}
            for channel in sorted(set(attempts) | set(tally.shown_by))
        },
        suppressed_by={} if ledger is None else ledger.suppressed_by,
        failed_by={} if ledger is None else ledger.failed_by,
        unknown_attempts=books.get("unknown", 0),
        held=ended.get("held", 0),
        balanced=balanced,
        seconds=round(seen.seconds, 3),
        alerts_per_second=round(delivered / seen.seconds, 1) if seen.seconds > 0 else 0.0,
        latency_ms={name: latency.at(PERCENTILES[name]) for name in ("p50", "p95", "p99", "max")},
        ledger={}
        if ledger is None
        else {
            "events": ledger.events,
            "alerts": {**{state: ledger.states.get(state, 0) for state in ENDS}, "open": ledger.open},  # type: ignore[call-overload]
            "unknown_attempts": ledger.unknown_attempts,
        },
    )


def _measured(plan: Plan, seen: Seen, books: Mapping[str, int]) -> dict[str, float]:
    """Every metric that an assertion may name and that was measured."""
    tally = seen.tally
    found: dict[str, float] = {
        name: float(books[name]) for name in ("lost", "duplicates", "unknown", "open") if name in books
    }
    found["rejected"] = float(seen.tally.rejected + _broken(plan))
    found["abandoned"] = float(tally.abandoned + tally.waiting)
    found["pushed_back"] = float(tally.pushed_back)
    if plan.measured:
        found["delivered"] = float(tally.shown)
        found |= _latencies("", tally.delivered)
    elif "delivered" in books:
        found["delivered"] = float(books["delivered"])
    found |= _latencies("ack_", tally.acknowledged)
    if seen.books is not None:
        found["failed"] = float(seen.books.states.get("failed", 0))
    elif seen.sampler.metrics.answers:
        found["failed"] = float(seen.sampler.metrics.ended["failed"])
    during = [one for one in tally.intervals() if one.at <= seen.played_s] or tally.intervals()
    if during:
        # Over the seconds in which events arrived: what came out afterwards was not a rate that was kept up.
        found["rate_in"] = sum(one.acknowledged for one in during) / len(during)
        found["rate_out"] = sum(one.delivered for one in during) / len(during)
    if seen.sampler.largest_mb:
        found["mb"] = seen.sampler.largest_mb
    return found


def _recovery(plan: Plan, seen: Seen) -> Recovery | None:
    overload = plan.load.overload
    if overload is None or not plan.measured:
        return None
    # Only of whole seconds in which something was scheduled.
    return recovery(overload, seen.tally.by_arrival[: math.ceil(seen.played_s)])


def _broken(plan: Plan) -> int:
    return 0 if plan.load.recording is None else plan.load.recording.broken


def _latencies(prefix: str, latency: Latency) -> dict[str, float]:
    return {f"{prefix}{name}": latency.at(at) for name, at in PERCENTILES.items()} if latency.count else {}


def _failures(plan: Plan, seen: Seen, summary: Summary, books: Mapping[str, int], verdicts: list[Verdict]) -> list[str]:
    found = [f"{one.text} does not hold: {one.measured}" for one in verdicts if not one.holds]
    if seen.trouble is not None:
        found.append(seen.trouble)
    if books.get("lost"):
        found.append(f"{books['lost']:,} acknowledged events are lost: no provider showed them")
    if books.get("duplicates", 0) > books.get("unknown", 0) and seen.books is not None:
        found.append(
            f"{books['duplicates']:,} messages were shown twice, but only {books['unknown']:,} attempts are unknown"
        )
    if not seen.interrupted and seen.trouble is None:
        if refused := seen.tally.refused_whole:
            found.append(f"the target refused {refused:,} events by the whole request: {seen.tally.refusal}")
        if seen.tally.unanswered:
            found.append(f"{seen.tally.unanswered:,} events were sent and never acknowledged")
        if books.get("open") and seen.books is not None:
            found.append(f"{books['open']:,} alerts were still open {plan.settle_s:g} seconds after the last arrival")
        late = seen.played_s - plan.load.seconds
        if late > max(LATE_AT_LEAST_S, LATE_SHARE * plan.load.seconds):
            found.append(
                f"the generator, not the engine, was the limit: a schedule of {plan.load.seconds:,.1f} seconds took it"
                f" {seen.played_s:,.1f}"
            )
    if not summary.balanced and not found and not seen.interrupted:
        found.append("the books do not balance")
    return found


def _generator_note(seen: Seen) -> str | None:
    late_ms = seen.tally.lateness.at(99.0)
    if late_ms <= LATE_S * 1000:
        return None
    return (
        f"the generator, not the engine, was the limit: at the 99th percentile it was {late_ms:,.0f} ms late by its own"
        f" doing, and latencies count that too ({LATE_S * 1000:.0f} ms would do); take a lower rate or more cores"
    )


def _remarks(plan: Plan, seen: Seen, result: LoadResult) -> list[str]:
    tally = seen.tally
    found = []
    if result.recovery is not None:
        seconds = result.recovery["recovery_seconds"]
        when = "not before the end of the run" if seconds is None else f"{seconds:g} seconds after the overload ended"
        found.append(
            f"new swipes were within {result.recovery['limit_ms']:,.0f} ms again {when} (p99 before it"
            f" {result.recovery['before_p99_ms']:,.1f} ms)"
        )
    if seen.interrupted:
        found.append(
            f"interrupted after {seen.played_s:,.1f} of {plan.load.seconds:,.1f} seconds; this is what was seen"
        )
    if result.generator_note is not None:
        found.append(result.generator_note)
    if tally.abandoned:
        found.append(
            f"{tally.abandoned:,} arrivals were abandoned: {MAX_WAITING:,} were waiting for the target to take more"
        )
    if tally.waiting and not seen.interrupted:
        found.append(f"{tally.waiting:,} arrivals were never sent: the target did not take them in time")
    if not plan.measured:
        found.append(
            "the provider side was not measured: latencies are to the acknowledgement; name simulated providers with"
            " --providers URL"
        )
        if not seen.sampler.metrics.answers:
            found.append(f"the engine's metrics did not answer at {plan.metrics_url}; name them with --metrics URL")
    if (
        plan.measured
        and seen.books is None
        and (unseen := sum(tally.acked[number] for number in tally.pending.values()))
    ):
        found.append(
            f"{unseen:,} acknowledged events were not seen at the providers; only the engine's ledger can say what"
            " became of them (the accounts need recipients: see --write-recipients)"
        )
    if seen.comparison is not None and not seen.comparison.exact:
        found.append("too many events were shown by no provider to look each of them up: the totals are compared")
    return found
