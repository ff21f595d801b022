"""What the engine counts: for ``/metrics``, and for the summary that ``send``, ``demo`` and ``loadtest`` print.

Prometheus children are bound once and advanced by the batch. No label comes from event data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hdrh.histogram import HdrHistogram
from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from dispatcher.ledger.api import Admission
from dispatcher.model.alert import State, Step

MAX_LATENCY_MS = 24 * 3600 * 1000
"""A latency above a day counts as a day: that is the age at which a swipe expires."""

LATENCY_BUCKETS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 15_000, 60_000, 300_000, 3_600_000)
COMMIT_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Latencies:
    """Milliseconds from acceptance to the provider's acceptance, to three digits, in bounded memory."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(1, MAX_LATENCY_MS, 3)
        self._sum_ms = 0

    def add(self, milliseconds: Iterable[int]) -> None:
        """Add a batch."""
        for value, count in Counter(milliseconds).items():
            self._histogram.record_value(min(max(value, 1), MAX_LATENCY_MS), count)
            self._sum_ms += value * count

    def summary(self) -> dict[str, float]:
        """p50, p95, p99 and max in ms; zeros when there is nothing."""
        if not self._histogram.get_total_count():
            return {"p50": 0, "p95": 0, "p99": 0, "max": 0}
        at = self._histogram.get_value_at_percentile
        return {"p50": at(50), "p95": at(95), "p99": at(99), "max": self._histogram.get_max_value()}

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """Prometheus' cumulative buckets in seconds, and the sum."""
        counts = [0] * len(LATENCY_BUCKETS_MS)
        total = 0
        for item in self._histogram.get_recorded_iterator():
            total += item.count_at_value_iterated_to
            for position, bound in enumerate(LATENCY_BUCKETS_MS):
                if item.value_iterated_to <= bound:
                    counts[position] += item.count_at_value_iterated_to
        buckets = [(str(bound / 1000), float(count)) for bound, count in zip(LATENCY_BUCKETS_MS, counts, strict=True)]
        return [*buckets, ("+Inf", float(total))], self._sum_ms / 1000


class _LatencyCollector(Collector):
    def __init__(self, latencies: Latencies) -> None:
        self._latencies = latencies

    def collect(self) -> Iterable[Metric]:
        buckets, total = self._latencies.cumulative()
        family = HistogramMetricFamily(
            "swipebell_delivery_latency_seconds", "From the event's acceptance to the provider's acceptance"
        )
        family.add_metric([], buckets=buckets, sum_value=total)
        yield family


class Meter:
    """Counts of one process since it started."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.events: Counter[str] = Counter()
        self.ended: Counter[State] = Counter()
        self.suppressed_by: Counter[str] = Counter()
        self.failed_by: Counter[str] = Counter()
        self.attempts: Counter[str] = Counter()
        self.delivered_by: Counter[str] = Counter()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.retries = 0
        self.latencies = Latencies()
        self.registry.register(_LatencyCollector(self.latencies))
        self._events = PrometheusCounter(
            "swipebell_events",
            "Events by what became of them at the door",
            ["result"],
            registry=self.registry,
        )
        self._ended = PrometheusCounter(
            "swipebell_alerts_ended", "Alerts that ended", ["state"], registry=self.registry
        )
        self._attempts = PrometheusCounter(
            "swipebell_attempts",
            "Answers of providers by class",
            ["channel", "outcome"],
            registry=self.registry,
        )
        self._unknown_codes = PrometheusCounter(
            "swipebell_unknown_codes",
            "Answers whose code no table knows",
            ["channel"],
            registry=self.registry,
        )
        self._lane = Gauge(
            "swipebell_lane_queued_alerts", "Alerts waiting in a lane", ["channel"], registry=self.registry
        )
        self._flight = Gauge(
            "swipebell_lane_in_flight_alerts",
            "Alerts handed to the network",
            ["channel"],
            registry=self.registry,
        )
        self._open = Gauge("swipebell_open_alerts", "Alerts in the ledger that have not ended", registry=self.registry)
        self._misconfigured = Gauge(
            "swipebell_channel_misconfigured",
            "1 while a channel waits for a person",
            ["channel"],
            registry=self.registry,
        )
        self._commit = Histogram(
            "swipebell_ledger_commit_seconds",
            "One commit, fsync included",
            buckets=COMMIT_BUCKETS_S,
            registry=self.registry,
        )
        self._calls = PrometheusCounter(
            "swipebell_ledger_calls", "Calls committed (group commit shares one)", registry=self.registry
        )
        self._bound: dict[tuple[Any, ...], Any] = {}

    def _child(self, metric: Any, *labels: str) -> Any:
        key = (id(metric), *labels)
        child = self._bound.get(key)
        if child is None:
            child = self._bound[key] = metric.labels(*labels)
        return child

    def read(self, count: int) -> None:
        """Lines or items were read at the door."""
        self.events["read"] += count

    def rejected(self, count: int) -> None:
        """Events were refused at the door, or conflict with an accepted one."""
        if count:
            self.events["rejected"] += count
            self._child(self._events, "rejected").inc(count)

    def admitted(self, admission: Admission) -> None:
        """A batch went through admission (its conflicts are counted by ``rejected``)."""
        for result, count in (("accepted", admission.accepted), ("duplicate", len(admission.duplicates))):
            if count:
                self.events[result] += count
                self._child(self._events, result).inc(count)
        for (state, reason), count in admission.ended.items():
            self._end(state, reason, count)

    def recorded(self, steps: Sequence[Step]) -> None:
        """Steps are in the ledger."""
        outcomes: Counter[tuple[str, str]] = Counter()
        ends: Counter[tuple[State, str]] = Counter()
        latencies = []
        for step in steps:
            channel = step.alert.channel
            if step.outcome is not None:
                outcomes[channel, step.outcome] += 1
                if step.resends:
                    outcomes[channel, "unknown"] += step.resends
                if step.outcome == "accepted":
                    latencies.append(step.at_ms - step.alert.accepted_ms)
            if step.ended:
                ends[step.state, step.reason or ""] += 1
                if step.state == "delivered":
                    self.delivered_by[channel] += 1
            elif step.state != "awaiting":
                self.retries += 1
        for (channel, outcome), count in outcomes.items():
            self.attempts[channel] += count
            self.outcomes[channel, outcome] += count
            self._child(self._attempts, channel, outcome).inc(count)
        for (state, reason), count in ends.items():
            self._end(state, reason, count)
        self.latencies.add(latencies)

    def _end(self, state: State, reason: str, count: int) -> None:
        self.ended[state] += count
        if state == "suppressed":
            self.suppressed_by[reason] += count
        elif state == "failed":
            self.failed_by[reason] += count
        self._child(self._ended, state).inc(count)

    def unknown_code(self, channel: str) -> None:
        """A provider answered with a code that its table does not know."""
        self._child(self._unknown_codes, channel).inc()

    def misconfigured(self, channel: str, value: bool) -> None:
        """A channel waits for a person, or no longer."""
        self._child(self._misconfigured, channel).set(int(value))

    def lanes(self, lengths: Mapping[str, tuple[int, int]], open_alerts: int) -> None:
        """Set the gauges: (queued, in flight) by channel, and the ledger's open alerts."""
        for channel, (queued, in_flight) in lengths.items():
            self._child(self._lane, channel).set(queued)
            self._child(self._flight, channel).set(in_flight)
        self._open.set(open_alerts)

    def committed(self, calls: int, seconds: float) -> None:
        """The ledger committed; called from its thread."""
        self._commit.observe(seconds)
        self._calls.inc(calls)
