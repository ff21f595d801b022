"""A provider that is down and comes back, a throttled recipient, a template's rate: the engine in virtual time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio
from trio.testing import MockClock

from dispatcher.delivery import Answer, AnswerClass
from dispatcher.engine import Engine
from dispatcher.lane_gate import Limits
from dispatcher.model.alert import Alert
from dispatcher.model.recipient import RecipientLine
from dispatcher.network.api import Response
from ratelimit.leased import POLLED_BURST_SHARE, LeasedPacer
from tests.dispatcher.test_engine import GONE, OK, ScriptedChannel, World, swipe

RATE = 50
DOWN_S = 600.0
BAD = Answer(AnswerClass.UNKNOWN, "http-502", scope="channel")
TOO_OFTEN = Answer(AnswerClass.THROTTLE, "43117", scope="recipient", pause_ms=60_000)


class Weather(ScriptedChannel):
    """Down from ``down_at`` to ``up_at``; writes down each attempt."""

    def __init__(self, down_at: float, up_at: float) -> None:
        super().__init__("wechat", [OK])
        self.down_at, self.up_at = down_at, up_at
        self.attempts: list[tuple[float, int, bool]] = []
        """(when, alert, whether it is a retry)"""

    def classify(self, alert: Alert, response: Response) -> Answer:
        now = trio.current_time()
        self.attempts.append((now, alert.id, alert.attempts > 0))
        return BAD if self.down_at <= now < self.up_at else OK


def busiest_second(times: Sequence[float]) -> int:
    busiest = last = 0
    for first, start in enumerate(times):
        while last < len(times) and times[last] < start + 1.0:
            last += 1
        busiest = max(busiest, last - first)
    return busiest


async def admit_slowly(engine: Engine, world: World, per_second: int, seconds: int) -> int:
    number = 0
    for _ in range(seconds):
        await engine.reserve(per_second)
        batch = [swipe(number + k, at_ms=world.now_ms(), account=f"a{k}") for k in range(per_second)]
        number += per_second
        await engine.admit(batch)
        engine.release(per_second)
        await trio.sleep(1.0)
    return number


async def test_ten_minutes_down_and_back(autojump_clock: MockClock) -> None:
    # Given a channel that sends ten alerts a second, whose provider goes down after half a minute
    channel = Weather(30.0, 30.0 + DOWN_S)
    world = World(channel, None)
    await world.tell(*[RecipientLine(account=f"a{k}", openid=f"o{k}") for k in range(10)])
    opened_at: list[float] = []
    async with world.running(rate=RATE) as engine:
        async with trio.open_nursery() as watch:

            async def watch_breaker() -> None:
                while not world.meter.totals.open_breakers.get("wechat"):  # noqa: ASYNC110 - a gauge
                    await trio.sleep(0.1)
                opened_at.append(trio.current_time())

            watch.start_soon(watch_breaker)
            # When it comes back ten minutes later
            count = await admit_slowly(engine, world, 10, 660)
        await engine.idle()
    # Then the breaker had opened within five seconds
    assert 30 <= opened_at[0] <= 35
    # And while it was down, next to nothing was sent at it
    during = [one for one in channel.attempts if 36 <= one[0] < 30 + DOWN_S]
    assert 0 < len(during) <= 3 * (DOWN_S / 15)
    # And in no stretch were there more retries than the budget has
    retries = [at for at, _, retry in channel.attempts if retry]
    firsts = [at for at, _, retry in channel.attempts if not retry]
    for begin in range(0, len(retries), 7):
        for end in range(begin, len(retries)):
            first = bisect_right(firsts, retries[end]) - bisect_left(firsts, retries[begin] - 1)
            assert end - begin + 1 <= 100 + 0.2 * (first + 10) + 10 * (retries[end] - retries[begin] + 0.1)
    # And never more than the rate left, also afterwards
    assert busiest_second([at for at, _, _ in channel.attempts]) <= RATE
    # And every alert was delivered, those that never left with one attempt
    assert world.meter.ended["delivered"] == count
    assert world.meter.totals.open_breakers == {"wechat": 0}


async def test_an_alert_is_not_stuck_behind_an_open_breaker(autojump_clock: MockClock) -> None:
    # Given a channel that is down for good, and another one that works
    channel, sms = Weather(0.0, 1e9), ScriptedChannel("sms", [OK])
    world = World(channel, sms)
    await world.tell()
    async with world.running(rate=RATE) as engine:
        await engine.reserve(20)
        await engine.admit([swipe(number, at_ms=world.now_ms()) for number in range(20)])
        engine.release(20)
        with trio.fail_after(3_600):
            await engine.idle()
    # Then all have gone to the other one
    assert world.meter.ended["delivered"] == 20
    assert len(sms.tried) == 20


async def test_a_throttled_recipient_holds_only_its_own(autojump_clock: MockClock) -> None:
    # Given a provider that says of the first alert that its recipient gets too many
    channel = ScriptedChannel("wechat", [TOO_OFTEN, OK])
    world = World(channel, None)
    await world.tell(RecipientLine(account="acc", openid="o1"), RecipientLine(account="b", openid="o2"))
    async with world.running(rate=RATE) as engine:
        await engine.reserve(9)
        await engine.admit([swipe(1)])
        await trio.sleep(0.5)
        # When two more come for it, and one for another
        await engine.admit([swipe(2), swipe(3), swipe(4, account="b")])
        engine.release(9)
        await trio.sleep(0.2)
        # Then the other one's is delivered at once, and the two wait in the ledger without an attempt
        assert world.meter.ended["delivered"] == 1
        assert (await world.state("e2")).state == "retrying"
        assert (await world.state("e2")).attempts == []
        await engine.idle()
    assert world.meter.ended["delivered"] == 4
    assert len((await world.state("e2")).attempts) == 1


@asynccontextmanager
async def leased(world: World, channel: ScriptedChannel, rate: int, limits: Limits) -> AsyncIterator[Engine]:
    pacer = LeasedPacer(rate, lambda: int(trio.current_time() * 1000))
    async with world.running(pacer=pacer, limits={channel.name: limits}) as engine:
        yield engine


async def test_a_template_has_its_own_rate(autojump_clock: MockClock) -> None:
    # Given a channel of 100 a second whose swipe template may have 10
    channel = Weather(1e9, 1e9)
    world = World(channel, None)
    await world.tell()
    swipes = LeasedPacer(10, lambda: int(trio.current_time() * 1000), burst_share=POLLED_BURST_SHARE)
    async with leased(world, channel, 100, Limits({"swipe": swipes})) as engine:
        await engine.reserve(100)
        await engine.admit([swipe(number) for number in range(100)])
        engine.release(100)
        await engine.idle()
    # Then ten a second leave, and nearly so many
    times = [at for at, _, _ in channel.attempts]
    assert busiest_second(times) <= 10
    assert times[-1] - times[0] < 15
    assert world.meter.ended["delivered"] == 100


async def test_a_recipient_gets_so_many_a_minute(autojump_clock: MockClock) -> None:
    channel = Weather(1e9, 1e9)
    world = World(channel, None)
    await world.tell()
    async with leased(world, channel, 100, Limits(recipient_per_minute=2)) as engine:
        await engine.reserve(5)
        await engine.admit([swipe(number) for number in range(5)])
        engine.release(5)
        await engine.idle()
    times = [at for at, _, _ in channel.attempts]
    assert all(later - earlier >= 59 for earlier, later in zip(times, times[2:], strict=False))
    assert world.meter.ended["delivered"] == 5


async def test_the_first_try_on_the_next_channel_is_no_retry(autojump_clock: MockClock) -> None:
    # Given three hundred alerts that WeChat refuses, and a gateway that is well
    world = World(ScriptedChannel("wechat", [GONE]), ScriptedChannel("sms", [OK], fenced=True))
    await world.tell(*(RecipientLine(account=f"a{n}", openid=f"o{n}", phone=f"+86138{n:08}") for n in range(300)))
    async with world.running() as engine:
        started = trio.current_time()
        await engine.admit([swipe(number, account=f"a{number}") for number in range(300)])
        await engine.idle()
        # Then they do not wait for the budget of SMS, which would let a hundred go and then ten a second
        assert trio.current_time() - started < 10
    assert world.meter.delivered_by["sms"] == 300
    world.ledger.store.close()
