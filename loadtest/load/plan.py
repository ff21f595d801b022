"""What a load test was asked to do, checked before anything is started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from dispatcher.errors import ConfigurationError
from dispatcher.model.private import Secret
from loadtest.load.assertions import ACK_LATENCIES, RECOVERY, Assertion
from loadtest.load.lines import drawn_accounts
from loadtest.load.profiles import DAY_S, PROFILES
from loadtest.load.recorded import Recording
from loadtest.load.recovery import overload_of
from loadtest.load.schedule import Curve, duration, expected, most, parse_steps, peak, poisson, profile_curve
from loadtest.load.tally import MAX_EVENTS, MAX_EVENTS_UNMEASURED
from loadtest.providers.faults import Faults

DEFAULT_RATE: Final = "500"
DEFAULT_DURATION_S: Final = 30.0
MAX_DURATION_S: Final = float(DAY_S)
MAX_SPEEDUP: Final = 1_000_000.0
MAX_DAYS: Final = 31
"""Days of a profile that may pass in one run; they repeat."""


class Target(msgspec.Struct, frozen=True):
    """A running engine. ``stream``: its stream intake, otherwise its HTTP intake."""

    url: str
    stream: bool
    host: str = ""
    port: int = 0


class Load(msgspec.Struct, kw_only=True):
    """When events arrive: along a ``curve`` of rates, or as a ``recording`` was made (the curve then describes it)."""

    curve: Curve
    words: str
    start_s: float | None = None
    speedup: float = 1.0
    recording: Recording | None = None
    own_times: bool = False

    @property
    def seconds(self) -> float:
        """How long the schedule is."""
        return duration(self.curve)

    @property
    def peak(self) -> float:
        """The highest rate, events a second."""
        return peak(self.curve)

    @property
    def most(self) -> int:
        """More events than this do not arrive."""
        if self.recording is None:
            return most(self.curve)
        return min(len(self.recording.times), len(self.recording.times) if self.own_times else most(self.curve))

    @property
    def overload(self) -> tuple[float, float] | None:
        """Begin and end of an overload that the steps of a rate describe, in seconds."""
        return overload_of(self.curve) if self.start_s is None and not self.own_times else None

    def times(self, seed: int) -> Iterator[float]:
        """The arrivals, in seconds from the begin."""
        if self.recording is None:
            return poisson(self.curve, seed)
        if self.own_times:
            seconds = self.seconds
            return (at for at in self.recording.offsets(self.speedup) if at <= seconds)
        lines = iter(self.recording.lines)
        return (at for at, _ in zip(poisson(self.curve, seed), lines, strict=False))


class Plan(msgspec.Struct, kw_only=True):
    """All of it. Without a ``target`` the engine is brought along, with ``processes`` in ``folder``."""

    load: Load
    seed: int
    accounts: int
    assertions: list[Assertion]
    scenario: dict[str, str]
    settle_s: float
    target: Target | None = None
    token: Secret | None = None
    connections: int = 8
    providers_url: str | None = None
    metrics_url: str | None = None
    folder: Path | None = None
    processes: int = 1
    latency_s: float = 0.02
    provider_rate: int = 50_000
    faults: Faults = Faults()
    kill_every_s: float | None = None

    @property
    def measured(self) -> bool:
        """Whether the providers' book is read."""
        return self.target is None or self.providers_url is not None

    def check(self) -> None:
        """Refuse what cannot be measured. Raises ``ConfigurationError``."""
        limit = MAX_EVENTS if self.measured else MAX_EVENTS_UNMEASURED
        if self.load.most > limit:
            raise ConfigurationError(
                f"about {expected(self.load.curve):,.0f} events would arrive, and a run can keep account of"
                f" {limit:,}; give a shorter --duration or a lower rate"
            )
        for one in self.assertions:
            if why := self._unmeasured(one.metric):
                raise ConfigurationError(f"--assert {one.text!r}: {one.metric} is not measured here: {why}")

    def _unmeasured(self, metric: str) -> str | None:
        if metric == RECOVERY and self.load.overload is None:
            return "it needs a --rate with an overload between two lower steps, such as 200:30,1800:120,200:90"
        if self.target is None:
            return None
        if metric in ("unknown", "mb", "lost"):
            return "it needs the ledger or the processes of an engine of our own; leave --target away"
        if metric in ("rejected", "rate_in", "pushed_back", "abandoned", *ACK_LATENCIES):
            return None
        if metric in ("failed", "open") and self.metrics_url is not None:
            return None
        if metric == "delivered" or self.providers_url is not None:
            return None
        return f"name the simulated providers with --providers URL, or assert ack_{metric}"


