"""What one process has counted since it started, as one plain struct: it can be sent and added up.

Adding is associative and knows no order, so a fleet's totals are those that one process would have counted
(`tests/dispatcher/test_totals.py` holds it to that).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec
from hdrh.histogram import HdrHistogram

from dispatcher.model.alert import State

MAX_LATENCY_MS = 24 * 3600 * 1000
"""A latency above a day counts as a day: that is the age at which a swipe expires."""

MAX_PENDING = 4096
"""Distinct values that wait for the histogram: its bookkeeping costs 2 µs a value, a dict's 0.05."""

COMMIT_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Latencies:
    """Milliseconds, to three digits, in bounded memory."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(1, MAX_LATENCY_MS, 3, b64_wrap=False)
        self._sum_ms = 0
        self._pending: Counter[int] = Counter()

    def add(self, milliseconds: Iterable[int]) -> None:
        """Add a batch. What is below a millisecond counts as one, what is above a day as a day."""
        self._pending.update(milliseconds)
        if len(self._pending) > MAX_PENDING:
            self._fold()

    def merge(self, other: Latencies) -> None:
        """Add what ``other`` holds; ``other`` stays as it is."""
        self._fold()
        other._fold()
        self._histogram.add(other._histogram)
        self._sum_ms += other._sum_ms

    def summary(self) -> dict[str, float]:
        """p50, p95, p99 and max in ms; zeros when there is nothing."""
        self._fold()
        if not self._histogram.get_total_count():
            return {"p50": 0, "p95": 0, "p99": 0, "max": 0}
        at = self._histogram.get_value_at_percentile
        return {"p50": at(50), "p95": at(95), "p99": at(99), "max": self._histogram.get_max_value()}

    def cumulative(self, bounds_ms: tuple[int, ...]) -> tuple[list[tuple[str, float]], float]:
        """Prometheus' cumulative buckets in seconds, and the sum."""
        self._fold()
        # Not by the library's iterator: it takes 50 ms for a histogram that a day has filled.
        held, slots, counts = self._histogram.counts, 0, []
        for bound in bounds_ms:
            end = self._histogram._counts_index_for(bound + 1)
            counts.append(sum(held[slots:end]))
            slots = end
        counts.append(self._histogram.get_total_count() - sum(counts))
        names = [*(str(bound / 1000) for bound in bounds_ms), "+Inf"]
        return _running(names, counts), self._sum_ms / 1000

    def encoded(self) -> tuple[int, bytes]:
        """(sum, histogram in HdrHistogram's own format, which grows with what is in it: 40 bytes to some KiB)."""
        self._fold()
        return self._sum_ms, bytes(self._histogram.encode())

    @classmethod
    def decoded(cls, sum_ms: int, histogram: bytes) -> Latencies:
        """The opposite of ``encoded``."""
        latencies = cls()
        latencies._histogram.decode_and_add(histogram)
        latencies._sum_ms = sum_ms
        return latencies

    def _fold(self) -> None:
        if not self._pending:
            return
        # Popped one by one: nothing is lost should a batch be added by the way.
        while self._pending:
            value, count = self._pending.popitem()
            value = min(max(value, 1), MAX_LATENCY_MS)
            self._histogram.record_value(value, count)
            self._sum_ms += value * count


class Commits(msgspec.Struct):
    """The ledger's commits: how many took up to each of ``COMMIT_BUCKETS_S`` (the last: longer), in all, and calls."""

    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(COMMIT_BUCKETS_S) + 1))
    seconds: float = 0.0
    calls: int = 0

    def add(self, calls: int, seconds: float) -> None:
        """One commit."""
        self.counts[bisect_left(COMMIT_BUCKETS_S, seconds)] += 1
        self.seconds += seconds
        self.calls += calls

    def merge(self, other: Commits) -> None:
        """Add those of another process."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.seconds += other.seconds
        self.calls += other.calls

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """Prometheus' cumulative buckets in seconds, and the sum."""
        return _running([*map(str, COMMIT_BUCKETS_S), "+Inf"], self.counts), self.seconds


def _running(names: list[str], counts: list[int]) -> list[tuple[str, float]]:
    buckets, total = [], 0
    for name, count in zip(names, counts, strict=True):
        total += count
        buckets.append((name, float(total)))
    return buckets


