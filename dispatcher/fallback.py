"""How long a channel has for an alert's receipt before the next one is taken: by the rules with the effect ``route``.

The order of the channels is settled when the alert is admitted (`ratelimit.rules`); the deadline is put upon the
channel's policy after an answer, so the channels know of no rules. An alert that no such rule names, or whose rule has
no deadline, waits for ``receipts.deadline_seconds``.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from dispatcher.delivery import ChannelPolicy
from dispatcher.model.alert import Alert
from dispatcher.rules_in_force import RulesInForce

MAX_REMEMBERED = 1_024
"""Policies that are kept, by what they are made from: a handful of a channel's, times a few deadlines."""

PolicyOf = Callable[[Alert], ChannelPolicy]


def with_deadlines(policy_of: PolicyOf, rules: RulesInForce) -> PolicyOf:
    """The channel's policies, with the deadline that the rules in force have for the alert.

    It holds while there is a next channel: the last one has nothing to gain from giving up early. A channel that waits
    for no receipt goes on waiting for none.
    """
    made: dict[tuple[int, int], tuple[ChannelPolicy, ChannelPolicy]] = {}

    def policy(alert: Alert) -> ChannelPolicy:
        given = policy_of(alert)
        decider = rules.decider
        if not decider.has_deadlines or given.receipt_ms is None or alert.position + 1 == len(alert.route):
            return given
        wait_ms = decider.deadline_ms(alert.event, alert.recipient)
        if wait_ms is None or wait_ms == given.receipt_ms:
            return given
        # By identity: a channel has a handful of policies, and to compare one costs more than the answer's whole step.
        known = made.get((id(given), wait_ms))
        if known is None or known[0] is not given:
            if len(made) >= MAX_REMEMBERED:
                made.clear()
            known = made[id(given), wait_ms] = given, msgspec.structs.replace(given, receipt_ms=wait_ms)
        return known[1]

    return policy
