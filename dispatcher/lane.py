"""The lane of one channel: a bounded queue, a pacer, a bounded number in flight.

A lane takes what the pacer allows, renders it and hands it to the network in one batch; answers come back in batches
and leave as steps for the recorder. A place in flight is free again only when its outcome is *recorded*, so nothing
between the lane and the ledger can grow without bound.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Protocol

import trio

from dispatcher.channels.base import CannotPrepare, Channel, ChannelPaused
from dispatcher.delivery import AnswerClass, after_answer, after_expiry, after_refusal
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger.api import Ledger
from dispatcher.logs import get_logger
from dispatcher.model.alert import Alert, Step
from dispatcher.network.api import Network, Request, Response
from ratelimit.pacing import Pacer

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


class Budget(Protocol):
    """What a lane needs of a channel whose provider counts: an attempt leaves only with a permit."""

    def screen(self, batch: list[Alert], now_ms: int) -> tuple[list[Alert], list[Alert], list[Step]]:
        """(to hand over now, to put back into the queue, steps of those that go elsewhere or wait for room)."""

    def unused(self, count: int) -> None:
        """So many of those that were let go were not handed over after all."""

    def answered(self, count: int) -> None:
        """So many attempts have their answer, or never will."""


class Lane:
    """See the module. Two tasks run it, the sender and the classifier; the rest is called from the same trio loop."""

    def __init__(
        self,
        channel: Channel,
        *,
        host: LaneHost,
        ledger: Ledger,
        network: Network,
        pacer: Pacer,
        random: Random,
        capacity: int,
        in_flight: int,
    ) -> None:
        self.channel = channel
        self.capacity = capacity
        self.max_in_flight = in_flight
        self.in_flight = 0
        self.queue: deque[Alert] = deque()
        self._host = host
        self._ledger = ledger
        self._network = network
        self._pacer = pacer
        self._random = random
        self._work = trio.Event()
        self._room = trio.Event()
        self._answers: list[Response] = []
        self._answered = trio.Event()
        self._paused_until_ms = 0
        self._alarmed = False
        self._budget: Budget | None = getattr(channel, "budget", None)

    # ---- in ---------------------------------------------------------------------------------------------------

    @property
    def free(self) -> int:
        """Places left in the queue; negative when it went over: by the admissions under way, or by what is due."""
        return self.capacity - len(self.queue)

    def put(self, alerts: Sequence[Alert], *, first: bool = False) -> None:
        """Add alerts, behind the others or before them; the callers look at ``free`` before they fetch a batch."""
        if first:
            self.queue.extendleft(reversed(alerts))
        else:
            self.queue.extend(alerts)
        self._work.set()

    async def room(self) -> None:
        """Wait until the queue is below its capacity."""
        while self.free <= 0:
            await self._room.wait()

    # ---- out --------------------------------------------------------------------------------------------------

    async def run_sender(self) -> None:
        """Send what comes in, for ever. When cancelled, what was not handed to the network stays in ``queue``."""
        while True:
            await self._until_sendable()
            room = min(len(self.queue), self.max_in_flight - self.in_flight, SEND_BATCH)
            granted = await self._pacer.acquire_up_to(room)
            batch = [self.queue.popleft() for _ in range(min(granted, len(self.queue)))]
            with trio.CancelScope(shield=True):  # a popped alert is either handed over or given a step
                trouble = await self._send(batch)
            if trouble is not None:
                await self._host.ledger_trouble(trouble)
            # Every waiter has this event; the next one to find the lane full gets a new one.
            self._room.set()
            self._room = trio.Event()

    async def _until_sendable(self) -> None:
        while True:
            if not self.queue or self.in_flight >= self.max_in_flight:
                self._work = trio.Event()
                await self._work.wait()
            elif (wait_ms := self._paused_until_ms - self._host.now_ms()) > 0:
                await trio.sleep(wait_ms / 1000)
            else:
                await self._host.lease_held()
                try:
                    await self.channel.ready()
                except ChannelPaused as paused:
                    self._alarmed = True
                    self._host.paused(self.channel.name, str(paused), misconfigured=paused.misconfigured)
                    self._paused_until_ms = self._host.now_ms() + int(paused.retry_after_s * 1000)
                else:
                    return

    async def _send(self, batch: list[Alert]) -> LedgerUnavailable | None:
        """Hand a batch over; the error when it could not be fenced and is back in the queue."""
        now_ms = self._host.now_ms()
        steps: list[Step] = []
        requests: list[Request] = []
        back: list[Alert] = []
        whole, taken = batch, len(batch)
        if self._budget is not None:
            batch, back, steps = self._budget.screen(batch, now_ms)
            taken -= len(back)
        for alert in batch:
            if alert.expires_ms <= now_ms:
                steps.append(after_expiry(alert, now_ms))
                continue
            try:
                requests.append(self.channel.prepare(alert))
            except CannotPrepare as refused:
                steps.append(after_refusal(alert, refused.code, now_ms))
            except Exception as error:
                # A defect of ours in one alert's words fails that alert, never the engine.
                log.exception("prepare_failed", channel=self.channel.name, alert=alert.id)
                steps.append(after_refusal(alert, f"internal:{type(error).__name__}", now_ms))
        if requests and self.channel.fenced:
            try:
                await self._ledger.fence([request.tag.id for request in requests], self._host.owner)
            except LedgerUnavailable as error:
                self.queue.extendleft(reversed(whole))  # nothing left: they are as they were
                if self._budget is not None:
                    self._budget.unused(len(batch))
                return error
        if self._budget is not None and len(requests) < len(batch):
            self._budget.unused(len(batch) - len(requests))
        self.queue.extendleft(reversed(back))
        self.in_flight += taken
        if requests:
            self._network.submit(requests, self._on_responses)
        if steps:
            self._host.record(steps, self)
        return None

    def _on_responses(self, responses: list[Response]) -> None:
        self._answers.extend(responses)
        self._answered.set()

    async def run_classifier(self) -> None:
        """Turn the network's answers into steps, for ever; goes on after the sender was stopped."""
        while True:
            await self._answered.wait()
            self._answered = trio.Event()
            responses, self._answers = self._answers, []
            now_ms = self._host.now_ms()
            steps = []
            refused = ""
            classify, policy_of = self.channel.classify, self.channel.policy
            for response in responses:
                alert: Alert = response.request.tag
                answer = classify(alert, response)
                if answer.kind is AnswerClass.ACCEPTED:
                    if self._alarmed:
                        self._alarmed = False
                        self._host.resumed(self.channel.name)
                    steps.append(after_answer(alert, answer, policy_of(alert), now_ms, 0.0))
                    continue
                if not self.channel.knows(answer.code):
                    self._host.unknown_code(self.channel.name, answer.code)
                if answer.kind is AnswerClass.CONFIGURATION:
                    # Nothing else can succeed before a person has changed something.
                    self._paused_until_ms = now_ms + answer.pause_ms
                    refused = answer.code
                elif answer.scope == "channel" and 0 < answer.pause_ms <= LANE_PAUSE_MS:
                    self._paused_until_ms = now_ms + answer.pause_ms  # throttled as a whole: the others would be, too
                steps.append(after_answer(alert, answer, policy_of(alert), now_ms, self._random.random()))
            self._host.record(steps, self)
            if self._budget is not None:
                self._budget.answered(len(responses))
            if refused:
                why = f"the provider refuses this account or secret (code {refused});"
                hint = f"check the secret_file and account of [channels.{self.channel.name}]"
                self._alarmed = True
                self._host.paused(self.channel.name, f"{why} {hint}", misconfigured=True)

    def settled(self, count: int) -> None:
        """``count`` of this lane's alerts in flight are recorded: their places are free."""
        self.in_flight -= count
        self._work.set()
