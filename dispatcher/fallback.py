"""Per category: which channels an alert may take, in which order, and how long each is given for its receipt. Pure.

The order is put upon the recipients before the send rules look at them, and the deadline upon the channel's policy
after an answer, so neither the rules nor the channels know of categories. A category that is not named has the
recipient's own order and ``receipts.deadline_seconds``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from dispatcher.delivery import ChannelPolicy
from dispatcher.model.alert import Alert
from dispatcher.model.recipient import Recipient

MAX_REMEMBERED = 1_024
"""Orders and policies that are kept, by what they are made from: a few lists of channels, times a few categories."""

PolicyOf = Callable[[Alert], ChannelPolicy]


class Orders:
    """The order of channels by category."""

    def __init__(self, channels: Mapping[str, Sequence[str]]) -> None:
        self._channels = {category: tuple(order) for category, order in channels.items()}
        self._made: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = {}

    def __bool__(self) -> bool:
        return bool(self._channels)

    def of(self, category: str, recipient: Recipient) -> Recipient:
        """The recipient as an alert of that category sees it: of its own channels those of the category, in the
        category's order. A channel that it has not chosen is never added."""
        order = self._channels.get(category)
        if order is None or order == recipient.channels:
            return recipient
        key = (category, recipient.channels)
        made = self._made.get(key)
        if made is None:
            if len(self._made) >= MAX_REMEMBERED:
                self._made.clear()
            made = self._made[key] = tuple(channel for channel in order if channel in recipient.channels)
        return recipient if made == recipient.channels else msgspec.structs.replace(recipient, channels=made)


def with_deadlines(policy_of: PolicyOf, deadline_ms: Mapping[str, int]) -> PolicyOf:
    """The channel's policies, with the deadline of the alert's category where one is named.

    It holds while there is a next channel: the last one has nothing to gain from giving up early. A channel that waits
    for no receipt goes on waiting for none.
    """
    if not deadline_ms:
        return policy_of
    made: dict[tuple[int, int], tuple[ChannelPolicy, ChannelPolicy]] = {}

    def policy(alert: Alert) -> ChannelPolicy:
        given = policy_of(alert)
        wait_ms = deadline_ms.get(alert.event.category)
        if wait_ms is None or given.receipt_ms in (None, wait_ms) or alert.position + 1 == len(alert.route):
            return given
        # By identity: a channel has a handful of policies, and to compare one costs more than the answer's whole step.
        known = made.get((id(given), wait_ms))
        if known is None or known[0] is not given:
            if len(made) >= MAX_REMEMBERED:
                made.clear()
            known = made[id(given), wait_ms] = given, msgspec.structs.replace(given, receipt_ms=wait_ms)
        return known[1]

    return policy
