"""The rules that look at when an alert leaves: quiet hours, gaps and caps, and deduplication. Pure.

They are asked in the order of the file with the time of sending, which is first now. A rule that holds moves that time,
and then all are asked again for the new one, until none has anything against it (`walk`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from dispatcher.model.event import Event
from dispatcher.model.recipient import Recipient
from ratelimit.decision import Fold, Increment, Mark
from ratelimit.effects import DIGEST_AT, AtLimit, Cap, Dedup, Digest, MinGap, QuietHours
from ratelimit.localday import LocalDay
from ratelimit.match import Test
from ratelimit.routes import SERVICE
from ratelimit.scopes import fingerprint_of, who_of, word
from ratelimit.windows import Windows

KEEP_COUNTER_MS = 2 * 24 * 3600 * 1000
"""How long a window's counter outlives its window: swipes that come in late still find it."""

MAX_MOVES = 64
"""Times that an alert is moved before it is given up: two months of full daily caps, or a gap of half an hour for more
than a day."""

KEPT_PAST = 4
"""Times up to now that a gap or a fingerprint remembers. One would do, were there no clock that is set back."""

MAX_RESERVED = 1_000
"""Times to come that one key remembers, 14 bytes each. Whoever would be held behind so many is suppressed."""

Keys = tuple[tuple[str, str], ...]
"""(channel or "", key) of one rule for one alert."""


class Counted(Protocol):
    """The counters and marks as they stand, each read when it is asked for."""

    def value(self, key: str) -> int:
        """A counter; 0 when there is none."""

    def times(self, key: str) -> Sequence[int]:
        """The times of a mark, the oldest first."""


class Asked:
    """One alert and the rules that have to be asked about it."""

    __slots__ = (
        "dedups",
        "event",
        "expires_ms",
        "first",
        "now_ms",
        "recipient",
        "rules",
        "template",
        "today",
        "windows",
    )

    def __init__(
        self,
        event: Event,
        recipient: Recipient,
        template: str,
        now_ms: int,
        expires_ms: int,
        rules: Sequence[TimedRule],
        dedups: Sequence[DedupRule],
        windows: Windows,
    ) -> None:
        self.event = event
        self.recipient = recipient
        self.template = template
        self.now_ms = now_ms
        self.expires_ms = expires_ms
        self.rules = rules
        self.windows = windows
        self.today = windows.days.of(recipient.timezone, now_ms)
        self.dedups = [(rule, rule.key(event, recipient)) for rule in dedups]
        self.first: list[Keys] = []

    def read(self, route: tuple[str, ...]) -> tuple[list[str], list[str]]:
        """The counters and marks that the rules look at when nothing is held; remembers the keys."""
        counters: list[str] = []
        marks = [key for _, key in self.dedups]
        for rule in self.rules:
            keys = rule.keys(self, route, self.today)
            self.first.append(keys)
            (counters if rule.counts else marks).extend([key for _, key in keys])
        return counters, marks


class Pass:
    """One round of questions for one time of sending."""

    __slots__ = ("asked", "counted", "day", "exempt", "full", "ledger", "marks", "route", "send_ms", "tightest")

    def __init__(self, asked: Asked, ledger: Counted, route: tuple[str, ...], send_ms: int, day: LocalDay) -> None:
        self.asked = asked
        self.ledger = ledger
        self.route = route
        self.send_ms = send_ms
        self.day = day
        self.exempt = False
        self.counted: list[Increment] = []
        self.marks: list[Mark] = []
        self.full: dict[str, int] = {}
        self.tightest: tuple[int, int, int] | None = None


class Against:
    """What a rule has against sending: it suppresses, folds, or holds until ``until_ms``."""

    __slots__ = ("rule", "saw", "until_ms", "what")

    def __init__(self, rule: str, what: AtLimit, saw: dict[str, int], until_ms: int = 0) -> None:
        self.rule = rule
        self.what = what
        self.saw = saw
        self.until_ms = until_ms


def channel_of(name: str) -> str:
    """The channel under whose rules a name of the route stands."""
    return "wechat" if name == SERVICE else name


class QuietRule:
    """Quiet hours."""

    __slots__ = ("_days", "_end", "_start", "_then", "id", "rest")
    counts = True
    by_channel = False

    def __init__(self, rule: QuietHours, rest: Test | None) -> None:
        self.id, self.rest = rule.id, rest
        self._start, self._end, self._days, self._then = rule.start, rule.end, rule.days, rule.then

    def keys(self, asked: Asked, route: tuple[str, ...], day: LocalDay) -> Keys:
        """None: they count nothing."""
        return ()

    def ask(self, now: Pass, keys: Keys) -> Against | None:
        """What they have against this time; passes note that the later ones are not to be asked."""
        if now.exempt:
            return None
        asked = now.asked
        until = asked.windows.quiet_until(self._start, self._end, self._days, now.day.zone, now.send_ms)
        if until is None:
            return None
        if self._then == "pass":
            now.exempt = True
            return None
        saw = {"quiet_at_ms": now.send_ms, "from_minute": _minute(self._start), "to_minute": _minute(self._end)}
        return Against(self.id, self._then, saw, until)


