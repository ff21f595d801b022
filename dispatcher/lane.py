"""The lane of one channel: a bounded queue, a pacer, a bounded number in flight.

A lane takes what the pacer allows, renders it and hands it to the network in one batch; answers come back in batches
and leave as steps for the recorder. A place in flight is free again only when its outcome is *recorded*, so nothing
between the lane and the ledger can grow without bound. Urgent alerts leave before all others, and fresh swipes before
late ones (`freshness`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Protocol

import trio

from dispatcher.channels.base import CannotPrepare, Channel, ChannelPaused
from dispatcher.delivery import Answer, AnswerClass, ChannelPolicy, after_answer, after_expiry, after_no_words
from dispatcher.errors import LedgerUnavailable
from dispatcher.freshness import FRESH, FRESH_SHARE, LATE, URGENT, Split, telling_age
from dispatcher.lane_gate import NO_LIMITS, LaneGate, Limits
from dispatcher.lane_queue import LaneQueue
from dispatcher.ledger.api import Ledger
from dispatcher.logs import get_logger
from dispatcher.model.alert import Alert, Step
from dispatcher.network.api import Network, Request, Response
from dispatcher.rules_in_force import IsUrgent, RulesInForce
from ratelimit.breaker import BreakerState
from ratelimit.leased import Grant, LeasedPacer
from ratelimit.pacing import Pacer
from templates.errors import is_panic

log = get_logger("lane")

SEND_BATCH = 256
"""Most alerts rendered in one go (about 5 ms of work), so that other tasks get their turn in between."""


LANE_PAUSE_MS = 15_000
"""Longest throttle that holds the whole lane. A spent daily quota asks for more; then each alert waits by itself, so
that one wrong answer does not silence the channel."""


class LaneHost(Protocol):
    """What a lane needs of its engine."""

    owner: int

    def now_ms(self) -> int:
        """Wall clock, epoch ms."""

    async def lease_held(self) -> None:
        """Returns while this process may send; waits while its lease is in doubt."""

    def record(self, steps: Sequence[Step], lane: Lane | None) -> None:
        """Hand steps to the recorder; ``lane`` gets its places in flight back once they are in the ledger."""

    async def ledger_trouble(self, error: LedgerUnavailable) -> None:
        """The ledger cannot write: waits a moment, or raises the error where waiting is not wanted."""

    def paused(self, channel: str, reason: str, *, misconfigured: bool) -> None:
        """The channel cannot send for a while."""

    def resumed(self, channel: str) -> None:
        """The channel is accepted again."""

    def unknown_code(self, channel: str, code: str) -> None:
        """A provider answered with a code that no table knows: an alarm."""

    def breaker_changed(self, channel: str, state: BreakerState) -> None:
        """The channel's breaker went over to another state."""


class Budget(Protocol):
    """What a lane needs of a channel whose provider counts: an attempt leaves only with a permit."""

    def screen(
        self, batch: list[Alert], now_ms: int, is_urgent: IsUrgent | None
    ) -> tuple[list[Alert], list[Alert], list[Step]]:
        """(to hand over now, to put back into the queue, steps of those that go elsewhere or wait for room).

        ``is_urgent`` as `RulesInForce.is_urgent`: what is urgent may use what is kept in reserve."""

    def unused(self, count: int) -> None:
        """So many of those that were let go were not handed over after all."""

    def answered(self, count: int) -> None:
        """So many attempts have their answer, or never will."""


