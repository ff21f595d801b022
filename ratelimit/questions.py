"""The timed rules that may match an alert, sorted by how they are asked. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.model.event import Event
from dispatcher.model.recipient import Recipient
from ratelimit.asked import Asked
from ratelimit.decision import Increment, Mark
from ratelimit.effects import Cap, MinGap, QuietHours
from ratelimit.limits import CalendarCap, GapRule, LimitRule, RollingCap
from ratelimit.match import Test
from ratelimit.timed import DedupRule, QuietRule
from ratelimit.windows import Windows

TimedRule = QuietRule | CalendarCap | RollingCap | GapRule


def timed_rule(rule: QuietHours | Cap | MinGap, rest: Test | None) -> TimedRule:
    """A rule of the file, ready to be asked."""
    if isinstance(rule, QuietHours):
        return QuietRule(rule, rest)
    if isinstance(rule, MinGap):
        return GapRule(rule, rest)
    return RollingCap(rule, rest) if rule.window is None else CalendarCap(rule, rest, rule.window)


class Questions:
    """The timed rules and the deduplication that may match the events of one category, type and currency."""

    def __init__(self, rules: Sequence[TimedRule], dedups: Sequence[DedupRule]) -> None:
        self.rules = tuple(rules)
        self.dedups = tuple(dedups)
        self._quiet = [rule for rule in rules if isinstance(rule, QuietRule)]
        limits = [rule for rule in rules if not isinstance(rule, QuietRule)]
        self._of_channels: list[LimitRule] = [rule for rule in limits if rule.by_channel]
        plain = [rule for rule in limits if not rule.by_channel]
        self._caps = [rule for rule in plain if isinstance(rule, CalendarCap)]
        self._nears = [rule for rule in plain if not isinstance(rule, CalendarCap)]

    def ask(
        self,
        event: Event,
        recipient: Recipient,
        template: str,
        now_ms: int,
        expires_ms: int,
        route: tuple[str, ...],
        windows: Windows,
    ) -> tuple[Asked | None, Sequence[str], Sequence[str]]:
        """An alert with its rules, and the counters and marks that they look at unless it is held; None when none of
        them matches."""
        today = windows.days.of(recipient.timezone, now_ms)
        keys: list[str] = []
        limits: list[int] = []
        increments: list[Increment] = []
        for cap in self._caps:
            if cap.rest is None or cap.rest(event, recipient):
                head, keep_until_ms = cap.days.get(today.label) or cap.of_day(windows, today)
                key = head + (event.account if cap.by_account else cap.scope(event, recipient, template))
                keys.append(key)
                limits.append(cap.limit)
                increments.append((key, 1, keep_until_ms))
        nears: list[tuple[str, int, int]] = []
        marks: list[Mark] = []
        for dedup in self.dedups:
            if dedup.rest is None or dedup.rest(event, recipient):
                key = dedup.key(event, recipient)
                nears.append((key, 1, dedup.window_ms))
                marks.append(dedup.mark(key, now_ms))
        for near in self._nears:
            if near.rest is None or near.rest(event, recipient):
                key = near.prefix + near.scope(event, recipient, template)
                nears.append((key, near.limit, near.window_ms))
                marks.append(near.mark(key, now_ms))
        quiet = [rule for rule in self._quiet if rule.rest is None or rule.rest(event, recipient)]
        must_walk = any(rule.until(windows, today.zone, now_ms) is not None for rule in quiet) if quiet else False
        channels = [rule for rule in self._of_channels if rule.rest is None or rule.rest(event, recipient)]
        if not (keys or nears or must_walk or channels):
            return None, (), ()
        asked = Asked(
            event,
            recipient,
            template,
            now_ms,
            expires_ms,
            self.rules,
            self.dedups,
            windows,
            today,
            limits,
            nears,
            tuple(increments),
            tuple(marks),
            must_walk or bool(channels),
        )
        times = [key for key, _, _ in nears]
        for rule in channels:
            found = keys if isinstance(rule, CalendarCap) else times
            found.extend([key for _, key in rule.keys(asked, route, today)])
        return asked, keys, times