def _minute(time: str) -> int:
    return int(time[:2]) * 60 + int(time[3:])


class LimitRule:
    """What caps and gaps have in common: a scope, a channel perhaps, and what happens at the limit."""

    counts = False
    kind = ""

    def __init__(self, rule: Cap | MinGap, rest: Test | None, at: AtLimit) -> None:
        self.id, self.rest, self.at = rule.id, rest, at
        self.digest = rule.digest or Digest(at=DIGEST_AT)
        self.channel = rule.channel
        self.by_channel = rule.channel is not None or "channel" in rule.per
        self._named = "channel" in rule.per
        self._who = who_of(rule.per)
        self._category, self._template = "category" in rule.per, "template" in rule.per

    def keys(self, asked: Asked, route: tuple[str, ...], day: LocalDay) -> Keys:
        """Of each channel of the route that it is about, or the one key of a rule without channels."""
        scope = self._who(asked.event, asked.recipient)
        if self._template:
            scope = f"{word(asked.template)}|{scope}"
        if self._category:
            scope = f"{word(asked.event.category)}|{scope}"
        head = self.head(asked, day)
        if not self.by_channel:
            return (("", head + scope),)
        channels = dict.fromkeys(map(channel_of, route))
        return tuple(
            (channel, f"{head}{channel}|{scope}" if self._named else head + scope)
            for channel in channels
            if self.channel is None or channel == self.channel
        )

    def head(self, asked: Asked, day: LocalDay) -> str:
        """The first part of its keys."""
        return f"{self.kind}|{self.id}|"

    def ask(self, now: Pass, keys: Keys) -> Against | None:
        """What it has against this time. Full channels of a rule that suppresses are taken out of the route."""
        if not self.by_channel:
            against = self.look(now, keys[0][1])
            if against is None:
                self.count(now, keys[0][1])
            return against
        if self.at != "suppress":
            first = channel_of(now.route[0])
            return next((self.look(now, key) for channel, key in keys if channel == first), None)
        left = set(map(channel_of, now.route))
        for channel, key in keys:
            if channel not in left:
                continue
            against = self.look(now, key)
            if against is not None:
                left.discard(channel)
                now.route = tuple(name for name in now.route if channel_of(name) != channel)
                if not now.route:
                    return against
                now.full[f"full/{channel}/{self.id}"] = against.saw.get("counter", 1)
        return None

    def count_channels(self, now: Pass, keys: Keys) -> None:
        """Count what goes out, of a rule about channels: for every one in the route that it could be asked about."""
        left = now.route if self.at == "suppress" else now.route[:1]
        wanted = set(map(channel_of, left))
        seen = set()
        for channel, key in keys:
            if channel in wanted and key not in seen:
                seen.add(key)
                self.count(now, key)

    def look(self, now: Pass, key: str) -> Against | None:
        """What it has against this time with this key; None when there is room."""
        raise NotImplementedError

    def count(self, now: Pass, key: str) -> None:
        """Count an alert."""
        raise NotImplementedError


class CalendarCap(LimitRule):
    """A cap in a day, week or month of the recipient's time zone."""

    counts = True
    kind = "cap"

    def __init__(self, rule: Cap, rest: Test | None, window: Literal["day", "week", "month"]) -> None:
        super().__init__(rule, rest, rule.at_cap)
        self._limit, self._window = rule.limit, window
        self._saw: dict[str, int] = {} if window == "day" else {f"window/{window}": 1}

    def head(self, asked: Asked, day: LocalDay) -> str:
        """With the window's label, which has no zone: an account with recipients in two zones has one cap."""
        label = day.day if self._window == "day" else asked.windows.of(self._window, day).label
        return f"cap|{self.id}|{label}|"

    def look(self, now: Pass, key: str) -> Against | None:
        """Full at the limit; room again in the next window."""
        value, limit = now.ledger.value(key), self._limit
        room = (limit - value, value, limit)
        if value < limit:
            if now.tightest is None or room < now.tightest:
                now.tightest = room
            return None
        until = 0
        if self.at == "hold":
            until = now.asked.windows.next_start(self._window, now.day.zone, now.send_ms)
        return Against(self.id, self.at, {"counter": value, "limit": limit, **self._saw}, until)

    def count(self, now: Pass, key: str) -> None:
        """One more in the window."""
        ends_ms = now.day.ends_ms
        if self._window != "day":
            ends_ms = now.asked.windows.of(self._window, now.day).ends_ms
        now.counted.append((key, 1, ends_ms + KEEP_COUNTER_MS))


