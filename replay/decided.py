"""What was decided about one alert, in the same words whether the rules say it now or the ledger remembers it."""

from __future__ import annotations

import msgspec

from dispatcher.ledger.api import Draft
from dispatcher.ledger.sqlite_history import DecidedState, PastAlert
from dispatcher.model.recipient import Recipient
from ratelimit.explain import explain_decision

SEND = "send"


class Decided(msgspec.Struct, frozen=True, gc=False):
    """``rule`` is the rule that decided, empty for ``send``; ``route`` the allowed channels in order, empty unless it
    is sent, held or expired. ``until`` (epoch ms) is until when a held one waits."""

    state: DecidedState
    rule: str
    route: tuple[str, ...]
    until: int | None

    @property
    def channel(self) -> str:
        """The first channel it is told on; empty when it is not told."""
        return self.route[0] if self.route and self.state in ("send", "held") else ""


def of_draft(draft: Draft) -> Decided:
    """What the rules have just said."""
    rule = draft.reason or ""
    if draft.state == "held":
        return Decided("held", rule, draft.route, draft.due_ms)
    if draft.fold is not None:
        return Decided("folded", rule, (), None)
    if draft.state == "suppressed":
        return Decided("suppressed", rule, (), None)
    if draft.state == "expired":
        return Decided("expired", rule, draft.route, None)
    return Decided("send", "", draft.route, None)


def of_record(alert: PastAlert) -> Decided:
    """What the ledger remembers."""
    return Decided(alert.state, alert.rule, alert.route, alert.until)


def sentence(draft: Draft, currency: str) -> str:
    """Why, as `swipebell explain` would say it."""
    decided = of_draft(draft)
    return explain_decision(decided.state, decided.rule, draft.saw, currency=currency, route=draft.route)


def role_of(recipient: Recipient | None) -> str:
    """For whom an alert is."""
    return "nobody" if recipient is None else recipient.role
