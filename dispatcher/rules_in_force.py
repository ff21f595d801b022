"""The send rules in force: one place that admission and the lanes read and that a reload replaces."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dispatcher.model.alert import Alert
from dispatcher.model.event import Event
from dispatcher.model.recipient import Recipient
from ratelimit.rules import Decider

IsUrgent = Callable[[Event, Recipient], bool]


class RulesInForce:
    """Holds the decider that everybody asks now. Setting ``decider`` puts other rules in force, whole and at once: it
    is one reference, so a reader in another thread sees the old rules or the new ones.

    Who decides about several things that belong together (a batch) takes ``decider`` once and keeps it until they are
    done. What an alert was given when it was admitted (its route, its age, its counters) stays; its urgency, whether it
    says that it is late, the deadline for its receipt, and when it comes due whether its recipient still wants it, are
    asked when they are needed, by the rules in force then.
    """

    __slots__ = ("decider",)

    def __init__(self, decider: Decider) -> None:
        self.decider = decider

    def __repr__(self) -> str:
        return f"<RulesInForce {self.decider.rules.version_id}>"

    @property
    def is_urgent(self) -> IsUrgent | None:
        """Tells the urgent alerts; None while no rule has the effect ``priority``, so that nobody need be asked."""
        decider = self.decider
        return decider.is_urgent if decider.has_priorities else None

    def wanted(self, alert: Alert, channel: str) -> bool:
        """Whether the alert's recipient, as they are now, may be told on this channel."""
        decider = self.decider
        if not (decider.has_consents or alert.recipient.opt_out):  # nearly every alert
            return True
        return decider.consents(alert.event, alert.recipient, channel, alert.template.partition("@")[0])

    def parted(self, alerts: Sequence[Alert]) -> tuple[Sequence[Alert], Sequence[Alert]]:
        """(urgent ones, the others), each in the order given."""
        is_urgent = self.is_urgent
        if is_urgent is None:
            return (), alerts
        urgent: list[Alert] = []
        others: list[Alert] = []
        for alert in alerts:
            (urgent if is_urgent(alert.event, alert.recipient) else others).append(alert)
        return urgent, others