class RollingCap(LimitRule):
    """A cap in any stretch of a length."""

    kind = "roll"

    def __init__(self, rule: Cap, rest: Test | None) -> None:
        super().__init__(rule, rest, rule.at_cap)
        self._limit, self._window_ms = rule.limit, rule.rolling_seconds * 1000

    def look(self, now: Pass, key: str) -> Against | None:
        """Full when so many times are nearer than the window, before or after; room again when the limit-th last of
        all of them is a window away."""
        limit, window_ms, send_ms = self._limit, self._window_ms, now.send_ms
        times = now.ledger.times(key)
        near = sum(1 for time in times if -window_ms < time - send_ms < window_ms)
        if near < limit:
            room = (limit - near, near, limit)
            if now.tightest is None or room < now.tightest:
                now.tightest = room
            return None
        saw = {"counter": near, "limit": limit, "window_s": window_ms // 1000}
        return Against(self.id, _unless_reserved(self.at, times, now), saw, times[-limit] + window_ms)

    def count(self, now: Pass, key: str) -> None:
        """Remember the time."""
        now.marks.append((key, now.send_ms, self._limit, now.send_ms + self._window_ms + KEEP_COUNTER_MS))


class GapRule(LimitRule):
    """A least time between two."""

    kind = "gap"

    def __init__(self, rule: MinGap, rest: Test | None) -> None:
        super().__init__(rule, rest, rule.at_gap)
        self._gap_ms = rule.total_seconds * 1000

    def look(self, now: Pass, key: str) -> Against | None:
        """Too near to another one, before or after; far enough a gap after the last of those that are too near."""
        times = now.ledger.times(key)
        gap_ms, send_ms = self._gap_ms, now.send_ms
        last = max((time for time in times if -gap_ms < time - send_ms < gap_ms), default=None)
        if last is None:
            return None
        saw = {"last_ms": last, "gap_s": gap_ms // 1000}
        return Against(self.id, _unless_reserved(self.at, times, now), saw, last + gap_ms)

    def count(self, now: Pass, key: str) -> None:
        """Remember the time."""
        now.marks.append((key, now.send_ms, KEPT_PAST, now.send_ms + self._gap_ms + KEEP_COUNTER_MS))


def _unless_reserved(at: AtLimit, times: Sequence[int], now: Pass) -> AtLimit:
    """What happens at the limit; nobody more is held when too many are already."""
    if at != "hold" or len(times) < MAX_RESERVED:
        return at
    return "suppress" if sum(1 for time in times if time > now.asked.now_ms) >= MAX_RESERVED else at


class DedupRule:
    """Deduplication by fingerprint, within one recipient."""

    __slots__ = ("_fields", "_window_ms", "id", "rest")

    def __init__(self, rule: Dedup, rest: Test | None) -> None:
        self.id, self.rest = rule.id, rest
        self._fields, self._window_ms = rule.fingerprint, rule.total_seconds * 1000

    def key(self, event: Event, recipient: Recipient) -> str:
        """The mark of this fingerprint and recipient."""
        return f"dedup|{self.id}|{recipient.id}:{fingerprint_of(event, self._fields)}"

    def ask(self, now: Pass, key: str) -> Against | None:
        """Whether the same was sent, or will be, nearer than the window."""
        window_ms, send_ms = self._window_ms, now.send_ms
        for last in reversed(now.ledger.times(key)):
            if -window_ms < last - send_ms < window_ms:
                return Against(self.id, "suppress", {"last_ms": last, "window_s": window_ms // 1000})
        now.marks.append((key, send_ms, KEPT_PAST, send_ms + window_ms + KEEP_COUNTER_MS))
        return None


TimedRule = QuietRule | CalendarCap | RollingCap | GapRule


def timed_rule(rule: QuietHours | Cap | MinGap, rest: Test | None) -> TimedRule:
    """A rule of the file, ready to be asked."""
    if isinstance(rule, QuietHours):
        return QuietRule(rule, rest)
    if isinstance(rule, MinGap):
        return GapRule(rule, rest)
    return RollingCap(rule, rest) if rule.window is None else CalendarCap(rule, rest, rule.window)


def fold_of(rule: LimitRule, now: Pass) -> Fold:
    """The digest that an alert goes into which would have left at this time."""
    digest = rule.digest
    if digest.at is None:
        return Fold(rule.id, now.send_ms + (digest.after_minutes or 0) * 60_000, digest.count)
    return Fold(rule.id, now.asked.windows.next_time(digest.at, now.day.zone, now.send_ms), digest.count)
