"""What the send rules say about one alert: the types that admission, the ledger and what-if share. Pure data.

Times are epoch ms, amounts minor units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from dispatcher.model.event import Event

if TYPE_CHECKING:
    from ratelimit.asked import Asked
    from ratelimit.storms import StormGuards

Increment = tuple[str, int, int]
"""Counter key, what to add, and until when to keep the counter (epoch ms)."""

DayTotal = tuple[int, int]
"""What an account's events of one currency and local day come to, in minor units, and how many they are."""

Mark = tuple[str, int, int, int]
"""A time to remember: key, the time (epoch ms), how many of the times up to now to keep beside those to come, and
until when to keep the key (epoch ms)."""

State = Literal["send", "held", "suppressed", "expired", "folded"]


class Fold(msgspec.Struct, frozen=True, gc=False):
    """Into which digest an alert goes: the recipient's open one of ``rule``, or a new one that leaves at ``due_ms`` or
    as soon as it has ``count`` members (None: whatever their number)."""

    rule: str
    due_ms: int
    count: int | None = None


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What the rules say about one alert.

    ``send``: it may leave at once. ``held``: it may leave at ``send_ms`` (which is ``expires_at_ms`` for a storm: when
    nobody has looked at it by then, it expires). ``folded``: it becomes a member of the digest ``fold``. ``suppressed``
    and ``expired``: it ends.

    ``route`` is the allowed channels in order (empty when the state is ``suppressed`` or ``folded``). ``rule`` is the
    id of the rule that decided, or one of the reasons of `rulefile`; empty for ``send``. ``saw`` is what it looked at;
    `explain` makes a sentence of it. ``increments`` and ``times`` are what this alert counts, and are empty unless it
    is sent or held; ``day_total`` belongs to the event and its zone, is the same for all its recipients there, and
    counts once (see `Tally`); None when the event moved no money. ``zone_fallback`` marks a recipient whose time zone
    is not known.
    """

    state: State
    route: tuple[str, ...]
    rule: str
    saw: dict[str, int] | None
    expires_at_ms: int
    increments: tuple[Increment, ...]
    day_total_key: str
    day_total: Increment | None
    zone_fallback: bool
    send_ms: int = 0
    fold: Fold | None = None
    times: tuple[Mark, ...] = ()


class Plan(msgspec.Struct, frozen=True, gc=False):
    """All that can be said of one alert before its counters are known.

    ``counters`` and ``marks`` are the keys to read, and the day's total of ``decided``. ``decided`` holds unless its
    state is ``send`` and one of the ``storms`` holds it back or one of the timed rules that are ``asked`` stops or
    moves it.
    """

    event: Event
    counters: tuple[str, ...]
    decided: Decision
    now_ms: int
    marks: tuple[str, ...] = ()
    asked: Asked | None = None
    storms: StormGuards | None = None