def plan_rate(text: str, duration_s: float | None) -> Load:
    """``--rate``: N, or steps. Raises ``ConfigurationError``."""
    try:
        steps = parse_steps(text)
    except ValueError as error:
        raise ConfigurationError(f"--rate {text}: {error}") from None
    if steps[0][0] is None:
        curve = [(duration_s or DEFAULT_DURATION_S, steps[0][1])]
        return Load(curve=curve, words=f"{steps[0][1]:,.6g} a second")
    if duration_s is not None:
        raise ConfigurationError("--duration: the steps of --rate say how long they last; give one of the two")
    curve = [(seconds or 0.0, rate) for seconds, rate in steps]
    return Load(curve=curve, words=", ".join(f"{rate:,.6g}/s for {seconds:g} s" for seconds, rate in curve))


def plan_profile(name: str, start_s: float | None, duration_s: float | None, speedup: float) -> Load:
    """``--profile``. Raises ``ConfigurationError``."""
    profile = PROFILES.get(name)
    if profile is None:
        raise ConfigurationError(f"--profile {name}: unknown; known are {', '.join(PROFILES)}")
    seconds = duration_s or DEFAULT_DURATION_S
    if seconds * speedup > MAX_DAYS * DAY_S:
        raise ConfigurationError(
            f"--speedup {speedup:g}: {seconds * speedup / DAY_S:,.0f} days would pass in {seconds:g} seconds; allowed"
            f" are {MAX_DAYS}"
        )
    start = profile.busiest(seconds * speedup) if start_s is None else start_s
    curve = profile_curve(profile, start_s=start, duration_s=seconds, speedup=speedup)
    return Load(curve=curve, words=profile.name, start_s=start, speedup=speedup)


def plan_recording(recording: Recording, rate: str | None, duration_s: float | None, speedup: float) -> Load:
    """``--events``, at ``rate`` or at its own times. Raises ``ConfigurationError``."""
    count = len(recording.times)
    if rate is not None:
        load = plan_rate(rate, duration_s if duration_s is not None or ":" in rate else _long_enough(rate, count))
        load.recording = recording
        load.words = f"recorded events, {load.words}"
        return load
    whole = (recording.times[-1] - recording.times[0]) / speedup
    seconds = min(whole, duration_s) if duration_s is not None else whole
    if seconds > MAX_DURATION_S:
        raise ConfigurationError(
            f"--events {recording.path}: takes {whole:,.0f} seconds at its own times; give a --speedup of"
            f" {whole * speedup / 60:,.0f} to play it in a minute, or --rate, or --duration"
        )
    # At least a second, so that a file whose events all come at once has a rate.
    curve = _described(recording, speedup, max(seconds, 1.0))
    return Load(
        curve=curve, words="recorded events at their own times", speedup=speedup, recording=recording, own_times=True
    )


def _long_enough(rate: str, count: int) -> float:
    """Seconds in which a file of ``count`` events is surely through at a rate; the file's end ends the run."""
    try:
        return max(1.0, count / float(rate) * 1.1 + 10.0)
    except (ValueError, ZeroDivisionError):
        return DEFAULT_DURATION_S  # refused next, with what is allowed


def _described(recording: Recording, speedup: float, seconds: float) -> Curve:
    """The recording's rates in a hundred pieces, for the display."""
    pieces = 100
    counts = [0] * pieces
    for at in recording.offsets(speedup):
        if at > seconds:
            break
        counts[min(int(at / seconds * pieces), pieces - 1)] += 1
    return [(seconds / pieces, count / (seconds / pieces)) for count in counts]


def accounts_of(load: Load, seed: int, accounts: int) -> Iterator[str]:
    """The accounts that a load's events can belong to, each once."""
    if load.recording is not None:
        return iter(load.recording.accounts)
    return drawn_accounts(seed, accounts, load.most)
