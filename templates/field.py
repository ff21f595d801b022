"""What a template may be told: the facts that it is rendered from, and what a field is. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from dispatcher.model.event import Event
from templates.moments import DEFAULT_TIMEZONE
from templates.words import Words

Reader = Callable[["SwipeFacts", Words], str]

FieldType = Literal["text", "money", "time", "word"]
"""``text`` may be cut from its end, ``money`` may lose its separators but no digit; the others stay as they
are.
"""


class SwipeFacts(msgspec.Struct, frozen=True, gc=False):
    """All that a swipe alert is rendered from.

    ``day_total_minor`` is the account's net total of the swipe's local day, this swipe included, in minor
    units of the event's currency; None when it is not kept. ``late_seconds`` is how late the alert is
    when that is to be said; 0: it is not.
    """

    event: Event
    timezone: str = DEFAULT_TIMEZONE
    day_total_minor: int | None = None
    late_seconds: int = 0


class Field(msgspec.Struct, frozen=True):
    """A field that templates may use: its type, how it is read, and whether it may be empty (to be tested by
    ``if``).

    A text also has ``raw``, what it is made from, and ``missing``, the word for a text of which nothing is left
    once a channel has taken out what it does not show. ``few``: its values are few and come again, so that what
    is made from it is worth remembering.
    """

    type: FieldType
    read: Reader
    optional: bool = False
    missing: Callable[[Words], str] | None = None
    raw: Callable[[SwipeFacts], str | None] | None = None
    few: bool = False
