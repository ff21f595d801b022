"""The decisions of a batch: where the ledger's transaction meets the send rules.

`Admitter` is called by the ledger with the new events and their recipients; what it returns is called inside the
admission transaction with a reader of what was counted. It reads no clock and writes nothing; the ledger writes what
comes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from dispatcher.digests import rules_for_digests, told_by
from dispatcher.events import Accepted
from dispatcher.ledger.api import Counted, Decisions, Draft
from dispatcher.model.alert import State
from dispatcher.model.event import Event
from dispatcher.model.recipient import Recipient
from dispatcher.noting import Noting
from dispatcher.rules_in_force import RulesInForce
from ratelimit.brownout import BrownOutTerms
from ratelimit.degrade import degrade
from ratelimit.rules import NO_RECIPIENT, Decider, Decision, Plan, Rules, Tally
from ratelimit.tally import Keys, keys_of
from templates.choose import Chooser
from templates.library import Library
from templates.template import Template


class BrownOut(Protocol):
    """What admission asks a channel whose provider counts."""

    terms: BrownOutTerms

    @property
    def level(self) -> int:
        """The rung of the ladder in force; 0: nothing is given up."""

    def took_away(self, step: str) -> None:
        """An alert was kept from the channel by a step."""


_Planned = tuple[Sequence[Recipient], str, list[Plan]]
"""Who is told of an event, the pinned template, and the plans."""


class Admitter:
    """The send rules ``in_force``, for the configured channels. ``fenced`` says by channel whether an alert has to be
    fenced before it leaves (see `delivery`), ``brownouts`` says which channels have a daily quota that may run low."""

    def __init__(
        self,
        rules: Rules,
        library: Library,
        fenced: Mapping[str, bool],
        brownouts: Mapping[str, BrownOut] | None = None,
    ) -> None:
        self._brownouts = dict(brownouts or {})
        self._fenced = dict(fenced)
        self.in_force = RulesInForce(Decider(rules, self._fenced))
        self._first_state: dict[str, State] = {
            name: "queued" if is_fenced else "sending" for name, is_fenced in fenced.items()
        }
        self._chooser = Chooser(library)
        self._for_digests: tuple[Decider, Decider] | None = None
        """(rules in force, what is left of them for digests), made when the first digest comes."""

    def put_in_force(self, rules: Rules) -> None:
        """Decide by these rules from the next batch on; what is being decided is decided by the ones before."""
        self.in_force.decider = Decider(rules, self._fenced)

    def tell_by(self, chooser: Chooser) -> None:
        """Choose the templates so from the next batch on. The chooser is then this one's alone: the ledger's thread
        asks it."""
        self._chooser = chooser

    def __call__(
        self, batch: Sequence[Accepted], recipients: Mapping[str, Sequence[Recipient]], now_ms: int
    ) -> Callable[[Counted], Decisions]:
        """See `dispatcher.ledger.api.Decide`."""
        decider = self.in_force.decider  # once, so that a batch is decided by one set of rules
        choose = self._chooser.of
        plan, is_urgent = decider.plan, decider.is_urgent if decider.has_priorities else None
        planned: list[_Planned] = []
        taken: list[tuple[BrownOut, str]] = []
        # Once a batch: while no quota runs low, the ladder costs nothing an alert.
        ladder = [(name, one, one.level) for name, one in self._brownouts.items() if one.level]
        for accepted in batch:
            event = accepted.event
            told = recipients.get(event.account, ())
            template = choose(event)
            if event.digest is not None:
                planned.append(self._digest(decider, accepted, told, now_ms, template))
                continue
            name = template.id
            plans = [plan(event, accepted.swiped_ms, recipient, now_ms, name) for recipient in told]
            if ladder:
                plans = [
                    _degraded(one, event, ladder, None if is_urgent is None else is_urgent(event, recipient), taken)
                    for one, recipient in zip(plans, told, strict=True)
                ]
            planned.append((told, template.pinned, plans))
        wanted = keys_of([plans for _, _, plans in planned])
        return lambda counted: self._decided(decider.rules.version_id, batch, planned, wanted, taken, counted)

    def _decided(
        self,
        ruleset: str,
        batch: Sequence[Accepted],
        planned: Sequence[_Planned],
        wanted: Keys,
        taken: Sequence[tuple[BrownOut, str]],
        counted: Counted,
    ) -> Decisions:
        for brownout, step in taken:  # now, because what was planned may be planned anew
            brownout.took_away(step)
        tally = Tally(counted.counters, counted.marks, counted.totals)
        tally.prefetch(wanted)
        drafts: list[list[Draft]] = []
        noting = Noting()
        for accepted, (told, pinned, plans) in zip(batch, planned, strict=True):
            if not plans:
                drafts.append([_nobody(pinned, accepted.swiped_ms)])
                continue
            decisions = tally.decide_event(accepted.event, plans)
            noting.look_at(decisions)
            drafts.append(
                [
                    self._draft(recipient, pinned, decision, tally)
                    for recipient, decision in zip(told, decisions, strict=True)
                ]
            )
        return Decisions(
            drafts,
            tally.changed,
            tally.changed_marks,
            ruleset,
            noting.noted(),
            tally.changed_totals,
        )

    def _digest(
        self,
        decider: Decider,
        accepted: Accepted,
        recipients: Sequence[Recipient],
        now_ms: int,
        template: Template,
    ) -> _Planned:
        """Of a digest: neither folded nor browned out once more."""
        if self._for_digests is None or self._for_digests[0] is not decider:
            self._for_digests = decider, Decider(rules_for_digests(decider.rules), self._fenced)
        plan = self._for_digests[1].plan
        told = told_by(accepted.event, recipients)
        plans = [plan(accepted.event, accepted.swiped_ms, one, now_ms, template.id) for one in told]
        return told, template.pinned, plans

    def _draft(self, recipient: Recipient, template: str, decision: Decision, tally: Tally) -> Draft:
        route, state, expires_ms, saw = decision.route, decision.state, decision.expires_at_ms, decision.saw
        if state == "send":
            total = tally.day_total(decision.day_total_key)
            return Draft(recipient, self._first_state[route[0]], None, route, expires_ms, template, saw, total)
        rule = decision.rule
        if state == "held":
            total = tally.day_total(decision.day_total_key)
            return Draft(recipient, "held", rule, route, expires_ms, template, saw, total, decision.send_ms)
        ended: State = "expired" if state == "expired" else "suppressed"
        return Draft(recipient, ended, rule, route, expires_ms, template, saw, fold=decision.fold)


def _degraded(
    plan: Plan,
    event: Event,
    ladder: Sequence[tuple[str, BrownOut, int]],
    urgent: bool | None,
    taken: list[tuple[BrownOut, str]],
) -> Plan:
    for channel, brownout, level in ladder:
        plan, step = degrade(plan, event, channel, level, brownout.terms, urgent)
        if step is not None:
            taken.append((brownout, step))
    return plan


def _nobody(template: str, swiped_ms: int) -> Draft:
    return Draft(None, "suppressed", NO_RECIPIENT, (), swiped_ms, template)
