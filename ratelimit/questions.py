"""The timed rules that may match an alert, sorted by how they are asked. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress

from dispatcher.model.event import Event
from dispatcher.model.recipient import Recipient
from ratelimit.asked import Asked, Near
from ratelimit.decision import Increment, Mark
from ratelimit.effects import Cap, MinGap, QuietHours
from ratelimit.limits import CalendarCap, GapRule, LimitRule, NearRule, RollingCap
from ratelimit.localday import LocalDay
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


MAX_SHEETS = 2_048
"""Remembered sheets: one for each zone of the recipients and each of the few routes, 1.5 KB with five caps. There is
one of today only, since every combination of category, type and currency has its own."""

_ACCOUNT, _PERSON, _MORE = 0, 1, 2
"""Who is counted: most rules need no call to find out."""

_Scope = Callable[[Event, Recipient, str], str]


class _Sheet:
    """What is counted for the events of a local day on a route, as rows: the test that is left of a ``when``, the head
    of the key, who is counted, and then of a cap until when to keep the counter, or of a rule that looks at times how
    many to keep and for how long after the time of sending (ms)."""

    __slots__ = ("caps", "day", "has_tests", "limits", "near", "nears")

    def __init__(self, rules: Sequence[LimitRule], route: tuple[str, ...], windows: Windows, day: LocalDay) -> None:
        self.day = day.day
        self.caps: list[tuple[Test | None, str, int, _Scope, int]] = []
        self.limits: list[int] = []
        self.nears: list[tuple[Test | None, str, int, _Scope, int, int]] = []
        self.near: list[Near] = []
        for rule in rules:
            who = _ACCOUNT if rule.by_account else _PERSON if rule.by_recipient else _MORE
            for head in rule.heads(route, windows, day):
                if isinstance(rule, CalendarCap):
                    self.caps.append((rule.rest, head, who, rule.scope, rule.keep_until_ms(windows, day)))
                    self.limits.append(rule.limit)
                elif isinstance(rule, NearRule):
                    self.nears.append((rule.rest, head, who, rule.scope, rule.most, rule.keep_ms))
                    self.near.append((rule.limit, rule.window_ms, rule.is_cap))
        self.has_tests = any(row[0] is not None for row in (*self.caps, *self.nears))

    def of(self, event: Event, recipient: Recipient) -> _Sheet:
        """The rows whose tests this alert passes."""
        chosen = object.__new__(_Sheet)
        chosen.day = self.day
        caps = [row[0] is None or row[0](event, recipient) for row in self.caps]
        nears = [row[0] is None or row[0](event, recipient) for row in self.nears]
        chosen.caps, chosen.limits = list(compress(self.caps, caps)), list(compress(self.limits, caps))
        chosen.nears, chosen.near = list(compress(self.nears, nears)), list(compress(self.near, nears))
        chosen.has_tests = False
        return chosen


class Questions:
    """The timed rules and the deduplication that may match the events of one category, type and currency."""

    def __init__(self, rules: Sequence[TimedRule], dedups: Sequence[DedupRule]) -> None:
        self.rules = tuple(rules)
        self.dedups = tuple(dedups)
        self._quiet = [rule for rule in rules if isinstance(rule, QuietRule)]
        self._limits = [rule for rule in rules if not isinstance(rule, QuietRule)]
        self._about_channels = any(rule.by_channel for rule in self._limits)
        self._sheets: dict[tuple[str, tuple[str, ...]], _Sheet] = {}

    def ask(
        self,
        event: Event,
        recipient: Recipient,
        template: str,
        now_ms: int,
        expires_ms: int,
        route: tuple[str, ...],
        windows: Windows,
    ) -> tuple[Asked | None, list[str], list[str]]:
        """An alert with its rules, and the counters and marks that they look at unless it is held; None when none of
        them matches."""
        today = windows.days.of(recipient.timezone, now_ms)
        sheet = self._sheets.get((today.zone, route))
        if sheet is None or sheet.day != today.day:
            sheet = self._sheet(route, windows, today)
        if sheet.has_tests:
            sheet = sheet.of(event, recipient)
        account, person = event.account, str(recipient.id)
        # One expression each: a call for every row would cost as much as all the rest.
        increments: list[Increment] = [
            (
                head
                + (account if who == _ACCOUNT else person if who == _PERSON else scope(event, recipient, template)),
                1,
                keep_until_ms,
            )
            for _, head, who, scope, keep_until_ms in sheet.caps
        ]
        nears = sheet.near
        marks: list[Mark] = [
            (
                head
                + (account if who == _ACCOUNT else person if who == _PERSON else scope(event, recipient, template)),
                now_ms,
                most,
                now_ms + keep_ms,
            )
            for _, head, who, scope, most, keep_ms in sheet.nears
        ]
        if self.dedups:
            meant = [rule for rule in self.dedups if rule.rest is None or rule.rest(event, recipient)]
            nears = [*nears, *[(1, rule.window_ms, False) for rule in meant]]
            marks += [rule.mark(rule.key(event, person), now_ms) for rule in meant]
        must_walk = False
        for quiet in self._quiet:
            if not must_walk and (quiet.rest is None or quiet.rest(event, recipient)):
                must_walk = quiet.until(windows, today.zone, now_ms) is not None
        # A rule about channels may be about none of the route, until a brown-out changes that.
        if not (increments or marks or must_walk or self._about_channels):
            return None, [], []
        asked = Asked(
            event,
            recipient,
            template,
            now_ms,
            expires_ms,
            route,
            self.rules,
            self.dedups,
            windows,
            today,
            sheet.limits,
            nears,
            tuple(increments),
            tuple(marks),
            must_walk,
        )
        return asked, [key for key, _, _ in increments], [mark[0] for mark in marks]

    def _sheet(self, route: tuple[str, ...], windows: Windows, day: LocalDay) -> _Sheet:
        if len(self._sheets) >= MAX_SHEETS:
            self._sheets.clear()
        sheet = self._sheets[day.zone, route] = _Sheet(self._limits, route, windows, day)
        return sheet
