"""Weights between two vendors: how much of the traffic each one gets, moved a step at a time. Pure: time and chance are
arguments.

An all-or-nothing switch would send the first one's whole load to the second within a second and take that one down,
too; and a vendor that gets nothing cannot show that it is well again. So the share moves by ``step`` at most once every
``interval_ms``, and neither goes below ``probe``.
"""

from __future__ import annotations

import msgspec


class WeightSettings(msgspec.Struct, frozen=True):
    """``home`` is the second vendor's share in percent while both are well (it is brought within the probes).

    ``failing`` and ``well`` are shares of failed answers in one interval, apart from each other so that a vendor on the
    border does not swing; ``interval_ms`` at 10 s sees enough answers and takes a failed vendor out within two minutes.
    Failing is believed at once, being well only after ``enough`` answers: a probe sees few of them, and one good one by
    chance must not bring the load back.
    """

    home: int
    step: int = 10
    interval_ms: int = 10_000
    probe: int = 2
    failing: float = 0.2
    well: float = 0.05
    enough: int = 10

    def __post_init__(self) -> None:
        if not (0 <= self.home <= 100 and 0 < self.step <= 100 and 0 < self.probe < 50 and self.interval_ms > 0):
            raise ValueError("weights need 0 <= home <= 100, 0 < step <= 100, 0 < probe < 50 and an interval")
        if not (0.0 <= self.well < self.failing <= 1.0 and self.enough > 0):
            raise ValueError("weights need 0 <= well < failing <= 1 and answers enough")


class _Health:
    """What one vendor answered in this interval, and how it was in the last one that it answered in."""

    __slots__ = ("answers", "failing", "failures")

    def __init__(self) -> None:
        self.answers = 0
        self.failures = 0
        self.failing = False

    def close(self, settings: WeightSettings) -> None:
        """End the interval. Of too few answers nothing is learned yet; in between the two borders neither."""
        if not self.answers:
            return
        share = self.failures / self.answers
        if share >= settings.failing:
            self.failing = True
        elif self.answers < settings.enough:
            return  # they count with the next interval's
        elif share <= settings.well:
            self.failing = False
        self.answers = self.failures = 0


class Weights:
    """The present share of the second vendor. 0 is the first vendor, 1 the second; times are in ms of any clock."""

    def __init__(self, settings: WeightSettings, now_ms: int) -> None:
        self.settings = settings
        self._home = min(max(settings.home, settings.probe), 100 - settings.probe)
        self.share = self._home
        self._stepped_ms = now_ms
        self._health = (_Health(), _Health())

    def pick(self, now_ms: int, draw: float) -> int:
        """Which vendor the next message goes to; ``draw`` is in [0, 1)."""
        self._step_when_due(now_ms)
        return int(draw * 100 < self.share)

    def saw(self, vendor: int, failed: bool, now_ms: int) -> None:
        """A vendor answered, or gave no answer (which is a failure, too)."""
        self._step_when_due(now_ms)
        health = self._health[vendor]
        health.answers += 1
        health.failures += failed

    def failing(self, vendor: int) -> bool:
        """Whether a vendor failed in the last interval in which it was heard of."""
        return self._health[vendor].failing

    def _step_when_due(self, now_ms: int) -> None:
        if now_ms < self._stepped_ms:  # the clock was set back: an interval from here
            self._stepped_ms = now_ms
        if now_ms - self._stepped_ms < self.settings.interval_ms:
            return
        self._stepped_ms = now_ms  # one step, however long ago the last look was
        first, second = self._health
        first.close(self.settings)
        second.close(self.settings)
        settings = self.settings
        # When both fail, neither deserves more than it has while both are well.
        target = self._home
        if first.failing and not second.failing:
            target = 100 - settings.probe
        elif second.failing and not first.failing:
            target = settings.probe
        move = max(-settings.step, min(settings.step, target - self.share))
        self.share += move
