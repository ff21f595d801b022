"""What a rule may say: one struct for each effect of the rule file, as `rulefile` reads it. Pure data.

Times of day are ``"HH:MM"`` in the recipient's time zone; amounts are minor units; what is a list may be written as a
single word in the file. A rule without ``when`` holds for everything its own keys name.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from dispatcher.model.event import MAX_INT64
from dispatcher.model.recipient import ChannelName

MAX_EXPIRE_AFTER_SECONDS = 31 * 24 * 3600
"""A month: an alert that is older tells nobody anything, and a slipped digit should not keep one open for
years. No gap and no window is longer either, since what is held beyond its expiry is never sent."""

MAX_ROLLING_LIMIT = 1_000
"""Alerts that a rolling cap may allow: it remembers the time of each of them, 14 bytes a time for each scope."""

MAX_WORDS = 64
"""Words of one list, such as the categories of a ``when``."""

MAX_WORD_CHARS = 64
"""Characters of a word, such as a category. An event may bring a longer one: no rule names it, and it is never kept."""

MAX_DIGEST_MEMBERS = 1_000
"""Alerts in one digest: its text names sums, but every member is a row of the books that is closed with it."""

Word = Annotated[str, Meta(min_length=1, max_length=MAX_WORD_CHARS)]
Words = Annotated[tuple[Word, ...], Meta(max_length=MAX_WORDS)]
Amount = Annotated[int, Meta(ge=0, le=MAX_INT64)]
Whole = Annotated[int, Meta(ge=0, le=MAX_EXPIRE_AFTER_SECONDS)]
Scope = Literal["account", "recipient", "channel", "category", "template", "merchant"]
Field = Literal["merchant", "amount", "currency", "type", "mcc", "city", "country", "orig_amount", "category", "time"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
AtLimit = Literal["suppress", "hold", "digest"]
TimeOfDay = Annotated[str, Meta(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$")]

DEFAULT_FINGERPRINT: tuple[Field, ...] = ("merchant", "amount", "currency", "type")
"""Two swipes that agree in these are taken for one that was told twice."""

DIGEST_AT = "20:00"
"""When a digest leaves of which the file says no time: in the evening, when a sum of the day is read."""


def minute_of_day(time: str) -> int:
    """Minutes since midnight of ``"HH:MM"``."""
    return int(time[:2]) * 60 + int(time[3:])


class When(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which alerts a rule is about. All keys that are given must match; a list matches any of its words.

    ``amount_from`` and ``amount_below`` compare the size of the amount (a refund's too) in minor units and need exactly
    one ``currency``. ``mcc`` may end in x: ``"58xx"``. ``declined`` looks at the event's status, ``foreign`` at whether
    the purchase was made in another currency. ``locale`` ``"zh"`` matches ``"zh-CN"`` too.
    """

    category: Words = ()
    type: Words = ()
    currency: Words = ()
    country: Words = ()
    mcc: Words = ()
    amount_from: Amount | None = None
    amount_below: Amount | None = None
    declined: bool | None = None
    foreign: bool | None = None
    role: Words = ()
    locale: Words = ()


