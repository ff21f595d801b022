"""What passes between an alert and the rules that look at when it leaves. Pure data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from dispatcher.model.event import Event
from dispatcher.model.recipient import Recipient
from ratelimit.decision import Increment, Mark
from ratelimit.effects import AtLimit
from ratelimit.localday import LocalDay
from ratelimit.routes import SERVICE
from ratelimit.windows import Windows

if TYPE_CHECKING:
    from ratelimit.questions import TimedRule
    from ratelimit.timed import DedupRule

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


Near = tuple[int, int, bool]
"""Limit and window (ms) of a rule that looks at times, and whether it is a cap, whose count is shown."""


class Counted(Protocol):
    """The counters and marks as they stand, each read when it is asked for."""

    def value(self, key: str) -> int:
        """A counter; 0 when there is none."""

    def times(self, key: str) -> Sequence[int]:
        """The times of a mark, the oldest first."""


class Asked(msgspec.Struct, gc=False):
    """One alert and the rules that have to be asked about it.

    Most of them have nothing against sending now. So what that takes is worked out beforehand: it is sent now if the
    counters of ``increments`` are below ``limits``, and of the times of ``marks`` there are fewer than ``nears`` allow;
    then those are what it counts. This holds for ``route``. Whatever else has to be found out is up to `walk`, and
    ``must_walk`` says that there is no way around it. ``rules`` and ``dedups`` may have tests of their own (``rest``)
    that have yet to be asked.
    """

    event: Event
    recipient: Recipient
    template: str
    now_ms: int
    expires_ms: int
    route: tuple[str, ...]
    rules: Sequence[TimedRule]
    dedups: Sequence[DedupRule]
    windows: Windows
    today: LocalDay
    limits: Sequence[int]
    nears: Sequence[Near]
    increments: tuple[Increment, ...]
    marks: tuple[Mark, ...]
    must_walk: bool


class Pass(msgspec.Struct, gc=False):
    """One round of questions for one time of sending."""

    asked: Asked
    ledger: Counted
    route: tuple[str, ...]
    send_ms: int
    day: LocalDay
    counted: list[Increment]
    marks: list[Mark]
    full: dict[str, int]
    exempt: bool = False
    tightest: tuple[int, int, int] | None = None


class Against(msgspec.Struct, gc=False):
    """What a rule has against sending: it suppresses, folds, or holds until ``until_ms``."""

    rule: str
    what: AtLimit
    saw: dict[str, int]
    until_ms: int = 0


def channel_of(name: str) -> str:
    """The channel under whose rules a name of the route stands."""
    return "wechat" if name == SERVICE else name
