"""Into which digest an alert is folded."""

from __future__ import annotations

import msgspec


class Fold(msgspec.Struct, frozen=True, gc=False):
    """The digest of ``rule`` leaves at ``due_ms`` (epoch ms) or with ``count`` members, whatever is first."""

    rule: str
    due_ms: int
    count: int | None
