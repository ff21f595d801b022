"""What may leave a lane now, beside the channel's rate: breaker, retry budget, recipients' pauses, templates' rates.

An alert that has to wait goes back to the ledger with a time at which it is due; nothing is held in memory for it and
no attempt is counted. The usual alert, a first attempt while nothing is wrong, costs one look at it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random

import msgspec

from dispatcher.channels.base import Channel
from dispatcher.delivery import Answer, AnswerClass, ChannelPolicy, after_expiry, after_refusal, put_off
from dispatcher.lane_queue import LaneQueue
from dispatcher.model.alert import Alert, Step
from ratelimit.breaker import Breaker, BreakerState
from ratelimit.budget import RetryBudget
from ratelimit.leased import LeasedPacer
from ratelimit.recipients import RecipientPauses

SILENCE_MS = 4_000
"""No answer for so long, with requests on the wire, counts as failures: a provider that swallows everything would
otherwise be noticed only when the requests time out."""

SWEEP_MS = 1_000
"""Between two looks through the queue of a lane that cannot send."""

KEPT_PART = 4
"""Of a lane that cannot send a quarter of its capacity stays in memory, ready to leave when the provider is back; the
rest goes back to the ledger, so that the lane does not fill up and keep intake from feeding the other channels."""

SHORTEST_PUT_OFF_MS, LONGEST_PUT_OFF_MS = 5_000, 60_000
"""For what a lane that cannot send gives back: as long as it has been so already, within these. The longer an outage,
the less the ledger is written about it."""

DOWN_FALLBACK_MS = 5 * 60_000
"""Without a deadline for receipts, an alert that has another channel waits so long (from its acceptance) for one that
cannot send: the default of that deadline."""

SPACING_MS = 1_000
"""Between two alerts for one recipient that wait for the same moment: they come back one after the other."""

_FAILURES = frozenset({AnswerClass.UNKNOWN, AnswerClass.RETRY})
_NEUTRAL = frozenset({AnswerClass.REFRESH_TOKEN, AnswerClass.THROTTLE, AnswerClass.CONFIGURATION})
"""About our token, rate or account: neither a sign that the provider is down nor that it is well."""


class Limits(msgspec.Struct, frozen=True):
    """A channel's own limits. ``templates`` by the name of our template; ``recipient_per_minute`` None: no limit.

    Recipients are counted by each process for itself: in a fleet one recipient may get as many from each.
    """

    templates: Mapping[str, LeasedPacer] = {}
    recipient_per_minute: int | None = None


NO_LIMITS = Limits()


class LaneGate:
    """See the module. Called from the lane's tasks and from the engine's clock, all in one trio loop; never waits."""

    def __init__(
        self,
        channel: Channel,
        random: Random,
        limits: Limits = NO_LIMITS,
        policy_of: Callable[[Alert], ChannelPolicy] | None = None,
    ) -> None:
        self.breaker = Breaker()
        self.recipients = RecipientPauses(limits.recipient_per_minute)
        self.short_of: set[str] = set()
        """Templates whose rate has held something back; whoever looks takes them out."""
        self._policy_of = policy_of or channel.policy
        self._random = random
        self._templates = limits.templates
        self._template_slots = dict.fromkeys(limits.templates, 0)
        self._budget = RetryBudget()
        self._probes: set[int] = set()
        self._on_wire = 0
        self._last_answer_ms = 0
        self._swept_ms = 0
        self._shut_since_ms: int | None = None

    # ---- before the wire --------------------------------------------------------------------------------------

    def allowance(self, now_ms: int) -> int | None:
        """How many the breaker lets out now; None: any number."""
        return self.breaker.allowance(now_ms / 1000)

    def open_for_ms(self, now_ms: int) -> int:
        """How long nothing may leave yet: 0 when it is not open, or its probes are out and their answers decide."""
        if self.breaker.state is not BreakerState.OPEN:
            return 0
        # A millisecond more, so that no rounding makes the interval unfinished when the wait is over.
        return max(math.ceil(self.breaker.open_until * 1000) + 1 - now_ms, 0)

    def held(self, batch: Sequence[Alert], now_ms: int, part: float) -> tuple[Sequence[Alert], list[Step]]:
        """(those that may leave, steps of those that have to wait). ``part`` is this process's part of the rate."""
        watched = bool(self._templates) or bool(self.recipients)
        if not watched and not any(map(_tried, batch)):
            return batch, []
        leaving: list[Alert] = []
        waiting: list[Step] = []
        for alert in batch:
            due_ms = self._due_ms(alert, now_ms, part, watched) if watched or _tried(alert) else None
            if due_ms is None:
                leaving.append(alert)
            else:
                waiting.append(put_off(alert, now_ms, due_ms))
        return leaving, waiting

    def _due_ms(self, alert: Alert, now_ms: int, part: float, watched: bool) -> int | None:
        """When to look again at an alert that has to wait; None: it may leave, and is counted as leaving."""
        if watched:
            until_ms = self.recipients.wait_until(alert.recipient.id, now_ms)
            if until_ms > now_ms:
                return until_ms + int(self._random.random() * SPACING_MS)
        # With a new token it is the same attempt in the provider's eyes, and at most one for each alert; and after our
        # own process's death there is no failure of the provider that it would add to.
        if _tried(alert) and not alert.token_refreshed and not alert.process_died:
            policy, now = self._policy_of(alert).retry, now_ms / 1000
            if not self._budget.take(policy, now, part):
                wait = self._budget.put_off_seconds(policy, now, self._random.random(), part)
                return now_ms + max(int(wait * 1000), 1)
        if watched:
            template = alert.template.partition("@")[0]
            pacer = self._templates.get(template)
            if pacer is not None and not pacer.take_now(1):
                self.short_of.add(template)
                slot = max(self._template_slots[template], now_ms) + max(1000 // max(pacer.share, 1), 1)
                self._template_slots[template] = slot
                return slot
            self.recipients.sent(alert.recipient.id, now_ms)
        return None

    def sent(self, alerts: Sequence[Alert], now_ms: int) -> None:
        """These are handed to the network."""
        if not self._on_wire:
            self._last_answer_ms = now_ms
        self._on_wire += len(alerts)
        self._budget.first_attempts(sum(not _tried(alert) for alert in alerts))
        if self.breaker.state is BreakerState.HALF_OPEN:
            self._probes.update(alert.id for alert in alerts)
            self.breaker.sent_probes(len(alerts))

    # ---- after it ---------------------------------------------------------------------------------------------

    def answered(self, answers: Sequence[tuple[Alert, Answer]], accepted: int, now_ms: int) -> None:
        """``accepted`` simply accepted ones, and all other answers, of what was `sent`."""
        self._on_wire -= accepted + len(answers)
        self._last_answer_ms = now_ms
        failed = 0
        for _, answer in answers:
            if answer.kind in _FAILURES and answer.scope == "channel":
                failed += 1
            elif answer.kind not in _NEUTRAL:
                accepted += 1
        self.breaker.answered(now_ms / 1000, accepted, failed)

    def probes_answered(self, alerts: Sequence[tuple[Alert, Answer]], now_ms: int) -> None:
        """Looks for the probes among the answers; call it only while there are any (``probing``)."""
        for alert, answer in alerts:
            if alert.id in self._probes:
                self._probes.discard(alert.id)
                failed = answer.kind in _FAILURES and answer.scope == "channel"
                self.breaker.probe_answered(now_ms / 1000, not failed)

    @property
    def probing(self) -> bool:
        """Whether probes are out."""
        return bool(self._probes)

    def throttled(self, step: Step, answer: Answer) -> None:
        """A provider limits this recipient: the others for the same one wait as long as this alert."""
        if answer.scope == "recipient" and answer.pause_ms > 0 and step.due_ms is not None:
            self.recipients.pause(step.alert.recipient.id, step.due_ms)

    # ---- while nothing may leave ------------------------------------------------------------------------------

    def silent(self, now_ms: int) -> None:
        """To be called now and then: notices a provider that does not answer at all."""
        if self._on_wire and now_ms - self._last_answer_ms >= SILENCE_MS:
            self._last_answer_ms = now_ms
            self.breaker.answered(now_ms / 1000, 0, self._on_wire)

    def sweep(self, queue: LaneQueue, shut: bool, capacity: int, now_ms: int) -> list[Step]:
        """Steps of alerts taken out of the ``queue`` of a lane that cannot send (``shut``): expired ones, those that
        have waited long enough for this channel and have another, and what is too much to keep in memory."""
        if not shut:
            self._shut_since_ms = None
            return []
        if self._shut_since_ms is None:
            self._shut_since_ms = now_ms
        if now_ms - self._swept_ms < SWEEP_MS:
            return []
        self._swept_ms = now_ms
        steps = [
            after_expiry(alert, now_ms) if alert.expires_ms <= now_ms else after_refusal(alert, "channel-down", now_ms)
            for alert in queue.sift(lambda alert: alert.expires_ms <= now_ms or self._waited_enough(alert, now_ms))
        ]
        shut_for_ms = now_ms - self._shut_since_ms
        longest = min(max(shut_for_ms, SHORTEST_PUT_OFF_MS), LONGEST_PUT_OFF_MS)
        for alert in queue.take_last(len(queue) - capacity // KEPT_PART):
            wait_ms = int(longest * (0.5 + self._random.random() / 2))
            steps.append(put_off(alert, now_ms, now_ms + wait_ms))
        return steps

    def _waited_enough(self, alert: Alert, now_ms: int) -> bool:
        if alert.position + 1 >= len(alert.route):
            return False
        deadline_ms = self._policy_of(alert).receipt_ms or DOWN_FALLBACK_MS
        return now_ms >= alert.accepted_ms + deadline_ms


def _tried(alert: Alert) -> bool:
    """Whether its present channel has had it before. What came over from another one is a first attempt here."""
    return alert.first_attempt_ms is not None
