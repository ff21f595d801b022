"""A provider's answers as a table: code -> class, what it is about, and how long to wait.

One table a provider. ``docs/channels.md`` is made from them, and one runner puts every row of every table to the test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from dispatcher.delivery import AFTER, AnswerClass, Next

Scope = Literal["message", "recipient", "template", "channel"]

FINAL: frozenset[Next] = frozenset({Next.END, Next.NEXT_CHANNEL})
"""Steps after which the provider is not asked again about this alert."""


class Row(msgspec.Struct, frozen=True):
    """One line of a table. ``pause_ms`` is how long to wait at least (0: the retry policy alone); ``note`` says what
    the provider means by it, in our words, and where that is known from."""

    kind: AnswerClass
    scope: Scope = "message"
    pause_ms: int = 0
    note: str = ""

    @property
    def retryable(self) -> bool:
        """Whether the same channel may be asked again."""
        return AFTER[self.kind] not in FINAL

    @property
    def action(self) -> str:
        """What follows, in words."""
        return str(AFTER[self.kind])


NOT_IN_TABLE = Row(AnswerClass.PERMANENT, "message", 0, "not in the table: a failure with an alarm, never a success")


class AnswerTable(msgspec.Struct, frozen=True):
    """All answers of one provider that are known. ``source`` says where they are from; codes are text, as `Answer`
    carries them."""

    provider: str
    source: str
    rows: Mapping[str, Row]

    def row(self, code: str) -> Row:
        """What a code means; `NOT_IN_TABLE` for one that nobody knows."""
        return self.rows.get(code, NOT_IN_TABLE)

    def knows(self, code: str) -> bool:
        """Whether the code stands here. Ours (``network-28``, ``http-502``, ``unreadable``) are not in a table; a
        caller asks only about the provider's."""
        return code in self.rows
