"""The path of one event, top to bottom.

    intake ──▶ admission ──▶ lane of a channel ──▶ provider
      ▲            │  ▲               │                │
      │ack         ▼  │due            ▼ outcome        ▼ receipt
      └──────── ledger ◀───────── recorder ◀───────────┘

`Engine.admit` is admission: one ledger transaction a batch, after which the event may be acknowledged. The alerts it
returns are leased to this process and go straight to their `Lane`. Answers become steps (`delivery`), the recorder
writes them in batches, and the clock task brings back what has become due: retries, expiries, deadlines, and the
alerts of processes that died. One nursery holds all of it; nothing here waits for one alert.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random

import trio

from dispatcher.channels.base import Channel
from dispatcher.config import EngineConfig
from dispatcher.delivery import after_receipt, given_back, when_due
from dispatcher.digests import Digests
from dispatcher.errors import ChannelMisconfigured, LedgerUnavailable
from dispatcher.events import Accepted
from dispatcher.fallback import with_deadlines
from dispatcher.gate import Gate
from dispatcher.lane import Lane
from dispatcher.lane_gate import NO_LIMITS, Limits
from dispatcher.lease import Lease
from dispatcher.ledger.api import Admission, Decide, Ledger, Receipt
from dispatcher.ledger.held import HELD_WAIT_MS
from dispatcher.logs import get_logger
from dispatcher.metrics import Meter
from dispatcher.model.alert import Alert, State, Step
from dispatcher.model.heard import Heard
from dispatcher.network.api import Network
from dispatcher.rates import SharedRates, leased_pacers, machine_clock_ms
from dispatcher.recorder import Recorder
from dispatcher.rules_in_force import RulesInForce
from dispatcher.storms import Storms
from dispatcher.template_versions import VersionedLibrary
from dispatcher.together import Together
from ratelimit.breaker import BreakerState
from ratelimit.leased import LeasedPacer
from ratelimit.pacing import Pacer

CLOCK_TICK_S = 0.2
"""How often the ledger is asked for what is due: a retry is late by this at most, and a look costs 0.1 ms."""

DUE_BATCH = 512
HOUSEKEEPING_S = 60.0
LEDGER_RETRY_S = 1.0
KNOWN_CHANNELS = ("wechat", "wechat_service", "sms", "email", "webhook")

log = get_logger("engine")


def wall_clock_ms() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000


class Engine:
    """One process's share of the work; use ``async with engine.running():``.

    ``rules`` are those that ``decide`` goes by; the lanes ask them which alerts are urgent, which are to say that
    they are late, and how long a channel has for its receipt. ``templates`` are those that the channels render with;
    None: each version that an alert may have is there already.

    ``fail_fast``: a ledger that cannot write or a wrong secret ends the run with its error (``send``, ``demo``);
    otherwise the engine waits until it is mended, raises the alarm metric, and intake answers 503 (``run``).
    """

    def __init__(
        self,
        *,
        config: EngineConfig,
        ledger: Ledger,
        network: Network,
        channels: Mapping[str, tuple[Channel, Pacer | LeasedPacer]],
        decide: Decide,
        rules: RulesInForce,
        ruleset: tuple[str, str],
        meter: Meter,
        templates: VersionedLibrary | None = None,
        limits: Mapping[str, Limits] = {},
        processes: int = 1,
        steady_ms: Callable[[], int] = machine_clock_ms,
        fail_fast: bool = False,
        now_ms: Callable[[], int] = wall_clock_ms,
        random: Random | None = None,
    ) -> None:
        self.config = config
        self.meter = meter
        self.owner = 0
        self.now_ms = now_ms
        self._ledger = ledger
        self._decide = decide
        self._rules = rules
        self._ruleset = ruleset
        self._fail_fast = fail_fast
        self._lease = Lease(ledger, config.lease_seconds, now_ms)
        self._something_due = trio.Event()
        self._fatal: ChannelMisconfigured | None = None
        self._fatal_known = trio.Event()
        self.trouble: str | None = None
        self.lanes = {
            name: Lane(
                channel,
                host=self,
                ledger=ledger,
                network=network,
                pacer=pacer,
                random=random or Random(),  # noqa: S311 - jitter
                policy_of=with_deadlines(channel.policy, rules),
                capacity=config.lane_capacity,
                # Fenced alerts that a crash catches in flight end as unknown, so no more than can be on the wire.
                in_flight=min(config.in_flight, channel.connections) if channel.fenced else config.in_flight,
                limits=limits.get(name, NO_LIMITS),
                rules=rules,
                templates=templates,
            )
            for name, (channel, pacer) in channels.items()
        }
        self.recorder = Recorder(host=self, ledger=ledger, meter=meter, lanes=self.lanes)
        self._rates = SharedRates(
            leased_pacers(channels, limits),
            ledger=ledger,
            processes=processes,
            waiting=self._waiting,
            steady_ms=steady_ms,
        )
        self._gate = Gate(list(self.lanes.values()), config.batch_events, now_ms)
        self._storms = Storms(meter)
        self._together = Together(self._admit, config.batch_events)
        self._digests = Digests(ledger, lambda batch: self._admit(batch, own=True), now_ms)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Engine]:
        """Hold the nursery. On leaving, waits up to ``drain_seconds`` for what is in flight and gives the rest back."""
        name = f"{socket.gethostname()}:{os.getpid()}"
        await self._ledger.ruleset(*self._ruleset, self.now_ms())
        self.owner = await self._lease.take(name)
        await self._ledger.take_over(self.owner, self.now_ms())
        try:
            async with trio.open_nursery() as nursery:
                # These outlive a cancellation from outside (Ctrl-C, a failed sibling) until the drain is over.
                draining = [
                    self._together.run,
                    self.recorder.run,
                    lambda: self._lease.keep(self.ledger_trouble),
                    *(lane.run_classifier for lane in self.lanes.values()),
                ]
                shields = [trio.CancelScope(shield=True) for _ in draining]
                for shield, task in zip(shields, draining, strict=True):
                    nursery.start_soon(_inside, shield, task)
                try:
                    async with trio.open_nursery() as senders:
                        senders.start_soon(self._bring_back_due)
                        senders.start_soon(self._rates.run, self.owner, self.ledger_trouble)
                        senders.start_soon(self._end_when_misconfigured)
                        for lane in self.lanes.values():
                            senders.start_soon(lane.run_sender)
                            if (background := getattr(lane.channel, "run", None)) is not None:
                                senders.start_soon(background)
                        yield self
                        senders.cancel_scope.cancel()
                finally:  # however it ends, answers that can still come are recorded
                    with trio.move_on_after(self.config.drain_seconds, shield=True):
                        await self._in_flight_settled()
                    for shield in shields:
                        shield.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await self._leave()

    # ---- intake → admission → lane ----------------------------------------------------------------------------

    async def admit(self, batch: Sequence[Accepted]) -> Admission:
        """Admit a batch; when this returns, it is durable and may be acknowledged.

        Call it between `reserve` and `release`, which are the backpressure. Raises `LedgerUnavailable` or
        `LedgerFailed`, and then nothing of the batch is in the ledger. When cancelled, the batch may have been
        admitted: send it again, it is recognised. Of several small ones that come at once one is made (see
        `together`); a large one goes by itself, so that it is worked on while another is being fsynced.
        """
        if 2 * len(batch) >= self.config.batch_events:
            return await self._admit(batch)
        return await self._together.admit(batch)

    async def _admit(self, batch: Sequence[Accepted], own: bool = False) -> Admission:
        try:
            admission = await self._ledger.admit(batch, self.now_ms(), self.owner, self._decide)
        except LedgerUnavailable as error:
            self.trouble = str(error)
            raise
        by_channel: dict[str, list[Alert]] = {}
        for alert in admission.alerts:
            by_channel.setdefault(alert.route[0], []).append(alert)
        for channel, alerts in by_channel.items():
            self.lanes[channel].put(alerts)
        self.meter.admitted(admission, own)
        if admission.noted.storms:
            self._storms.held(admission.noted.storms, self.now_ms())
        return admission

    async def reserve(self, events: int, newest: bytes | None = None) -> None:
        """Wait for the right to admit a batch: until no lane is full and few enough events are under way.

        ``newest`` is the line of its newest event: where any batch waits, those of late swipes wait behind fresh ones.
        None: they are fresh. Cancelled, it has taken nothing. `release` gives the right back.
        """
        await self._gate.reserve(events, newest)

    def release(self, events: int) -> None:
        """Give back what `reserve` took."""
        self._gate.release(events)

    @property
    def full(self) -> bool:
        """Whether a lane is full, so that `reserve` would wait now."""
        return any(lane.free <= 0 for lane in self.lanes.values())

    # ---- answers → recorder → ledger --------------------------------------------------------------------------

    def record(self, steps: Sequence[Step], lane: Lane | None) -> None:
        """See `Recorder.record`."""
        self.recorder.record(steps, lane)

    def ledger_is_well(self) -> None:
        """See `RecorderHost.ledger_is_well`."""
        self.trouble = None

    def something_is_due(self) -> None:
        """See `RecorderHost.something_is_due`."""
        self._something_due.set()

    # ---- receipts ---------------------------------------------------------------------------------------------

    async def receive(self, receipts: Sequence[Receipt]) -> None:
        """Take a batch of receipts; when this returns they are durable. Unknown and repeated ones are normal."""
        await self.recorder.room()
        found = await self._ledger.receipts(receipts, self.now_ms(), self.owner)
        self.record([after_receipt(alert, receipt.status, self.now_ms()) for alert, receipt in found], None)
        if len(found) < len(receipts):
            known = {(receipt.channel, receipt.msgid) for _, receipt in found}
            late = [receipt for receipt in receipts if (receipt.channel, receipt.msgid) not in known]
            self.meter.known_doubles(await self._ledger.new_doubles(late))

    async def hear(self, facts: Sequence[Heard]) -> None:
        """Take what WeChat users did; when this returns it is durable. Of strangers, repeated and late is normal."""
        await self._ledger.heard(facts, self.now_ms())

    # ---- the clock --------------------------------------------------------------------------------------------

    async def _bring_back_due(self) -> None:
        housekeeping_at = trio.current_time() + HOUSEKEEPING_S
        while True:
            more = False
            for lane in self.lanes.values():
                lane.tick()
            self._storms.tick(self.now_ms())
            try:
                await self._ledger.take_over(self.owner, self.now_ms())
                await self._ledger.file_ids()
                more = not self.full and await self._digests.tell_due(self.owner)
                for channel in KNOWN_CHANNELS:
                    more = await self._bring_back(channel) or more
                # A bounded part of them at a time: a day's are millions, and nobody is to wait for it.
                now = trio.current_time()
                if now >= housekeeping_at and not await self._ledger.forget_counters(self.now_ms()):
                    housekeeping_at = now + HOUSEKEEPING_S
                self.trouble = None
            except LedgerUnavailable as error:
                await self.ledger_trouble(error)
            if not more:
                self._something_due = trio.Event()
                with trio.move_on_after(CLOCK_TICK_S):
                    await self._something_due.wait()

    async def _bring_back(self, channel: str) -> bool:
        """Lease what is due on a channel; True when there may be more."""
        lane = self.lanes.get(channel)
        # A lane that intake keeps full still takes what is due, one batch over its capacity: it is older. But a backlog
        # of it (after an outage) leaves room for fresh swipes.
        limit = DUE_BATCH if lane is None else min(DUE_BATCH, lane.free + DUE_BATCH, lane.free_for_due)
        if limit <= 0:
            return False
        lease_as: State = "queued" if lane is None or lane.channel.fenced else "sending"
        alerts = await self._ledger.due(channel, self.now_ms(), self.owner, limit, lease_as)
        now_ms = self.now_ms()
        steps = []
        again: list[Alert] = []
        for alert in alerts:
            step = when_due(alert, None if lane is None else lane.policy_of, self._rules.wanted, now_ms)
            if step is None:
                again.append(alert)
            else:
                steps.append(step)
        if lane is not None and again:
            lane.put(again, first=True)  # as they come: those due for longest leave first
        self.record(steps, None)
        return len(alerts) == limit

    # ---- the lease --------------------------------------------------------------------------------------------

    async def lease_held(self) -> None:
        """See `LaneHost.lease_held`."""
        await self._lease.held()

    # ---- words from the lanes ---------------------------------------------------------------------------------

    def paused(self, channel: str, reason: str, *, misconfigured: bool) -> None:
        """See `LaneHost.paused`."""
        log.warning("channel_paused", channel=channel, reason=reason, misconfigured=misconfigured)
        self.meter.misconfigured(channel, misconfigured)
        if misconfigured and self._fail_fast:
            self._fatal = ChannelMisconfigured(channel, reason)
            self._fatal_known.set()

    async def ledger_trouble(self, error: LedgerUnavailable) -> None:
        """See `LaneHost.ledger_trouble`."""
        self.trouble = str(error)
        if self._fail_fast:
            raise error
        log.error("ledger_unavailable", error=str(error), waiting_steps=self.recorder.waiting)
        await trio.sleep(LEDGER_RETRY_S)

    def resumed(self, channel: str) -> None:
        """See `LaneHost.resumed`."""
        log.info("channel_resumed", channel=channel)
        self.meter.misconfigured(channel, False)

    def breaker_changed(self, channel: str, state: BreakerState) -> None:
        """See `LaneHost.breaker_changed`."""
        log.warning("breaker", channel=channel, state=str(state))
        self.meter.breaker(channel, state is not BreakerState.CLOSED)

    def _waiting(self, rate: str) -> bool:
        """Whether there is work for a rate: a channel's, or one of its templates'."""
        channel, _, template = rate.partition("/")
        lane = self.lanes[channel]
        if not template:  # two channels of one account have one rate
            return any(other.queue for other in self.lanes.values() if other.pacer is lane.pacer)
        short = template in lane.gate.short_of
        lane.gate.short_of.discard(template)
        return short

    def unknown_code(self, channel: str, code: str) -> None:
        """See `LaneHost.unknown_code`."""
        self.meter.unknown_code(channel)
        log.error("unknown_code", channel=channel, code=code)

    # ---- the end ----------------------------------------------------------------------------------------------

    async def idle(self) -> None:
        """Wait until no alert in the whole ledger is open, but for those that a rule holds for longer than a minute."""
        held_until = self.now_ms() + HELD_WAIT_MS
        while self._busy() or (left := await self._ledger.open_count(held_until)):  # noqa: ASYNC110
            # Polled, because other processes may hold some of them; counting a backlog takes its time.
            await trio.sleep(0.05 if self._busy() else min(1.0, 0.05 + left / 100_000))

    def _busy(self) -> bool:
        return any(lane.queue or lane.in_flight for lane in self.lanes.values())

    async def _end_when_misconfigured(self) -> None:
        await self._fatal_known.wait()
        assert self._fatal is not None
        raise self._fatal

    async def _in_flight_settled(self) -> None:
        def unsettled() -> bool:
            return self.recorder.busy or any(lane.in_flight for lane in self.lanes.values())

        while unsettled() and not self.recorder.ended:  # noqa: ASYNC110
            await trio.sleep(0.01)

    async def _leave(self) -> None:
        """Give back what was never handed to the network (as untouched), then the rest (as of unknown outcome)."""
        now_ms = self.now_ms()
        try:
            untouched = [given_back(alert, now_ms) for lane in self.lanes.values() for alert in lane.queue]
            if untouched:
                await self._ledger.record(untouched, self.owner)
            await self._rates.leave(self.owner)
            await self._ledger.leave(self.owner, now_ms)
        except LedgerUnavailable as error:
            # The leases run out by themselves; nothing is lost.
            log.warning("leases_left_behind", error=str(error))


async def _inside(scope: trio.CancelScope, task: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await task()
