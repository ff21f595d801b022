"""What a run has seen so far: every event's schedule, acknowledgement and acceptance, by the second and in all.

Times are seconds from the begin of the run. Latencies count from the *scheduled* arrival: a target that stalls cannot
hide it by making the generator wait.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from hdrh.histogram import HdrHistogram

from loadtest.result import Interval

MAX_EVENTS: Final = 2_000_000
"""Events of a run whose acceptance is measured: as many messages of a channel as the simulated providers list, at about
250 bytes each here: the keys are kept, for a message may come again."""
MAX_EVENTS_UNMEASURED: Final = 50_000_000
"""Events of a run that is measured by acknowledgements alone: nine bytes each."""

SHOWN_REJECTIONS: Final = 20

PER_MS: Final = 10
"""Latencies are recorded in tenths of a millisecond, to three digits."""
MAX_LATENCY: Final = 24 * 3600 * 1000 * PER_MS

NAMED = (50.0, 90.0, 95.0, 99.0, 99.9, 99.99)

_HALVINGS: Final = 20
_TICKS_A_HALVING: Final = 6


class Latency:
    """A distribution of latencies in bounded memory."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(1, MAX_LATENCY, 3)

    def add(self, values: Iterable[int]) -> None:
        """Add a batch, in units of ``1 / PER_MS`` ms."""
        record = self._histogram.record_value
        for value, count in Counter(values).items():
            record(min(max(value, 1), MAX_LATENCY), count)

    @property
    def count(self) -> int:
        """How many were added."""
        return int(self._histogram.get_total_count())

    def at(self, percentile: float) -> float:
        """ms at a percentile; 100 is the largest one. 0 when there is nothing."""
        if not self.count:
            return 0.0
        if percentile >= 100.0:
            return float(self._histogram.get_max_value() / PER_MS)
        return float(self._histogram.get_value_at_percentile(percentile) / PER_MS)

    def points(self) -> list[tuple[float, float]]:
        """(percentile, ms), rising, denser towards 100 as far as there are values to tell apart. Those that people name
        are among them, exactly."""
        if not self.count:
            return []
        points = [(percentile, self.at(percentile)) for percentile in NAMED]
        distance = 100.0
        for _ in range(_HALVINGS):
            for tick in range(_TICKS_A_HALVING):
                percentile = 100.0 - distance * (1 - tick / _TICKS_A_HALVING / 2)
                points.append((percentile, self.at(percentile)))
            distance /= 2
            if self.count * distance / 100.0 < 1.0:
                break
        return sorted({*points, (100.0, self.at(100.0))})


class _Second:
    __slots__ = ("interval", "values")

    def __init__(self, at: float) -> None:
        self.interval = Interval(at=at, retries={})
        self.values: array[int] | None = array("q")


