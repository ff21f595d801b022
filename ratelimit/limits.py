"""Caps and gaps, ready to be asked. Pure.

Those that hold reserve a time to come, so all of them look at times on both sides of the one they are asked about.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Literal

from dispatcher.model.event import Event
from dispatcher.model.recipient import Recipient
from ratelimit.asked import KEEP_COUNTER_MS, KEPT_PAST, MAX_RESERVED, Against, Asked, Keys, Pass, channel_of
from ratelimit.decision import Fold, Mark
from ratelimit.effects import DIGEST_AT, AtLimit, Cap, Digest, MinGap
from ratelimit.localday import LocalDay
from ratelimit.match import Test
from ratelimit.scopes import who_of, word
from ratelimit.windows import Windows


class LimitRule:
    """What caps and gaps have in common: a scope, a channel perhaps, and what happens at the limit."""

    kind = ""

    def __init__(self, rule: Cap | MinGap, rest: Test | None, at: AtLimit) -> None:
        self.id, self.rest, self.at = rule.id, rest, at
        self.digest = rule.digest or Digest(at=DIGEST_AT)
        self.channel = rule.channel
        self.prefix = f"{self.kind}|{self.id}|"
        # With or without channels, which stand before who is counted.
        only = set(rule.per) - {"channel"}
        self.by_account, self.by_recipient = only == {"account"}, only == {"recipient"}
        self.by_channel = rule.channel is not None or "channel" in rule.per
        self._named = "channel" in rule.per
        self._who = who_of(rule.per)
        self._category, self._template = "category" in rule.per, "template" in rule.per

    def keys(self, asked: Asked, route: tuple[str, ...], day: LocalDay) -> Keys:
        """Of each channel of the route that it is about, or the one key of a rule without channels."""
        scope = self.scope(asked.event, asked.recipient, asked.template)
        head = self.head(asked.windows, day)
        if not self.by_channel:
            return (("", head + scope),)
        channels = dict.fromkeys(map(channel_of, route))
        return tuple(
            (channel, f"{head}{channel}|{scope}" if self._named else head + scope)
            for channel in channels
            if self.channel is None or channel == self.channel
        )

    def heads(self, route: tuple[str, ...], windows: Windows, day: LocalDay) -> Sequence[str]:
        """The first parts of the keys that it counts when there is room for all of the route."""
        head = self.head(windows, day)
        if not self.by_channel:
            return (head,)
        # One that holds or folds is about the first channel only.
        channels = dict.fromkeys(map(channel_of, route if self.at == "suppress" else route[:1]))
        meant = [channel for channel in channels if self.channel in (None, channel)]
        return [f"{head}{channel}|" if self._named else head for channel in meant]

    def head(self, windows: Windows, day: LocalDay) -> str:
        """The first part of its keys."""
        return self.prefix

    def scope(self, event: Event, recipient: Recipient, template: str) -> str:
        """Who is counted, as the end of a key."""
        scope = self._who(event, recipient)
        if self._template:
            scope = f"{word(template)}|{scope}"
        return f"{word(event.category)}|{scope}" if self._category else scope

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

    kind = "cap"

    def __init__(self, rule: Cap, rest: Test | None, window: Literal["day", "week", "month"]) -> None:
        super().__init__(rule, rest, rule.at_cap)
        self.limit, self._window = rule.limit, window
        self._saw: dict[str, int] = {} if window == "day" else {f"window/{window}": 1}

    def head(self, windows: Windows, day: LocalDay) -> str:
        """With the window's label, which has no zone: an account with recipients in two zones has one cap."""
        return f"{self.prefix}{windows.of(self._window, day).label}|"

    def keep_until_ms(self, windows: Windows, day: LocalDay) -> int:
        """Until when to keep the counter of a day's window."""
        return windows.of(self._window, day).ends_ms + KEEP_COUNTER_MS

    def look(self, now: Pass, key: str) -> Against | None:
        """Full at the limit; room again in the next window."""
        value, limit = now.ledger.value(key), self.limit
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
        now.counted.append((key, 1, self.keep_until_ms(now.asked.windows, now.day)))


class NearRule(LimitRule):
    """What rolling caps and gaps have in common: at most ``limit`` times within a window of any other. ``most`` is how
    many times up to now are worth remembering."""

    is_cap = False

    def __init__(self, rule: Cap | MinGap, rest: Test | None, at: AtLimit, limit: int, seconds: int, most: int) -> None:
        super().__init__(rule, rest, at)
        self.limit, self.window_ms, self.most = limit, seconds * 1000, most
        self.keep_ms = self.window_ms + KEEP_COUNTER_MS

    def mark(self, key: str, send_ms: int) -> Mark:
        """The time to remember."""
        return key, send_ms, self.most, send_ms + self.keep_ms

    def count(self, now: Pass, key: str) -> None:
        """Remember the time."""
        now.marks.append(self.mark(key, now.send_ms))


class RollingCap(NearRule):
    """A cap in any stretch of a length."""

    kind = "roll"
    is_cap = True

    def __init__(self, rule: Cap, rest: Test | None) -> None:
        super().__init__(rule, rest, rule.at_cap, rule.limit, rule.rolling_seconds, rule.limit)

    def look(self, now: Pass, key: str) -> Against | None:
        """Full when so many times are nearer than the window, before or after; room again when the limit-th last of
        all of them is a window away."""
        limit, window_ms = self.limit, self.window_ms
        times = now.ledger.times(key)
        near = near_times(times, now.send_ms, window_ms)
        if near < limit:
            room = (limit - near, near, limit)
            if now.tightest is None or room < now.tightest:
                now.tightest = room
            return None
        saw = {"counter": near, "limit": limit, "window_s": window_ms // 1000}
        return Against(self.id, _unless_reserved(self.at, times, now), saw, times[-limit] + window_ms)


class GapRule(NearRule):
    """A least time between two."""

    kind = "gap"

    def __init__(self, rule: MinGap, rest: Test | None) -> None:
        super().__init__(rule, rest, rule.at_gap, 1, rule.total_seconds, KEPT_PAST)

    def look(self, now: Pass, key: str) -> Against | None:
        """Too near to another one, before or after; far enough a gap after the last of those that are too near."""
        times = now.ledger.times(key)
        gap_ms, send_ms = self.window_ms, now.send_ms
        last = max((time for time in times if -gap_ms < time - send_ms < gap_ms), default=None)
        if last is None:
            return None
        saw = {"last_ms": last, "gap_s": gap_ms // 1000}
        return Against(self.id, _unless_reserved(self.at, times, now), saw, last + gap_ms)


def near_times(times: Sequence[int], at_ms: int, window_ms: int) -> int:
    """How many of these times, the oldest first, are nearer to a moment than the window."""
    return bisect_left(times, at_ms + window_ms) - bisect_right(times, at_ms - window_ms)


def _unless_reserved(at: AtLimit, times: Sequence[int], now: Pass) -> AtLimit:
    """What happens at the limit; nobody more is held when too many are already."""
    if at != "hold" or len(times) < MAX_RESERVED:
        return at
    return "suppress" if sum(1 for time in times if time > now.asked.now_ms) >= MAX_RESERVED else at


def fold_of(rule: LimitRule, now: Pass) -> Fold:
    """The digest that an alert goes into which would have left at this time."""
    digest = rule.digest
    if digest.at is None:
        return Fold(rule.id, now.send_ms + (digest.after_minutes or 0) * 60_000, digest.count)
    return Fold(rule.id, now.asked.windows.next_time(digest.at, now.day.zone, now.send_ms), digest.count)
