"""The send rules in force: one place that admission and the lanes read and that a reload replaces."""

from __future__ import annotations

from ratelimit.rules import Decider


class RulesInForce:
    """Holds the decider that everybody asks now. Setting ``decider`` puts other rules in force, whole and at once: it
    is one reference, so a reader in another thread sees the old rules or the new ones.

    Who decides about several things that belong together (a batch) takes ``decider`` once and keeps it until they are
    done. What an alert was given when it was admitted (its route, its age, its counters) stays; its urgency and the
    deadline for its receipt are asked when they are needed, and so follow the rules in force then.
    """

    __slots__ = ("decider",)

    def __init__(self, decider: Decider) -> None:
        self.decider = decider

    def __repr__(self) -> str:
        return f"<RulesInForce {self.decider.rules.version_id}>"