class Tally:
    """See the module. ``epoch`` is the run's begin in epoch seconds; set before the first arrival.

    ``exclusive``: the providers serve this run alone, so a message that matches no event is one shown twice. The first
    message of an alert on another channel is none: that is what the fallback is for.
    """

    def __init__(self, *, exclusive: bool = True) -> None:
        self.epoch = 0.0
        self.scheduled = array("d")
        self.built = 0
        self.acked = bytearray()
        self.pending: dict[str, int] = {}
        self.shown_by: Counter[str] = Counter()
        self.accepted = self.duplicate = self.rejected = 0
        self.rejections: list[str] = []
        self.shown_twice = self.foreign = 0
        self.abandoned = self.pushed_back = 0
        self.kept = 0
        """Events that are built and lie in the backlog (`Backlog` counts them)."""
        self.refused_whole = 0
        """Of those rejected: in chunks that the target would not have at all; ``refusal`` is what it last said."""
        self.refusal = ""
        self.delivered = Latency()
        self.acknowledged = Latency()
        self.lateness = Latency()
        self.seen_until = 0.0
        """Everything that a provider accepted before this second has been seen."""
        self._exclusive = exclusive
        self._matched: defaultdict[str, set[str]] = defaultdict(set)
        """The keys that each channel has shown."""
        self._seconds: list[_Second] = []
        self.by_arrival: list[array[int]] = []
        """Latencies to the provider's acceptance by the second of the scheduled arrival, in ``1 / PER_MS`` ms."""
        self._closed = 0

    # ---- the generator ----------------------------------------------------------------------------------------

    def arrive(self, times: Sequence[float]) -> None:
        """These arrivals are due."""
        self.scheduled.extend(times)
        self.acked.extend(bytes(len(times)))
        for second, count in Counter(map(int, times)).items():
            self.second(second).interval.scheduled += count

    def abandon(self, times: Sequence[float]) -> None:
        """These arrivals were due, and there was no room to keep them until they can be sent."""
        self.abandoned += len(times)
        for second, count in Counter(map(int, times)).items():
            self.second(second).interval.scheduled += count

    def build(self, keys: Sequence[str]) -> None:
        """The next events leave; ``keys`` are their alerts', empty for one that cannot be matched."""
        pending = self.pending
        for number, key in enumerate(keys, self.built):
            if key:
                pending[key] = number
        self.built += len(keys)

    def push_back(self, count: int, now: float) -> None:
        """So many arrivals were due and the target took no more."""
        self.pushed_back += count
        self.second(int(now)).interval.pushed_back += count

    # ---- the target's answers ---------------------------------------------------------------------------------

    def answer(self, first: int, count: int, now: float, *, duplicate: int, rejected: dict[int, str]) -> None:
        """Events ``first`` to ``first + count`` were answered; ``rejected`` are numbers and the reasons given."""
        for number, reason in rejected.items():
            if len(self.rejections) < SHOWN_REJECTIONS:
                self.rejections.append(f"event {number + 1:,}: {reason}")
        taken = count - len(rejected)
        self.accepted += taken - duplicate
        self.duplicate += duplicate
        self.rejected += len(rejected)
        scale = 1000 * PER_MS
        self.acknowledged.add([int((now - at) * scale) for at in self.scheduled[first : first + count]])
        self.acked[first : first + count] = b"\x01" * count
        for number in rejected:
            self.acked[number] = 0
        self.second(int(now)).interval.acknowledged += taken

    # ---- the providers' book ----------------------------------------------------------------------------------

    def show(self, channel: str, keys: Sequence[str], times: Sequence[float]) -> None:
        """Messages that a provider accepted, in its order, by their alerts' keys; ``times`` in epoch seconds."""
        pending, scheduled, epoch = self.pending, self.scheduled, self.epoch
        matched = self._matched[channel]
        scale = 1000 * PER_MS
        values: list[int] = []
        current, second = -1, self.second(0)
        for key, stamp in zip(keys, times, strict=True):
            number = pending.pop(key, None)
            if number is None:
                self._strange(channel, key)
                continue
            matched.add(key)
            at = stamp - epoch
            value = int((at - scheduled[number]) * scale)
            values.append(value)
            self._of_arrival(int(scheduled[number])).append(min(value, MAX_LATENCY))
            if int(at) != current:
                current = int(at)
                second = self.second(current)
            second.interval.delivered += 1
            if second.values is not None:
                second.values.append(value)
        self.shown_by[channel] += len(values)
        self.delivered.add(values)

    def _of_arrival(self, index: int) -> array[int]:
        while len(self.by_arrival) <= index:
            self.by_arrival.append(array("i"))
        return self.by_arrival[index]

    def _strange(self, channel: str, key: str) -> None:
        """A message of an alert that was shown before, or of none of ours."""
        matched = self._matched[channel]
        if key not in matched and any(key in others for others in self._matched.values()):
            matched.add(key)
        elif key in matched or self._exclusive:
            self.shown_twice += 1
        else:
            self.foreign += 1

    # ---- by the second ----------------------------------------------------------------------------------------

    def second(self, index: int) -> _Second:
        """The second that begins at ``index``; the ones before it exist from then on."""
        while len(self._seconds) <= index:
            self._seconds.append(_Second(float(len(self._seconds) + 1)))
        return self._seconds[max(index, 0)]

    def close(self, until: float) -> None:
        """Work out the percentiles of every second that ended before ``until``."""
        while self._closed < min(until // 1, len(self._seconds)):
            second = self._seconds[self._closed]
            self._closed += 1
            values, second.values = second.values, None
            _set_percentiles(second.interval, values or ())

    def finish(self) -> None:
        """Nothing more will be seen: the percentiles of each second become those of the arrivals scheduled in it."""
        self.close(float("inf"))
        for index, second in enumerate(self._seconds):
            _set_percentiles(second.interval, self.by_arrival[index] if index < len(self.by_arrival) else ())

    def intervals(self) -> list[Interval]:
        """All seconds so far."""
        return [second.interval for second in self._seconds]

    def latest(self) -> Interval | None:
        """The last second that is closed."""
        return self._seconds[self._closed - 1].interval if self._closed else None

    @property
    def shown(self) -> int:
        """Events that a provider was seen to accept."""
        return sum(self.shown_by.values())

    @property
    def answered(self) -> int:
        """Events that were acknowledged or refused."""
        return self.accepted + self.duplicate + self.rejected

    @property
    def unanswered(self) -> int:
        """Events that left and were not answered yet."""
        return self.sent - self.answered

    @property
    def sent(self) -> int:
        """Events that left."""
        return self.built - self.kept

    @property
    def waiting(self) -> int:
        """Arrivals that are due and have not left."""
        return len(self.scheduled) - self.sent


def _set_percentiles(interval: Interval, latencies: Iterable[int]) -> None:
    values = sorted(latencies)
    if not values:
        interval.p50_ms = interval.p90_ms = interval.p99_ms = interval.max_ms = None
        return
    at = [values[min(int(len(values) * share), len(values) - 1)] / PER_MS for share in (0.5, 0.9, 0.99)]
    interval.p50_ms, interval.p90_ms, interval.p99_ms = at
    interval.max_ms = values[-1] / PER_MS