class Totals(msgspec.Struct, kw_only=True):
    """Counts since the start, and gauges as of now. Every table gives 0 for a name that it does not hold.

    ``events`` by read, accepted, duplicate, rejected; ``attempts`` and ``delivered_by`` by channel; ``outcomes`` by
    (channel, class of answer); ``known_doubles`` alerts seen on a channel after they had rung on the next;
    ``callbacks_refused`` by `receipts.REASONS`; ``token_refreshes`` by channel; ``browned_out`` by (channel, step);
    ``held_by``, ``folded_by`` and ``storm_held`` (the part of ``held_by`` that a storm rule held) alerts by rule;
    ``wrong_zones`` alerts for recipients whose time zone is not known;
    ``rules_reloads`` by `rules_watch.RESULTS`;
    ``latencies`` from the event's acceptance and ``swipe_latencies`` from the swipe's own time to the provider's
    acceptance.

    Gauges: ``lanes`` by channel (queued, in flight); ``open_alerts`` of the whole ledger; ``waiting_channels`` by
    channel, 1 while it waits for a person; ``open_breakers`` 1 while its provider is down; ``token_storms`` 1 while
    there are far too many refreshes; ``quotas`` (used, limit, remaining, brown-out level) as the process last heard;
    ``storms`` by rule, 1 while it holds alerts;
    ``rules_broken`` 1 while the rule file cannot be put in force, ``templates_broken`` 1 while a template cannot;
    ``rules_versions`` how many processes decide by each version of the rules.
    """

    events: dict[str, int] = {}
    ended: dict[State, int] = {}
    suppressed_by: dict[str, int] = {}
    failed_by: dict[str, int] = {}
    attempts: dict[str, int] = {}
    delivered_by: dict[str, int] = {}
    outcomes: dict[tuple[str, str], int] = {}
    unknown_codes: dict[str, int] = {}
    callbacks_refused: dict[str, int] = {}
    retries: int = 0
    known_doubles: int = 0
    latencies: Latencies = msgspec.field(default_factory=Latencies)
    swipe_latencies: Latencies = msgspec.field(default_factory=Latencies)
    commits: Commits = msgspec.field(default_factory=Commits)
    lanes: dict[str, tuple[int, int]] = {}
    open_alerts: int = 0
    waiting_channels: dict[str, int] = {}
    open_breakers: dict[str, int] = {}
    token_refreshes: dict[str, int] = {}
    token_storms: dict[str, int] = {}
    browned_out: dict[tuple[str, str], int] = {}
    quotas: dict[str, tuple[int, int, int, int]] = {}
    held_by: dict[str, int] = {}
    folded_by: dict[str, int] = {}
    storm_held: dict[str, int] = {}
    wrong_zones: int = 0
    storms: dict[str, int] = {}
    rules_reloads: dict[str, int] = {}
    rules_broken: int = 0
    templates_broken: int = 0
    rules_versions: dict[str, int] = {}

    def __post_init__(self) -> None:
        for name in COUNTERS:
            setattr(self, name, Counter(getattr(self, name)))

    def merge(self, other: Totals) -> None:
        """Add what another process counted. Lane lengths are summed; of the other gauges the highest is kept."""
        for name in COUNTERS:
            getattr(self, name).update(getattr(other, name))
        self.retries += other.retries
        self.known_doubles += other.known_doubles
        self.wrong_zones += other.wrong_zones
        self.latencies.merge(other.latencies)
        self.swipe_latencies.merge(other.swipe_latencies)
        self.commits.merge(other.commits)
        for channel, (queued, in_flight) in other.lanes.items():
            mine = self.lanes.get(channel, (0, 0))
            self.lanes[channel] = mine[0] + queued, mine[1] + in_flight
        self.open_alerts = max(self.open_alerts, other.open_alerts)
        for channel, value in other.waiting_channels.items():
            self.waiting_channels[channel] = max(self.waiting_channels.get(channel, 0), value)
        for channel, value in other.open_breakers.items():
            self.open_breakers[channel] = max(self.open_breakers.get(channel, 0), value)
        for channel, value in other.token_storms.items():
            self.token_storms[channel] = max(self.token_storms.get(channel, 0), value)
        for rule, value in other.storms.items():
            self.storms[rule] = max(self.storms.get(rule, 0), value)
        for channel, theirs in other.quotas.items():
            # One account, heard of at different moments: most used and least left is the latest word but for midnight.
            ours = self.quotas.get(channel, theirs)
            used, limit, level = max(ours[0], theirs[0]), max(ours[1], theirs[1]), max(ours[3], theirs[3])
            self.quotas[channel] = used, limit, min(ours[2], theirs[2]), level
        self.rules_broken = max(self.rules_broken, other.rules_broken)
        self.templates_broken = max(self.templates_broken, other.templates_broken)
        for version, processes in other.rules_versions.items():
            self.rules_versions[version] = self.rules_versions.get(version, 0) + processes

    def drop_gauges(self) -> None:
        """Forget what was true only while the process lived; the counts stay."""
        self.lanes = dict.fromkeys(self.lanes, (0, 0))
        self.open_alerts = 0
        self.waiting_channels = dict.fromkeys(self.waiting_channels, 0)
        self.open_breakers = dict.fromkeys(self.open_breakers, 0)
        self.token_storms = dict.fromkeys(self.token_storms, 0)
        self.quotas = {}
        self.storms = dict.fromkeys(self.storms, 0)
        self.rules_broken = self.templates_broken = 0
        self.rules_versions = {}


COUNTERS = (
    *("events", "ended", "suppressed_by", "failed_by", "attempts", "delivered_by", "outcomes", "unknown_codes"),
    "callbacks_refused",
    *("token_refreshes", "browned_out", "rules_reloads"),
    *("held_by", "folded_by", "storm_held"),
)


def merged(parts: Iterable[Totals]) -> Totals:
    """The totals of several processes as if one had counted; the parts stay as they are."""
    whole = Totals()
    for part in parts:
        whole.merge(part)
    return whole


def encode_hook(value: object) -> Any:
    """What msgspec needs to be told to send `Totals`."""
    if isinstance(value, Latencies):
        return value.encoded()
    raise NotImplementedError(type(value).__name__)


def decode_hook(kind: type, value: Any) -> Any:
    """What msgspec needs to be told to receive `Totals`."""
    if kind is Latencies:
        return Latencies.decoded(*value)
    raise NotImplementedError(kind.__name__)