class Digest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a digest leaves: at the next ``at`` o'clock, or ``after_minutes`` from its first member; in any case as
    soon as it has ``count`` members."""

    at: TimeOfDay | None = None
    after_minutes: Annotated[int, Meta(ge=1, le=MAX_EXPIRE_AFTER_SECONDS // 60)] | None = None
    count: Annotated[int, Meta(ge=1, le=MAX_DIGEST_MEMBERS)] | None = None


class _Rule(msgspec.Struct, frozen=True, tag_field="effect", forbid_unknown_fields=True):
    id: str


class MinAmount(_Rule, frozen=True, tag="min_amount"):
    """Leave ``channel`` out below an amount; ``amounts`` maps a currency to minor units."""

    channel: ChannelName
    amounts: dict[str, int]
    when: When = When()


class ExpireAfter(_Rule, frozen=True, tag="expire_after"):
    """Do not send alerts of ``category`` that are older than the sum of hours, minutes and seconds.

    An alert that is told later than ``say_late_minutes`` after the swipe says so.
    """

    category: Word
    hours: Whole = 0
    minutes: Whole = 0
    seconds: Whole = 0
    say_late_minutes: Annotated[int, Meta(ge=1, le=MAX_EXPIRE_AFTER_SECONDS // 60)] | None = None
    when: When = When()

    @property
    def total_seconds(self) -> int:
        """The age limit in seconds."""
        return (self.hours * 60 + self.minutes) * 60 + self.seconds


class Cap(_Rule, frozen=True, tag="cap"):
    """At most ``limit`` alerts for each of what ``per`` names, in a calendar ``window`` of the recipient's time zone
    or in any stretch of ``rolling_hours`` and ``rolling_minutes``."""

    limit: Annotated[int, Meta(ge=1, le=MAX_INT64)]
    per: tuple[Scope, ...]
    window: Literal["day", "week", "month"] | None = None
    rolling_hours: Whole = 0
    rolling_minutes: Whole = 0
    channel: ChannelName | None = None
    at_cap: AtLimit = "suppress"
    digest: Digest | None = None
    when: When = When()

    @property
    def rolling_seconds(self) -> int:
        """The rolling window in seconds; 0: a calendar window."""
        return (self.rolling_hours * 60 + self.rolling_minutes) * 60


class MinGap(_Rule, frozen=True, tag="min_gap"):
    """At least hours, minutes and seconds (added up) between two alerts of what ``per`` names."""

    hours: Whole = 0
    minutes: Whole = 0
    seconds: Whole = 0
    per: tuple[Scope, ...] = ("recipient",)
    channel: ChannelName | None = None
    at_gap: AtLimit = "suppress"
    digest: Digest | None = None
    when: When = When()

    @property
    def total_seconds(self) -> int:
        """The gap in seconds."""
        return (self.hours * 60 + self.minutes) * 60 + self.seconds


class Dedup(_Rule, frozen=True, tag="dedup"):
    """Tell a recipient only one of the alerts whose ``fingerprint`` fields are equal and whose times of sending are
    nearer than hours, minutes and seconds (added up)."""

    hours: Whole = 0
    minutes: Whole = 0
    seconds: Whole = 0
    fingerprint: tuple[Field, ...] = DEFAULT_FINGERPRINT
    when: When = When()

    @property
    def total_seconds(self) -> int:
        """The window in seconds."""
        return (self.hours * 60 + self.minutes) * 60 + self.seconds


class QuietHours(_Rule, frozen=True, tag="quiet_hours"):
    """Hold, suppress or pass alerts from ``from`` to ``to`` o'clock, on ``days`` only if given: the days on which the
    quiet hours begin."""

    start: TimeOfDay = msgspec.field(name="from")
    end: TimeOfDay = msgspec.field(name="to")
    days: tuple[Day, ...] = ()
    then: Literal["hold", "suppress", "pass"] = "hold"
    when: When = When()


class ConsentRule(_Rule, frozen=True, tag="consent"):
    """Tell alerts of ``category`` (on ``channel``, with ``template``) only to who agreed (``opt-in``), or to everybody
    but who objected (``opt-out``)."""

    category: Word
    mode: Literal["opt-in", "opt-out"]
    channel: ChannelName | None = None
    template: Word | None = None
    when: When = When()


class Route(_Rule, frozen=True, tag="route"):
    """The order of the channels, and how long each waits for its receipt before the next is tried."""

    when: When
    channels: tuple[ChannelName, ...]
    deadline_seconds: Annotated[int, Meta(ge=1, le=MAX_EXPIRE_AFTER_SECONDS)] | None = None


class Priority(_Rule, frozen=True, tag="priority"):
    """What matches is urgent: it goes first and may use what is reserved."""

    when: When


class Storm(_Rule, frozen=True, tag="storm"):
    """Hold back a burst until somebody looks: more than ``limit`` events with one ``fingerprint`` in ``minutes`` (the
    first of an account's day, half as many as the limit, are not counted), or an hour with more than ``volume_times``
    its usual number and at least ``at_least``. One in ``sample`` is told."""

    fingerprint: tuple[Field, ...] = ()
    limit: Annotated[int, Meta(ge=1, le=MAX_INT64)] | None = None
    minutes: Annotated[int, Meta(ge=1, le=MAX_EXPIRE_AFTER_SECONDS // 60)] | None = None
    volume_times: Annotated[float, Meta(ge=1, le=1_000_000)] | None = None
    at_least: Annotated[int, Meta(ge=1, le=MAX_INT64)] | None = None
    sample: Annotated[int, Meta(ge=0, le=MAX_INT64)] = 0
    when: When = When()


Rule = MinAmount | Cap | MinGap | Dedup | QuietHours | ConsentRule | ExpireAfter | Route | Priority | Storm

Kind = (
    type[MinAmount]
    | type[Cap]
    | type[MinGap]
    | type[Dedup]
    | type[QuietHours]
    | type[ConsentRule]
    | type[ExpireAfter]
    | type[Route]
    | type[Priority]
    | type[Storm]
)

KINDS: dict[str, Kind] = {
    "min_amount": MinAmount,
    "cap": Cap,
    "min_gap": MinGap,
    "dedup": Dedup,
    "quiet_hours": QuietHours,
    "consent": ConsentRule,
    "expire_after": ExpireAfter,
    "route": Route,
    "priority": Priority,
    "storm": Storm,
}
