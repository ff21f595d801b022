"""Quiet hours and deduplication, ready to be asked. Pure."""

from __future__ import annotations

from dispatcher.model.event import Event
from ratelimit.asked import KEEP_COUNTER_MS, KEPT_PAST, Against, Asked, Keys, Pass
from ratelimit.decision import Mark
from ratelimit.effects import Dedup, QuietHours, minute_of_day
from ratelimit.localday import LocalDay
from ratelimit.match import Test
from ratelimit.scopes import fingerprint_of
from ratelimit.windows import Windows


class QuietRule:
    """Quiet hours."""

    by_channel = False

    def __init__(self, rule: QuietHours, rest: Test | None) -> None:
        self.id, self.rest = rule.id, rest
        self._start, self._end, self._days, self._then = rule.start, rule.end, rule.days, rule.then

    def keys(self, asked: Asked, route: tuple[str, ...], day: LocalDay) -> Keys:
        """None: they count nothing."""
        return ()

    def until(self, windows: Windows, zone: str, at_ms: int) -> int | None:
        """When they are over; None outside of them."""
        return windows.quiet_until(self._start, self._end, self._days, zone, at_ms)

    def ask(self, now: Pass, keys: Keys) -> Against | None:
        """What they have against this time; passes note that the later ones are not to be asked."""
        if now.exempt:
            return None
        until = self.until(now.asked.windows, now.day.zone, now.send_ms)
        if until is None:
            return None
        if self._then == "pass":
            now.exempt = True
            return None
        saw = {
            "quiet_at_ms": now.send_ms,
            "from_minute": minute_of_day(self._start),
            "to_minute": minute_of_day(self._end),
        }
        return Against(self.id, self._then, saw, until)


class DedupRule:
    """Deduplication by fingerprint, within one recipient."""

    def __init__(self, rule: Dedup, rest: Test | None) -> None:
        self.id, self.rest = rule.id, rest
        self._prefix = f"dedup|{rule.id}|"
        self._fingerprint, self.window_ms = fingerprint_of(rule.fingerprint), rule.total_seconds * 1000

    def key(self, event: Event, person: str) -> str:
        """The mark of this fingerprint for a recipient, by its number."""
        return f"{self._prefix}{person}:{self._fingerprint(event)}"

    def mark(self, key: str, send_ms: int) -> Mark:
        """The time to remember."""
        return key, send_ms, KEPT_PAST, send_ms + self.window_ms + KEEP_COUNTER_MS

    def ask(self, now: Pass, key: str) -> Against | None:
        """Whether the same was sent, or will be, nearer than the window."""
        window_ms, send_ms = self.window_ms, now.send_ms
        for last in reversed(now.ledger.times(key)):
            if -window_ms < last - send_ms < window_ms:
                return Against(self.id, "suppress", {"last_ms": last, "window_s": window_ms // 1000})
        now.marks.append(self.mark(key, send_ms))
        return None
