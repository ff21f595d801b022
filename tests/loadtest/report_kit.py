"""A load test's result to draw: ten minutes with a spike, a provider that falls ill and an overload, from a seed."""

from __future__ import annotations

import math
from random import Random
from typing import Any

from hdrh.histogram import HdrHistogram

from loadtest.result import Interval, LoadResult, Percentiles, Verdict

CAUSES = ("throttle", "timeout", "unknown", "http502", "token expired", "connection refused")

PERCENTILES = (0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99, 99.999, 100.0)


def intervals(seconds: int = 600, seed: int = 1) -> list[Interval]:
    """One a second. At 1/6 of the run a spike of 4×, at 2/5 a provider that is ill, from 2/3 to 5/6 three times what
    the engine can do: it pushes back, delivers what it can, and catches up."""
    random, made, waiting = Random(seed), [], 0.0
    capacity = 2_600.0
    for second in range(seconds):
        share = second / seconds
        spike = 2_400 * math.exp(-(((share - 1 / 6) * 60) ** 2))
        ill = math.exp(-(((share - 0.42) * 40) ** 2))
        overload = 2 / 3 <= share < 5 / 6
        base = 5_000 if overload else 900 + 120 * math.sin(share * 9)
        scheduled = max(0, round(random.gauss(base + spike, math.sqrt(base))))
        room = capacity + 0.3 * (2_400 - waiting)
        pushed = round(max(0.0, scheduled - room * random.uniform(0.96, 1.0))) if waiting > 1_200 else 0
        taken = scheduled - pushed
        waiting += taken
        sent = min(waiting, capacity * (1 - 0.55 * ill) * random.uniform(0.97, 1.0))
        waiting -= sent
        queue_ms = 1000 * waiting / capacity
        p50 = 23 + queue_ms * 0.9 + 60 * ill + random.uniform(0, 1.5)
        p99 = p50 * 1.4 + 9 + 900 * ill + random.expovariate(1 / 6)
        causes = {
            "throttle": round(random.uniform(0, 3) + 260 * ill),
            "timeout": round(90 * ill * random.random()),
            "unknown": 1 if random.random() < 0.03 + 0.3 * ill else 0,
            "http502": round(150 * ill * random.random()),
            "token expired": 4 if second == seconds // 2 else 0,
            "connection refused": 2 if random.random() < 0.01 else 0,
        }
        made.append(
            Interval(
                at=float(second + 1),
                scheduled=scheduled,
                acknowledged=taken,
                delivered=round(sent),
                pushed_back=pushed,
                open=round(waiting) + round(sent * 0.03),
                p50_ms=round(p50, 3),
                p90_ms=round(p50 * 1.18 + 250 * ill + 3, 3),
                p99_ms=round(p99, 3),
                max_ms=round(p99 * 1.3 + random.expovariate(1 / 30), 3),
                retries={cause: count for cause, count in causes.items() if count},
                engine_cores=round(min(2.0, 0.12 + sent / 1_700) + random.uniform(0, 0.05), 3),
                engine_mb=round(96 + 40 * share + waiting / 400 + random.uniform(0, 2), 1),
            )
        )
    return made


def percentiles(name: str, made: list[Interval], share: float) -> Percentiles:
    """A latency that is ``share`` of the intervals' own, counted by HdrHistogram (microseconds to an hour)."""
    counted = HdrHistogram(1, 3_600_000_000, 3)
    for one in made:
        parts = ((one.p50_ms, 0.5), (one.p90_ms, 0.4), (one.p99_ms, 0.09), (one.max_ms, 0.01))
        for value, weight in parts:
            if value is not None and (count := round(one.delivered * weight)):
                counted.record_value(round(1000 * share * value), count)
    count = counted.get_total_count()
    fine = {100 - 100 / 10 ** (n / 12) for n in range(1, math.floor(12 * math.log10(max(count, 10))))}
    points = [(p, counted.get_value_at_percentile(p) / 1000) for p in sorted(fine.union(PERCENTILES))]
    return Percentiles(name=name, count=count, points=points)


def run(seconds: int = 600, seed: int = 1, **changes: Any) -> LoadResult:
    """A run that failed one of its assertions. ``changes`` replace fields of the result."""
    made = intervals(seconds, seed)
    accepted = sum(one.acknowledged for one in made)
    delivered = accepted - 118
    retries: dict[str, int] = {}
    for one in made:
        for cause, count in one.retries.items():
            retries[cause] = retries.get(cause, 0) + count
    fields: dict[str, Any] = {
        "started": "2026-11-22 14:03:11 +08:00",
        "seconds": float(seconds),
        "scenario": {
            "profile": "double-eleven",
            "rate": "900/s, spike of 4×, 3× overload from 2/3 to 5/6",
            "duration": f"{seconds} s",
            "accounts": "1,000,000, Zipf 1.1",
            "speedup": "20",
            "faults": "rough: 1 % busy, 0.2 % reset after acceptance",
            "target": "embedded, 2 processes",
            "seed": str(seed),
        },
        "intervals": made,
        "latencies": [
            percentiles("scheduled arrival → provider acceptance", made, 1.0),
            percentiles("scheduled arrival → acknowledged", made, 0.2),
            percentiles("accepted → on the wire", made, 0.07),
        ],
        "summary": {
            "events": {"read": accepted, "accepted": accepted, "duplicate": 0, "rejected": 0},
            "alerts": {
                "delivered": delivered,
                "suppressed": 101,
                "failed": 17,
                "expired": 0,
                "cancelled": 0,
                "open": 0,
            },
            "by_channel": {
                "sms": {"attempts": 1_204, "delivered": 1_187},
                "wechat": {"attempts": delivered + sum(retries.values()) - 1_204, "delivered": delivered - 1_187},
            },
            "balanced": True,
        },
        "books": {
            "accepted": accepted,
            "ended": accepted,
            "open": 0,
            "provider_requests": delivered + sum(retries.values()),
            "provider_accepted": delivered + 9,
            "provider_deduplicated": 9,
            "provider_delivered": delivered,
            "lost": 0,
            "duplicates": 0,
            "unknown": retries.get("unknown", 0),
        },
        "retries": retries,
        "verdicts": [
            Verdict(text="p50<50ms", measured="25.2 ms", holds=True),
            Verdict(text="p99<200ms", measured="1.93 s", holds=False),
            Verdict(text="lost==0", measured="0", holds=True),
            Verdict(text="duplicates==0", measured="0", holds=True),
            Verdict(text="memory<200MB", measured="143 MB", holds=True),
        ],
        "machine": {
            "processor": "2 × AMD EPYC 9B14, 2.6 GHz",
            "memory": "7.8 GB",
            "system": "Linux 6.1, Debian 12",
            "python": "CPython 3.13.5",
            "disk": "ext4 on nvme0n1, fsync 0.9 ms",
            "swipebell": "0.1.0",
            "governor": "performance",
        },
    }
    return LoadResult(**{**fields, **changes})


def good(seconds: int = 600) -> LoadResult:
    """A run whose assertions all hold."""
    made = run(seconds)
    made.verdicts = [one for one in made.verdicts if one.holds]
    return made
