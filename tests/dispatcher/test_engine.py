"""The engine in virtual time: an in-task ledger and network, so that hours pass in milliseconds."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
import trio

from dispatcher.admission import Admitter
from dispatcher.channels.base import CannotPrepare, ChannelPaused
from dispatcher.config import EngineConfig
from dispatcher.delivery import Answer, AnswerClass, ChannelPolicy
from dispatcher.engine import Engine
from dispatcher.errors import ChannelMisconfigured, LeaseLost, LedgerUnavailable
from dispatcher.events import Accepted, Rejected, decode_event
from dispatcher.lane_gate import Limits
from dispatcher.ledger.api import Decide, Receipt
from dispatcher.ledger.worker import InlineLedger
from dispatcher.metrics import Meter
from dispatcher.model.alert import Alert
from dispatcher.model.recipient import RecipientLine
from dispatcher.network.api import Request, Response
from dispatcher.network.fake import FakeNetwork
from ratelimit.leased import LeasedPacer
from ratelimit.pacing import Pacer
from ratelimit.retry import RetryPolicy
from ratelimit.rules import default_rules_text, load_rules
from templates.library import Library

NOON_MS = 1_795_320_000_000  # 2026-11-22 04:00 UTC, noon in Shanghai
HOUR_MS = 3_600_000
LIBRARY = Library.load()

OK = Answer(AnswerClass.ACCEPTED, "0", msgid="m")
BUSY = Answer(AnswerClass.RETRY, "-1")
GONE = Answer(AnswerClass.RECIPIENT_GONE, "43004", scope="recipient")
LOST = Answer(AnswerClass.UNKNOWN, "network-56", scope="channel")
WRONG = Answer(AnswerClass.CONFIGURATION, "48001", scope="channel", pause_ms=60_000)
TOKEN = Answer(AnswerClass.REFRESH_TOKEN, "42001", scope="channel")


class ScriptedChannel:
    """A channel whose answers a test writes down; each alert takes the next one, the last one stays."""

    def __init__(
        self, name: str, answers: list[Answer], *, fenced: bool = False, receipt_ms: int | None = None
    ) -> None:
        self.name = name
        self.fenced = fenced
        self.connections = 8
        self.answers = answers
        self.tried: list[tuple[int, str]] = []
        self.paused: ChannelPaused | None = None
        self.refuse = ""
        self.resend = True
        self.receipt_ms = receipt_ms

    def policy(self, alert: Alert) -> ChannelPolicy:
        retry = RetryPolicy(base_seconds=1.0, cap_seconds=60.0, max_attempts=12)
        return ChannelPolicy(retry, self.resend, self.receipt_ms)

    async def ready(self) -> None:
        if self.paused is not None:
            raise self.paused

    def prepare(self, alert: Alert) -> Request:
        if self.refuse:
            raise CannotPrepare(self.refuse)
        return Request(pool=self.name, url="http://x", headers=(), body=b"", tag=alert)

    def classify(self, alert: Alert, response: Response) -> Answer:
        self.tried.append((alert.id, alert.key))
        return self.answers[min(len(self.tried) - 1, len(self.answers) - 1)]

    def knows(self, code: str) -> bool:
        return True


class World:
    """An engine and everything around it."""

    def __init__(self, wechat: ScriptedChannel, sms: ScriptedChannel | None, path: str = ":memory:") -> None:
        self.wechat, self.sms = wechat, sms
        self.ledger = InlineLedger(path)
        self.meter = Meter()
        self.seconds = 0.01
        self.offset_ms = 0

    def now_ms(self) -> int:
        return NOON_MS + self.offset_ms + int(trio.current_time() * 1000) % 10**9

    @asynccontextmanager
    async def running(
        self,
        *,
        rate: float = 1e6,
        rules: str = "",
        fail_fast: bool = False,
        pacer: LeasedPacer | None = None,
        limits: Mapping[str, Limits] = {},
        admitter: Admitter | None = None,
        decide: Decide | None = None,
        **config: Any,
    ) -> AsyncIterator[Engine]:
        present = [channel for channel in (self.wechat, self.sms) if channel is not None]
        if admitter is None:
            ruleset = load_rules(rules or default_rules_text(), "test")
            admitter = Admitter(ruleset, LIBRARY, {channel.name: channel.fenced for channel in present})
        ruleset = admitter.in_force.decider.rules
        self.admitter = admitter
        async with trio.open_nursery() as nursery:
            self.network = FakeNetwork(nursery, lambda request: (Response(request, 200, b""), self.seconds))
            engine = Engine(
                config=EngineConfig(**config),
                ledger=self.ledger,
                network=self.network,
                channels={channel.name: (channel, pacer or Pacer(rate)) for channel in present},
                limits=limits,
                steady_ms=lambda: int(trio.current_time() * 1000),
                decide=decide or admitter,
                rules=admitter.in_force,
                ruleset=(ruleset.version_id, ruleset.content),
                meter=self.meter,
                now_ms=self.now_ms,
                random=Random(1),
                fail_fast=fail_fast,
            )
            async with engine.running():
                yield engine
            nursery.cancel_scope.cancel()

    async def tell(self, *recipients: RecipientLine) -> None:
        await self.ledger.import_recipients(recipients or [PERSON])

    async def state(self, event_id: str) -> Any:
        story = await self.ledger.explain(event_id)
        assert story is not None
        return story.alerts[0]


PERSON = RecipientLine(account="acc", openid="o1", phone="+8613800000001")


def swipe(number: int = 1, at_ms: int = NOON_MS, **changes: Any) -> Accepted:
    seconds, milliseconds = divmod(at_ms, 1000)
    time = datetime.fromtimestamp(seconds, UTC).replace(microsecond=milliseconds * 1000).isoformat()
    event = {"id": f"e{number}", "account": "acc", "amount": 20_000, "currency": "CNY", "time": time}
    event |= {"merchant": f"shop {number}"} | changes  # no two alike: a burst of one would be a storm
    decoded = decode_event(json.dumps(event).encode(), number)
    assert not isinstance(decoded, Rejected), decoded
    return decoded


@pytest.fixture
def world() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(
        answers: list[Answer] | None = None, sms: list[Answer] | None = None, *, path: str = ":memory:", **options: Any
    ) -> World:
        wechat = ScriptedChannel("wechat", answers or [OK], **options)
        second = None if sms is None else ScriptedChannel("sms", sms, fenced=True)
        made.append(World(wechat, second, path))
        return made[-1]

    yield make
    for one in made:
        one.ledger.store.close()


async def test_an_accepted_alert_is_delivered_and_its_attempt_kept(world: Any, autojump_clock: Any) -> None:
    w = world()
    await w.tell()
    async with w.running() as engine:
        admission = await engine.admit([swipe()])
        await engine.idle()
    alert = await w.state("e1")
    assert admission.accepted == 1
    assert (alert.state, [attempt.outcome for attempt in alert.attempts]) == ("delivered", ["accepted"])


async def test_a_busy_provider_is_tried_again_with_the_same_key_until_it_accepts(
    world: Any, autojump_clock: Any
) -> None:
    w = world([BUSY, BUSY, BUSY, OK])
    await w.tell()
    async with w.running() as engine:
        await engine.admit([swipe()])
        await engine.idle()
    alert = await w.state("e1")
    assert [attempt.outcome for attempt in alert.attempts] == ["retry", "retry", "retry", "accepted"]
    assert len({key for _, key in w.wechat.tried}) == 1
    assert w.meter.retries == 3


async def test_a_refused_token_is_tried_again_at_once_and_only_once(world: Any, autojump_clock: Any) -> None:
    # Given a provider that refuses two tokens in a row
    w = world([TOKEN, TOKEN, OK])
    await w.tell()
    async with w.running() as engine:
        await engine.admit([swipe()])
        await engine.idle()
    attempts = (await w.state("e1")).attempts
    # Then the second try follows at once, the third with backoff
    assert [attempt.outcome for attempt in attempts] == ["refresh_token", "refresh_token", "accepted"]
    assert attempts[1].at - attempts[0].at < 100


async def test_a_recipient_who_is_gone_gets_an_sms_and_no_wechat_any_more(world: Any, autojump_clock: Any) -> None:
    w = world([GONE, OK], [OK])
    await w.tell()
    async with w.running() as engine:
        await engine.admit([swipe(1)])
        await engine.idle()
        await engine.admit([swipe(2)])
        await engine.idle()
    first, second = await w.state("e1"), await w.state("e2")
    assert (first.state, first.channel) == ("delivered", "sms")
    assert second.route == ["sms"]
    assert len(w.wechat.tried) == 1


async def test_below_the_sms_minimum_a_gone_recipient_is_an_honest_failure(world: Any, autojump_clock: Any) -> None:
    w = world([GONE], [OK])
    await w.tell()
    async with w.running() as engine:
        await engine.admit([swipe(1, amount=9_999)])
        await engine.idle()
        await engine.admit([swipe(2, amount=9_999), swipe(3, amount=10_000)])
        await engine.idle()
    first, second, third = [await w.state(f"e{number}") for number in (1, 2, 3)]
    assert (first.state, first.reason) == ("failed", "recipient_gone:43004")
    assert (second.state, second.reason) == ("suppressed", "sms-from-100")
    assert (third.state, third.channel) == ("delivered", "sms")


async def test_an_unknown_outcome_is_resent_where_the_provider_recognises_it(world: Any, autojump_clock: Any) -> None:
    w = world([LOST, OK])
    await w.tell()
    async with w.running() as engine:
        await engine.admit([swipe()])
        await engine.idle()
    assert [attempt.outcome for attempt in (await w.state("e1")).attempts] == ["unknown", "accepted"]


async def test_an_unknown_outcome_is_left_alone_where_it_does_not(world: Any, autojump_clock: Any) -> None:
    w = world([GONE], [LOST])
    w.sms.resend = False
    await w.tell()
    async with w.running() as engine:
        await engine.admit([swipe()])
        await engine.idle()
    alert = await w.state("e1")
    assert (alert.state, alert.reason, len(w.sms.tried)) == ("failed", "unknown-outcome", 1)


async def test_a_swipe_older_than_its_category_allows_expires_unsent(world: Any, autojump_clock: Any) -> None:
    w = world()
    await w.tell()
    async with w.running() as engine:
        await engine.admit([swipe(1, NOON_MS - 25 * HOUR_MS), swipe(2, NOON_MS - 23 * HOUR_MS)])
        await engine.idle()
    assert [(await w.state(name)).state for name in ("e1", "e2")] == ["expired", "delivered"]


async def test_a_provider_that_stays_busy_is_not_tried_for_ever(world: Any, autojump_clock: Any) -> None:
    # Given a provider that is busy for ever
    w = world([BUSY])
    await w.tell()
    async with w.running() as engine:
        await engine.admit([swipe()])
        await engine.idle()
    # Then the alert ends, and has not been tried more often than the policy allows
    alert = await w.state("e1")
    assert (alert.state, alert.reason) == ("failed", "retries-exhausted")
    assert len(alert.attempts) == 12


async def test_words_that_cannot_be_rendered_fail_the_alert_or_take_the_next_channel(
    world: Any, autojump_clock: Any
) -> None:
    w = world([OK], [OK])
    w.wechat.refuse = "template-field:thing1"
    await w.tell()
    async with w.running() as engine:
        await engine.admit([swipe(1), swipe(2, amount=100)])
        await engine.idle()
    assert (await w.state("e1")).channel == "sms"
    assert (await w.state("e2")).reason == "template-field:thing1"


async def test_without_a_token_the_lane_waits_and_nothing_is_tried(world: Any, autojump_clock: Any) -> None:
    w = world()
    w.wechat.paused = ChannelPaused("no token", retry_after_s=2)
    await w.tell()
    async with w.running() as engine:
        await engine.admit([swipe()])
        await trio.sleep(7)
        assert w.wechat.tried == []
        w.wechat.paused = None
        await engine.idle()
    assert (await w.state("e1")).state == "delivered"


async def test_a_refused_account_ends_a_send_but_loses_no_alert(world: Any, autojump_clock: Any) -> None:
    w = world([WRONG, OK])
    await w.tell()
    with pytest.raises(ExceptionGroup) as caught:
        async with w.running(fail_fast=True) as engine:
            await engine.admit([swipe()])
            await engine.idle()
    assert caught.group_contains(ChannelMisconfigured)
    # Then the alert is still open with a known outcome, and the next run delivers it
    alert = await w.state("e1")
    assert (alert.state, [attempt.outcome for attempt in alert.attempts]) == ("retrying", ["configuration"])
    async with w.running() as engine:
        await engine.idle()
    assert (await w.state("e1")).state == "delivered"


async def test_a_refused_account_pauses_the_service_until_it_is_mended(world: Any, autojump_clock: Any) -> None:
    w = world([WRONG, WRONG, OK])
    await w.tell()
    async with w.running() as engine:
        await engine.admit([swipe()])
        await trio.sleep(30)
        assert len(w.wechat.tried) == 1
        assert w.meter.registry.get_sample_value("swipebell_channel_misconfigured", {"channel": "wechat"}) == 1
        await engine.idle()
    assert w.meter.registry.get_sample_value("swipebell_channel_misconfigured", {"channel": "wechat"}) == 0


async def test_a_receipt_has_the_last_word(world: Any, autojump_clock: Any) -> None:
    w = world([OK], [OK], receipt_ms=300_000)
    await w.tell()
    async with w.running() as engine:
        await engine.admit([swipe()])
        await trio.sleep(1)
        assert (await w.state("e1")).state == "awaiting"
        await engine.receive([Receipt("wechat", "m", "failed:user-block")])
        await engine.idle()
    assert (await w.state("e1")).channel == "sms"


async def test_a_receipt_before_the_answer_counts(world: Any, autojump_clock: Any) -> None:
    w = world([OK], receipt_ms=300_000)
    w.seconds = 5.0
    await w.tell()
    async with w.running() as engine:
        await engine.admit([swipe()])
        await engine.receive([Receipt("wechat", "m", "delivered"), Receipt("wechat", "m", "delivered")])
        await engine.receive([Receipt("wechat", "nobody-knows", "delivered")])
        with trio.fail_after(20):
            await engine.idle()
    assert (await w.state("e1")).state == "delivered"


async def test_without_a_receipt_by_the_deadline_the_next_channel_is_taken_once(
    world: Any, autojump_clock: Any
) -> None:
    w = world([OK], [OK], receipt_ms=300_000)
    await w.tell()
    async with w.running() as engine:
        await engine.admit([swipe()])
        await engine.idle()
    alert = await w.state("e1")
    assert (alert.state, alert.channel, len(w.sms.tried)) == ("delivered", "sms", 1)


async def test_full_lanes_make_admission_wait(world: Any, autojump_clock: Any) -> None:
    # Given a lane of eight places at ten a second, and no storm guard: it would hold one swipe that comes 32 times
    w = world()
    await w.tell()
    async with w.running(rate=10, lane_capacity=8, batch_events=8, rules="version = 1") as engine:
        for start in range(0, 32, 8):
            await engine.reserve(8)
            await engine.admit([swipe(number) for number in range(start, start + 8)])
            engine.release(8)
            # Then never more than one batch over its capacity is queued
            assert len(engine.lanes["wechat"].queue) < 16
        assert trio.current_time() > 1
        await engine.idle()
    assert len(w.wechat.tried) == 32


async def test_an_interrupt_waits_for_the_answers_that_are_under_way(world: Any, autojump_clock: Any) -> None:
    # Given alerts on the wire of a channel whose resends nobody would recognise
    w = world([GONE], [OK])
    w.sms.resend = False
    w.seconds = 2.0
    await w.tell()
    with trio.CancelScope() as interrupt:
        async with w.running() as engine:
            await engine.admit([swipe(number) for number in range(5)])
            await trio.sleep(3)  # WeChat has refused, the SMS are under way
            interrupt.cancel()
    # Then each has its answer, and none is of unknown outcome
    books = await w.ledger.books()
    assert books.states == {"delivered": 5}
    assert books.unknown_attempts == 0


async def test_a_ledger_that_cannot_fence_holds_the_sms_back(world: Any, autojump_clock: Any) -> None:
    w = world([GONE], [OK])
    await w.tell()
    fence, failures = w.ledger.fence, 2

    async def failing(ids: Any, owner: int) -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            assert w.sms.tried == []
            raise LedgerUnavailable("the disk is full")
        await fence(ids, owner)

    w.ledger.fence = failing
    async with w.running() as engine:
        await engine.admit([swipe()])
        await engine.idle()
        assert engine.trouble is None
    assert (await w.state("e1")).channel == "sms"


async def test_what_a_dead_process_held_is_taken_over_and_marked_unknown(
    world: Any, autojump_clock: Any, tmp_path: Any
) -> None:
    # Given an engine that stops answering while an alert is on the wire
    path = str(tmp_path / "ledger.db")
    dying, heir = world(path=path), world(path=path)
    dying.seconds = 10_000.0
    await dying.tell()
    with trio.CancelScope() as death:
        async with dying.running(drain_seconds=0) as engine:
            await engine.admit([swipe()])
            await trio.sleep(1)
            dying.ledger.leave = _nothing  # a process that dies says no goodbye
            death.cancel()
    dying.ledger.store.close()
    # When another one runs
    async with heir.running() as engine:
        await engine.idle()
    # Then it is sent again with the same key, and the first attempt is of unknown outcome
    attempts = (await heir.state("e1")).attempts
    assert [(attempt.outcome, attempt.code) for attempt in attempts] == [("unknown", "process-died"), ("accepted", "0")]


async def _nothing(*_arguments: Any) -> None:
    await trio.lowlevel.checkpoint()


async def test_a_process_that_was_taken_over_stops(world: Any, autojump_clock: Any, tmp_path: Any) -> None:
    w = world(path=str(tmp_path / "ledger.db"))
    with pytest.raises(ExceptionGroup) as caught:
        async with w.running() as engine:
            w.ledger.store.connection.execute("UPDATE processes SET alive_until = 0")
            await engine.admit([swipe()])
            await trio.sleep(60)
    assert caught.group_contains(LeaseLost)


async def test_a_ledger_that_cannot_write_stops_a_send_and_not_the_service(world: Any, autojump_clock: Any) -> None:
    w = world()
    await w.tell()
    record, failures = w.ledger.record, 3

    async def failing(steps: Any, owner: int) -> Any:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise LedgerUnavailable("the disk is full")
        return await record(steps, owner)

    w.ledger.record = failing
    async with w.running() as engine:
        await engine.admit([swipe()])
        await engine.idle()
    assert (await w.state("e1")).state == "delivered"
    failures = 3
    with pytest.raises(ExceptionGroup) as caught:
        async with w.running(fail_fast=True) as engine:
            await engine.admit([swipe(2)])
            await engine.idle()
    assert caught.group_contains(LedgerUnavailable)


async def test_a_channel_taken_out_of_the_configuration_ends_its_alerts(world: Any, autojump_clock: Any) -> None:
    w = world([GONE], [BUSY])
    await w.tell()
    async with w.running() as engine:
        await engine.admit([swipe()])
        await trio.sleep(3)
    w.sms = None
    async with w.running() as engine:
        await engine.idle()
    assert (await w.state("e1")).reason == "channel-not-configured"


async def test_several_recipients_each_get_their_alert_and_the_cap_counts_them(world: Any, autojump_clock: Any) -> None:
    # Given two recipients, and a cap of three alerts a day for the account
    w = world()
    await w.tell(PERSON, RecipientLine(account="acc", role="supplementary", openid="o2"))
    cap = 'version = 1\n[[rule]]\nid = "daily"\neffect = "cap"\nlimit = 3\nper = "account"\nwindow = "day"\n'
    async with w.running(rules=cap) as engine:
        await engine.admit([swipe(1), swipe(2)])
        await engine.admit([swipe(1), swipe(3)])
        await engine.idle()
    # Then three are told, the rest is suppressed by name, and the repeated event counted nothing
    books = await w.ledger.books()
    assert books.states == {"delivered": 3, "suppressed": 3}
    assert books.suppressed_by == {"daily": 3}
