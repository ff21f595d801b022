"""The decisions of a batch: where the ledger's transaction meets the send rules.

`Admitter` is called by the ledger inside the admission transaction, with the new events, their recipients and a
reader of counters. It reads no clock and writes nothing; the ledger writes what it returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dispatcher.events import Accepted
from dispatcher.fallback import Orders
from dispatcher.ledger.api import Decisions, Draft, ReadCounters
from dispatcher.model.alert import State
from dispatcher.model.recipient import Recipient
from ratelimit.rules import NO_RECIPIENT, Decider, Decision, Rules, Tally
from templates.library import Library

DEFAULT_TEMPLATE = "swipe"
"""What tells an event whose category has no template of its own."""


class Admitter:
    """The send rules in force, for the configured channels. ``fenced`` says by channel whether an alert has to be
    fenced before it leaves (see `delivery`). ``orders`` puts the channels of a category in its order."""

    def __init__(
        self, rules: Rules, library: Library, fenced: Mapping[str, bool], orders: Orders | None = None
    ) -> None:
        self._orders = orders or None
        self._decider = Decider(rules, fenced)
        self._first_state: dict[str, State] = {
            name: "queued" if is_fenced else "sending" for name, is_fenced in fenced.items()
        }
        self._templates = {template.id: (template.pinned, template.id) for template in library}

    def __call__(
        self,
        batch: Sequence[Accepted],
        recipients: Mapping[str, Sequence[Recipient]],
        now_ms: int,
        read_counters: ReadCounters,
    ) -> Decisions:
        """See `dispatcher.ledger.api.Decide`."""
        plan, templates, orders = self._decider.plan, self._templates, self._orders
        default = templates[DEFAULT_TEMPLATE]
        planned = []
        keys: list[str] = []
        for accepted in batch:
            event = accepted.event
            told = recipients.get(event.account, ())
            if orders is not None:
                told = [orders.of(event.category, recipient) for recipient in told]
            pinned, name = templates.get(event.category, default)
            plans = [plan(event, accepted.swiped_ms, recipient, now_ms, name) for recipient in told]
            for one in plans:
                keys.extend(one.counters)
            planned.append((told, pinned, plans))
        tally = Tally(read_counters(list(dict.fromkeys(keys))) if keys else {})
        drafts: list[list[Draft]] = []
        for accepted, (told, pinned, plans) in zip(batch, planned, strict=True):
            if not plans:
                drafts.append([_nobody(pinned, accepted.swiped_ms)])
                continue
            decisions = tally.decide_event(plans)
            drafts.append(
                [
                    self._draft(recipient, pinned, decision, tally)
                    for recipient, decision in zip(told, decisions, strict=True)
                ]
            )
        return Decisions(drafts, tally.changed)

    def _draft(self, recipient: Recipient, template: str, decision: Decision, tally: Tally) -> Draft:
        route, state = decision.route, decision.state
        if state == "send":
            total = tally.value(decision.day_total_key)
            first = self._first_state[route[0]]
            return Draft(recipient, first, None, route, decision.expires_at_ms, template, decision.saw, total)
        return Draft(recipient, state, decision.rule, route, decision.expires_at_ms, template, decision.saw)


def _nobody(template: str, swiped_ms: int) -> Draft:
    return Draft(None, "suppressed", NO_RECIPIENT, (), swiped_ms, template)
