"""What operators want to know about decisions that the ledger does not count: noted by the batch, for the metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dispatcher.ledger.api import Noted
from ratelimit.rules import Decision


class Noting:
    """Looks at the decisions of one batch."""

    def __init__(self) -> None:
        self._storms: Counter[str] = Counter()
        self._folded: Counter[str] = Counter()
        self._wrong_zones = 0

    def look_at(self, decisions: Sequence[Decision]) -> None:
        """Those of one event."""
        for decision in decisions:
            if decision.zone_fallback:
                self._wrong_zones += 1
            if decision.state == "send":  # nearly all
                continue
            if decision.state == "held":
                if decision.saw is not None and "storm" in decision.saw:
                    self._storms[decision.rule] += 1
            elif decision.state == "folded":
                self._folded[decision.rule] += 1

    def noted(self) -> Noted:
        """What there was."""
        return Noted(dict(self._storms), dict(self._folded), self._wrong_zones)
