"""The decisions of a batch: where the ledger's transaction meets the send rules.

`Admitter` is called by the ledger inside the admission transaction, with the new events, their recipients and a
reader of counters. It reads no clock and writes nothing; the ledger writes what it returns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dispatcher.events import Accepted
from dispatcher.ledger.api import Decisions, Draft, ReadCounters
from dispatcher.model.alert import State
from dispatcher.model.recipient import Recipient
from ratelimit.rules import NO_RECIPIENT, Decider, Decision, Rules, Tally
from templates.library import Library

DEFAULT_TEMPLATE = "swipe"
"""What tells an event whose category has no template of its own."""


class Admitter:
    """The send rules in force, for the configured channels. ``fenced`` says by channel whether an alert has to be
    fenced before it leaves (see `delivery`)."""

    def __init__(self, rules: Rules, library: Library, fenced: Mapping[str, bool]) -> None:
        self._decider = Decider(rules, fenced)
        self._first_state: dict[str, State] = {
            name: "queued" if is_fenced else "sending" for name, is_fenced in fenced.items()
        }
        self._pinned = {template.id: template.pinned for template in library}

    def __call__(
        self,
        batch: Sequence[Accepted],
        recipients: Mapping[str, Sequence[Recipient]],
        now_ms: int,
        read_counters: ReadCounters,
    ) -> Decisions:
        """See `dispatcher.ledger.api.Decide`."""
        plan = self._decider.plan
        default = self._pinned[DEFAULT_TEMPLATE]
        planned = []
        for accepted in batch:
            event = accepted.event
            swiped_ms = int(event.time.timestamp() * 1000)
            told = recipients.get(event.account, ())
            template = self._pinned.get(event.category, default)
            name = template.partition("@")[0]
            plans = [plan(event, swiped_ms, recipient, now_ms, name) for recipient in told]
            planned.append((told, template, plans, swiped_ms))
        keys = {key for _, _, plans, _ in planned for one in plans for key in one.counters}
        tally = Tally(read_counters(list(keys)) if keys else {})
        drafts: list[list[Draft]] = []
        for told, template, plans, swiped_ms in planned:
            if not plans:
                drafts.append([_nobody(template, swiped_ms)])
                continue
            decisions = tally.decide_event(plans)
            drafts.append(
                [
                    self._draft(recipient, template, decision, tally.value(decision.day_total_key))
                    for recipient, decision in zip(told, decisions, strict=True)
                ]
            )
        return Decisions(drafts, tally.changed)

    def _draft(self, recipient: Recipient, template: str, decision: Decision, day_total: int) -> Draft:
        if decision.state == "send":
            return Draft(
                recipient,
                self._first_state[decision.route[0]],
                None,
                decision.route,
                decision.expires_at_ms,
                template,
                decision.saw,
                day_total,
            )
        return Draft(
            recipient,
            decision.state,
            decision.rule,
            decision.route,
            decision.expires_at_ms,
            template,
            decision.saw,
        )


def _nobody(template: str, swiped_ms: int) -> Draft:
    return Draft(None, "suppressed", NO_RECIPIENT, (), swiped_ms, template)