class Versions(Protocol):
    """What a lane needs of the templates: that the version of each alert is there before it is rendered."""

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those that have to be learned first."""

    async def learn(self, names: set[str]) -> None:
        """Learn them. Raises `LedgerUnavailable`."""


class Lane:
    """See the module. Two tasks run it, the sender and the classifier; the rest is called from the same trio loop."""

    def __init__(
        self,
        channel: Channel,
        *,
        host: LaneHost,
        ledger: Ledger,
        network: Network,
        pacer: Pacer | LeasedPacer,
        random: Random,
        policy_of: Callable[[Alert], ChannelPolicy],
        capacity: int,
        in_flight: int,
        rules: RulesInForce,
        limits: Limits = NO_LIMITS,
        templates: Versions | None = None,
    ) -> None:
        self.channel = channel
        self.policy_of = policy_of
        self.capacity = capacity
        self.max_in_flight = in_flight
        self.in_flight = 0
        self.late_capacity = max(1, int(capacity * (1 - FRESH_SHARE)))
        self.queue = LaneQueue()
        self.on_room: Callable[[], None] = lambda: None
        self._host = host
        self._ledger = ledger
        self._network = network
        self._pacer = pacer
        self._random = random
        self._rules = rules
        self._templates = templates
        self._work = trio.Event()
        self._answers: list[Response] = []
        self._answered = trio.Event()
        self._paused_until_ms = 0
        self._alarmed = False
        self._on_wire = 0
        self._marks: dict[int, Grant] = {}  # of what is on the wire
        self.gate = LaneGate(channel, random, limits, policy_of)
        self._breaker_told = BreakerState.CLOSED
        self._budget: Budget | None = getattr(channel, "budget", None)

    # ---- in ---------------------------------------------------------------------------------------------------

    @property
    def pacer(self) -> Pacer | LeasedPacer:
        """Of the channel, or of several that one account pays for."""
        return self._pacer

    @property
    def free(self) -> int:
        """Places left in the queue; negative when it went over: by the admissions under way, or by what is due."""
        return self.capacity - len(self.queue)

    @property
    def free_for_late(self) -> int:
        """Places that late alerts may take: the others are kept for fresh ones."""
        return self.late_capacity - len(self.queue)

    @property
    def free_for_due(self) -> int:
        """Places for what is due again, counted without the fresh ones, so that a flood of those cannot keep it out."""
        return self.late_capacity - self.queue.length(LATE)

    def put(self, alerts: Sequence[Alert], *, first: bool = False) -> None:
        """Add alerts, behind the others of their class or before them; the callers look at ``free`` before they fetch a
        batch."""
        urgent, others = self._rules.parted(alerts)
        if urgent:
            self.queue.put(urgent, URGENT, first=first)
        fresh, late = Split(self._host.now_ms()).batch(others)
        self.queue.put(fresh, FRESH, first=first)
        if late:
            self.queue.put(late, LATE, first=first)
        self._work.set()

    # ---- out --------------------------------------------------------------------------------------------------

    async def run_sender(self) -> None:
        """Send what comes in, for ever. When cancelled, what was not handed to the network stays in ``queue``."""
        while True:
            room = await self._until_sendable()
            granted = await self._pacer.acquire_up_to(room)
            allowed = self.gate.allowance(self._host.now_ms())  # the breaker may have opened while it waited
            if allowed is not None and allowed < granted:
                self._pacer.give_back(granted - allowed)
                granted = allowed
            # One look at the oldest: what was fresh when it came may have waited for too long to be so still.
            self.queue.sink(FRESH, LATE, Split(self._host.now_ms()).late)
            batch = self.queue.take(granted)
            with trio.CancelScope(shield=True):  # a popped alert is either handed over or given a step
                trouble = await self._send(batch, granted)
            if trouble is not None:
                await self._host.ledger_trouble(trouble)
            self.on_room()

    def _places(self) -> int:
        """How many may be handed to the network now. What has no connection yet would leave when one is free and not
        when the pacer says so, hence no more than a burst of them."""
        burst = self._pacer.burst
        free = self.channel.connections + burst - self._on_wire
        if free < min(burst // 2, SEND_BATCH, len(self.queue)):
            # Every connection has its next request already, and a batch costs nearly the same for few as for many.
            return 0
        return min(len(self.queue), self.max_in_flight - self.in_flight, SEND_BATCH, free)

    async def _until_sendable(self) -> int:
        """Wait until something may leave; returns how much at most."""
        while True:
            now_ms = self._host.now_ms()
            room = self._places()
            if room <= 0:
                self._work = trio.Event()
                await self._work.wait()
            elif (wait_ms := max(self._paused_until_ms - now_ms, self.gate.open_for_ms(now_ms))) > 0:
                await trio.sleep(wait_ms / 1000)
            elif (allowed := self.gate.allowance(now_ms)) == 0:  # the probes are out
                self._tell_breaker()
                self._work = trio.Event()
                await self._work.wait()
            else:
                self._tell_breaker()
                await self._host.lease_held()
                try:
                    await self.channel.ready()
                except ChannelPaused as paused:
                    self._alarmed = True
                    self._host.paused(self.channel.name, str(paused), misconfigured=paused.misconfigured)
                    self._paused_until_ms = self._host.now_ms() + int(paused.retry_after_s * 1000)
                else:
                    return min(room, SEND_BATCH if allowed is None else allowed)

    def tick(self) -> None:
        """The engine's clock comes by: notice a silent provider, and do not let alerts lie where nothing leaves."""
        now_ms = self._host.now_ms()
        self.gate.silent(now_ms)
        self._tell_breaker()
        shut = self.gate.breaker.state is not BreakerState.CLOSED or self._paused_until_ms > now_ms
        steps = self.gate.sweep(self.queue, shut, self.capacity, now_ms)
        if steps:
            self.in_flight += len(steps)
            self._host.record(steps, self)
            self.on_room()

    def _tell_breaker(self) -> None:
        state = self.gate.breaker.state
        if state is not self._breaker_told:
            self._breaker_told = state
            self._host.breaker_changed(self.channel.name, state)

    async def _send(self, batch: list[Alert], granted: int) -> LedgerUnavailable | None:
        """Hand a batch over; the error when it could not be rendered or fenced and is back in the queue."""
        if self._templates is not None:
            versions = {alert.template for alert in batch}
            if self._templates.missing(versions):  # of another process, or told no longer
                try:
                    await self._templates.learn(versions)
                except LedgerUnavailable as error:
                    self.put(batch, first=True)
                    self._pacer.give_back(granted)
                    return error
        now_ms = self._host.now_ms()
        part = self._pacer.part if isinstance(self._pacer, LeasedPacer) else 1.0
        leaving, steps = self.gate.held(batch, now_ms, part)
        requests: list[Request] = []
        back: list[Alert] = []
        if self._budget is not None:
            leaving, back, elsewhere = self._budget.screen(list(leaving), now_ms, self._rules.is_urgent)
            steps += elsewhere
        for alert in telling_age(leaving, now_ms, self._rules.decider.say_late_ms):
            if alert.expires_ms <= now_ms:
                steps.append(after_expiry(alert, now_ms))
                continue
            try:
                requests.append(self.channel.prepare(alert))
            except CannotPrepare as refused:
                steps.append(after_no_words(alert, refused.code, now_ms))
            except BaseException as error:
                # A defect of ours in one alert's words fails that alert, never the engine.
                if not (isinstance(error, Exception) or is_panic(error)):
                    raise
                log.exception("prepare_failed", channel=self.channel.name, alert=alert.id)
                steps.append(after_no_words(alert, f"internal:{type(error).__name__}", now_ms))
        if granted > len(requests):
            self._pacer.give_back(granted - len(requests))
        if requests and self.channel.fenced:
            try:
                kept_back = await self._ledger.fence([request.tag.id for request in requests], self._host.owner)
            except LedgerUnavailable as error:
                self.put(batch, first=True)  # nothing left: they are as they were
                self._pacer.give_back(len(requests))
                if self._budget is not None:
                    self._budget.unused(len(leaving))
                return error
            if kept_back:  # cancelled or seen while they waited here: they are not ours any more and take no place
                gone = set(kept_back)
                requests = [request for request in requests if request.tag.id not in gone]
                batch = [alert for alert in batch if alert.id not in gone]
                self._pacer.give_back(len(gone))
            # The commit took its time, and they leave only now: not together with those that are granted next.
            self._pacer.retake(len(requests))
        if self._budget is not None and len(requests) < len(leaving):
            self._budget.unused(len(leaving) - len(requests))
        if back:
            self.put(back, first=True)
        self.in_flight += len(batch) - len(back)
        if requests:
            self._on_wire += len(requests)
            if isinstance(self._pacer, LeasedPacer) and (grant := self._pacer.mark()) is not None:
                self._marks.update((request.tag.id, grant) for request in requests)
            self.gate.sent([request.tag for request in requests], self._host.now_ms())
            self._network.submit(requests, self._on_responses)
        if steps:
            self._host.record(steps, self)
        return None

    def _on_responses(self, responses: list[Response]) -> None:
        self._on_wire -= len(responses)
        if self._marks:
            self._note_departures(responses)
        if self._places() > 0:
            self._work.set()
        self._answers.extend(responses)
        self._answered.set()

    def _note_departures(self, responses: list[Response]) -> None:
        assert isinstance(self._pacer, LeasedPacer)
        now = trio.current_time()
        for response in responses:
            grant = self._marks.pop(response.request.tag.id, None)
            if grant is not None:
                self._pacer.left(grant, now - response.seconds)

    async def run_classifier(self) -> None:
        """Turn the network's answers into steps, for ever; goes on after the sender was stopped."""
        while True:
            await self._answered.wait()
            self._answered = trio.Event()
            responses, self._answers = self._answers, []
            now_ms = self._host.now_ms()
            steps = []
            refused = ""
            accepted = 0
            others: list[tuple[Alert, Answer]] = []
            probing = self.gate.probing
            classify, policy_of = self.channel.classify, self.policy_of
            for response in responses:
                alert: Alert = response.request.tag
                answer = classify(alert, response)
                if answer.kind is AnswerClass.ACCEPTED:
                    if self._alarmed:
                        self._alarmed = False
                        self._host.resumed(self.channel.name)
                    accepted += 1
                    if probing:
                        self.gate.probes_answered([(alert, answer)], now_ms)
                    steps.append(after_answer(alert, answer, policy_of(alert), now_ms, 0.0))
                    continue
                others.append((alert, answer))
                if not self.channel.knows(answer.code):
                    self._host.unknown_code(self.channel.name, answer.code)
                if answer.kind is AnswerClass.CONFIGURATION:
                    # Nothing else can succeed before a person has changed something.
                    self._paused_until_ms = now_ms + answer.pause_ms
                    refused = answer.code
                elif answer.scope == "channel" and 0 < answer.pause_ms <= LANE_PAUSE_MS:
                    self._paused_until_ms = now_ms + answer.pause_ms  # throttled as a whole: the others would be, too
                steps.append(after_answer(alert, answer, policy_of(alert), now_ms, self._random.random()))
                if answer.kind is AnswerClass.THROTTLE:
                    self.gate.throttled(steps[-1], answer)
            if probing:
                self.gate.probes_answered(others, now_ms)
                self._work.set()
            self.gate.answered(others, accepted, now_ms)
            self._tell_breaker()
            self._host.record(steps, self)
            if self._budget is not None:  # what libcurl sent again by itself was counted by the provider, too
                self._budget.answered(len(responses) + sum(response.resends for response in responses))
            if refused:
                why = f"the provider refuses this account or secret (code {refused});"
                hint = f"check the secret_file and account of [channels.{self.channel.name.partition('_')[0]}]"
                self._alarmed = True
                self._host.paused(self.channel.name, f"{why} {hint}", misconfigured=True)

    def settled(self, count: int) -> None:
        """``count`` of this lane's alerts in flight are recorded: their places are free."""
        self.in_flight -= count
        self._work.set()
