"""The daily quota, its reserve and the brown-out ladder with whole engines in virtual time, against the simulated
platform's own counters."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from dispatcher.channels.base import ChannelPaused
from dispatcher.channels.wechat.quota_call import QUOTA_PATH, Quota, UnreadableQuota, ask_quota, read_quota
from dispatcher.engine import Engine
from dispatcher.errors import LedgerUnavailable
from dispatcher.events import Accepted, Rejected, decode_event
from dispatcher.ledger.worker import InlineLedger
from dispatcher.model.recipient import RecipientLine
from replay.explain import tell
from tests.dispatcher.channel_kit import SECRET, TOKEN
from tests.dispatcher.wechat_kit import EVENING_MS, World

MIDNIGHT_MS = EVENING_MS + 2 * 3_600_000
PHONE = "+8613800000001"


@pytest.fixture(autouse=True)
def _slow_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hours of virtual time pass here: the ledger is asked for what is due every five seconds and not five times in
    one."""
    monkeypatch.setattr("dispatcher.engine.CLOCK_TICK_S", 5.0)


def swipe(number: int, at_ms: int, amount: int = 20_000, **more: Any) -> Accepted:
    time = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()
    event = {
        "id": f"e{number}",
        "account": f"a{number % 50}",
        "amount": amount,
        "currency": "CNY",
        "time": time,
        **more,
    }
    decoded = decode_event(json.dumps(event).encode(), number)
    assert not isinstance(decoded, Rejected), decoded
    return decoded


async def tell_everybody(world: World, *, sms: bool) -> None:
    ledger = InlineLedger(world.path)
    channels = ("wechat", "sms") if sms else ("wechat",)
    await ledger.import_recipients(
        [RecipientLine(account=f"a{n}", openid=f"o{n}", phone=PHONE, channels=channels) for n in range(50)]
    )
    await ledger.aclose()


async def admit(engine: Engine, swipes: list[Accepted]) -> None:
    for start in range(0, len(swipes), 200):
        batch = swipes[start : start + 200]
        await engine.reserve(len(batch))
        await engine.admit(batch)
        engine.release(len(batch))


async def settled(engine: Engine, seconds: float = 30) -> None:
    """Until nothing is in a lane or on the wire."""
    with trio.fail_after(seconds):
        await trio.sleep(1)
        while engine._busy():  # noqa: ASYNC110
            await trio.sleep(0.5)
        await trio.sleep(1)


async def stories(world: World, numbers: range) -> list[Any]:
    ledger = InlineLedger(world.path)
    found = []
    for number in numbers:
        story = await ledger.explain(f"e{number}")
        assert story is not None
        found.append(story)
    await ledger.aclose()
    return found


# ---- the budget ---------------------------------------------------------------------------------------------------


async def test_two_processes_with_one_budget_never_exceed_it_and_keep_the_reserve(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    # Given an account of 500 a day that two processes use
    world = World(tmp_path, daily_quota=500, start_ms=MIDNIGHT_MS - 1_200_000)
    await tell_everybody(world, sms=False)
    async with world.engine() as (one, _, meter), world.engine(seed=2) as (two, _, _):
        # When 1,000 ordinary swipes come
        for start, engine in ((0, one), (500, two)):
            await admit(engine, [swipe(start + n, world.now_ms()) for n in range(500)])
        await settled(one)
        await settled(two)
        # Then the reserve of ten percent is left, and WeChat never had to refuse
        assert world.book.accepted == 450
        assert world.book.refused == {}
        await trio.sleep(11)  # both have reported, and the first has heard of it
        assert meter.totals.quotas["wechat"] == (450, 500, 50, 3)
        # And large and fraud-class swipes get through to the last
        large = [swipe(1_000 + n, world.now_ms(), 500_000) for n in range(25)]
        fraud = [swipe(1_100 + n, world.now_ms(), 100, category="fraud") for n in range(25)]
        await admit(one, large)
        await admit(two, fraud)
        await settled(one)
        await settled(two)
        assert world.book.accepted == 500
        assert world.book.refused == {}
        await admit(one, [swipe(1_200, world.now_ms(), 500_000)])
        await settled(one)
        assert world.book.accepted == 500
        # And what waits is told after midnight in China, within its limit again
        await trio.sleep((MIDNIGHT_MS - world.now_ms()) / 1000 - 1)
        assert world.book.accepted == 500
        # (a reading in the midst of it counts some twice, never too few, until the next one five minutes later)
        await trio.sleep(900)
        # The large one uses the reserve only when it comes after the ordinary ones
        assert world.book.accepted - 500 in (450, 451)
        assert world.book.refused == {}
        ((late,),) = [story.alerts for story in await stories(world, range(1_200, 1_201))]
        assert late.state == "delivered"


async def test_the_reserve_belongs_to_what_the_rules_call_urgent(tmp_path: Path, autojump_clock: MockClock) -> None:
    # Given rules that call cash advances urgent, and a configuration that names fraud and large swipes
    rules = 'version = 1\n[[rule]]\nid = "cash-first"\neffect = "priority"\nwhen = { type = "cash" }\n'
    world = World(tmp_path, daily_quota=100)
    await tell_everybody(world, sms=False)
    async with world.engine(rules=rules) as (engine, channel, _):
        # When ordinary swipes have used all but the reserve
        await admit(engine, [swipe(n, world.now_ms()) for n in range(150)])
        await settled(engine)
        assert world.book.accepted == 90
        # Then a large one and a fraud warning find no room any more
        await admit(engine, [swipe(200, world.now_ms(), 900_000), swipe(201, world.now_ms(), category="fraud")])
        await settled(engine)
        assert world.book.accepted == 90
        # And a small cash advance does: no step of the ladder is for it
        assert channel.budget is not None
        await trio.sleep(11)
        assert channel.budget.level == 3
        await admit(engine, [swipe(300, world.now_ms(), 100, type="cash"), swipe(301, world.now_ms(), 100)])
        await settled(engine)
        assert world.book.accepted == 91
        cash, small = [story.alerts[0] for story in await stories(world, range(300, 302))]
        assert (cash.state, small.state) == ("delivered", "suppressed")


async def test_what_has_another_channel_goes_there_at_once_and_explain_says_why(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    world = World(tmp_path, daily_quota=100)
    await tell_everybody(world, sms=True)
    async with world.engine(sms=True) as (engine, _, meter):
        await admit(engine, [swipe(n, world.now_ms(), 40_000) for n in range(200)])
        await settled(engine)
        assert (world.book.accepted, world.providers.book.sms.accepted) == (90, 110)
        assert world.book.refused == {}
        assert sum(meter.totals.browned_out.values()) == 110
        assert meter.delivered_by == {"wechat": 90, "sms": 110}
    by_sms = [story for story in await stories(world, range(200)) if story.alerts[0].channel == "sms"]
    assert len(by_sms) == 110
    for story in by_sms:
        text = "\n".join(tell(story))
        assert "quota of" in text
        assert PHONE not in text


async def test_45009_is_the_end_of_the_day_whatever_we_counted(tmp_path: Path, autojump_clock: MockClock) -> None:
    # Given a platform whose count cannot be read and whose quota is far below the configured one
    world = World(tmp_path, daily_quota=50, start_ms=MIDNIGHT_MS - 1_200_000)
    world.instead[QUOTA_PATH] = lambda: (200, b'{"errcode":76022,"errmsg":"no permission"}')
    await tell_everybody(world, sms=False)
    async with world.engine(daily_quota=10_000) as (engine, _, _):
        # When a hundred swipes come, then as many as were in flight are refused
        await admit(engine, [swipe(n, world.now_ms()) for n in range(100)])
        await settled(engine)
        assert (world.book.accepted, world.book.refused) == (50, {"45009": 50})
        # And then nobody tries again, not even for large ones, until midnight
        await admit(engine, [swipe(200 + n, world.now_ms(), 900_000) for n in range(30)])
        await trio.sleep((MIDNIGHT_MS - world.now_ms()) / 1000 - 1)
        assert world.book.refused == {"45009": 50}
        # Then those that still wait are told
        await trio.sleep(120)
        assert world.book.accepted == 50 + 50


async def test_a_quota_that_was_cleared_is_noticed_at_the_next_reading(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    world = World(tmp_path, daily_quota=50)
    await tell_everybody(world, sms=False)
    async with world.engine(quota_reserve_percent=0) as (engine, _, _):
        await admit(engine, [swipe(n, world.now_ms()) for n in range(80)])
        await settled(engine)
        assert world.book.accepted == 50
        # When somebody clears the account's counters
        world.providers.wechat._sends.clear()
        await trio.sleep(2 * 300 + 70)
        # Then the others go out, the same evening
        assert (world.book.accepted, world.book.refused) == (80, {})
    assert world.now_ms() < MIDNIGHT_MS


async def test_ours_follows_theirs_when_another_system_uses_the_account(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    # Given an account of 1,000 of which another system has used 900
    world = World(tmp_path, daily_quota=1_000)
    for _ in range(900):
        world.providers.wechat._sends.take(world.now_ms() / 1000)
    await tell_everybody(world, sms=False)
    async with world.engine(quota_reserve_percent=0) as (engine, _, _):
        await admit(engine, [swipe(n, world.now_ms()) for n in range(300)])
        await settled(engine)
        assert (world.book.accepted, world.book.refused) == (100, {})


@pytest.mark.parametrize(
    "answer",
    [
        (502, b"<html>502 Bad Gateway</html>"),
        (200, b"<html>blocked</html>"),
        (200, b'{"errcode":76021,"errmsg":"cgi_path not found"}'),
        (200, b'{"errcode":0,"quota":{"daily_limit":-5,"used":3,"remain":-8}}'),
    ],
)
async def test_the_configured_quota_holds_while_none_can_be_read(
    answer: tuple[int, bytes], tmp_path: Path, autojump_clock: MockClock
) -> None:
    world = World(tmp_path)
    world.instead[QUOTA_PATH] = lambda: answer
    await tell_everybody(world, sms=True)
    async with world.engine(sms=True, daily_quota=60, quota_reserve_percent=0) as (engine, _, _):
        await admit(engine, [swipe(n, world.now_ms(), 40_000) for n in range(100)])
        await settled(engine)
        assert (world.book.accepted, world.providers.book.sms.accepted) == (60, 40)
        # And it is asked about no more often than every five minutes
        await trio.sleep(3_600)
    assert 10 <= world.calls.count(QUOTA_PATH) <= 14


async def test_what_an_ended_run_did_not_use_is_there_for_the_next(tmp_path: Path, autojump_clock: MockClock) -> None:
    world = World(tmp_path)
    world.instead[QUOTA_PATH] = lambda: (502, b"")
    await tell_everybody(world, sms=False)
    for run in range(20):
        async with world.engine(daily_quota=100, quota_reserve_percent=0) as (engine, _, _):
            await admit(engine, [swipe(5 * run + n, world.now_ms()) for n in range(5)])
            await settled(engine)
    assert world.book.accepted == 100


# ---- the ladder ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "route", "amount", "state", "reason", "channel"),
    [
        (0, "both", 100, "delivered", None, "wechat"),
        (1, "both", 9_999, "delivered", None, "sms"),
        (1, "both", 10_000, "delivered", None, "wechat"),
        (1, "one", 9_999, "suppressed", "brown-out", ""),
        (1, "one", 10_000, "delivered", None, "wechat"),
        (2, "both", 29_999, "delivered", None, "sms"),
        (2, "both", 30_000, "delivered", None, "wechat"),
        (2, "one", 29_999, "suppressed", "brown-out-digest", ""),
        (2, "one", 30_000, "delivered", None, "wechat"),
        (3, "both", 499_999, "delivered", None, "sms"),
        (3, "one", 499_999, "delivered", None, "wechat"),
        (3, "one", 29_999, "suppressed", "brown-out-digest", ""),
        (3, "both", 500_000, "delivered", None, "wechat"),
    ],
)
async def test_what_each_level_does_to_a_swipe(
    level: int,
    route: str,
    amount: int,
    state: str,
    reason: str | None,
    channel: str,
    tmp_path: Path,
    autojump_clock: MockClock,
) -> None:
    # Given a process at this level, in whose rules the SMS takes every amount
    world = World(tmp_path)
    await tell_everybody(world, sms=route == "both")
    async with world.engine(sms=True) as (engine, wechat, meter):
        assert wechat.budget is not None
        wechat.budget.level = level
        # When such a swipe comes
        await admit(engine, [swipe(1, world.now_ms(), amount)])
        with trio.fail_after(3):
            while await engine._ledger.open_count():  # noqa: ASYNC110
                await trio.sleep(0.05)
        # Then it ends so, and explain says why
        ((alert,),) = [story.alerts for story in await stories(world, range(1, 2))]
        assert (alert.state, alert.reason, alert.channel) == (state, reason, channel)
        await trio.sleep(6)
        changed = state == "suppressed" or channel == "sms"
        assert sum(meter.totals.browned_out.values()) == changed
    story = "\n".join(tell((await stories(world, range(1, 2)))[0]))
    assert ("brown-out level" in story) == changed


async def test_a_day_that_runs_out_climbs_the_ladder_says_so_and_starts_anew(
    tmp_path: Path, autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given eight in the evening in China, and an account that cannot carry the rest of the day as it goes
    evening_ms = EVENING_MS - 2 * 3_600_000
    world = World(tmp_path, start_ms=evening_ms, daily_quota=4_000)
    await tell_everybody(world, sms=True)
    levels = []
    async with world.engine(sms=True) as (engine, _, meter):
        number = 0
        while world.now_ms() < MIDNIGHT_MS - 200_000:
            batch = []
            for _ in range(100):
                number += 1
                large = number % 100 == 0
                amount = 600_000 if large else (5_000, 20_000, 80_000)[number % 3]
                batch.append(swipe(number, world.now_ms(), amount))
            await admit(engine, batch)
            await trio.sleep(200)
            levels.append(meter.totals.quotas["wechat"][3])
        # Then it climbed rung by rung, WeChat never refused, and every large swipe went there
        assert sorted(set(levels)) == levels_seen(levels) == [0, 1, 2, 3]
        assert world.book.refused == {}
        assert world.book.accepted < 4_000
        assert meter.delivered_by["wechat"] + meter.delivered_by["sms"] == number
        # And after midnight all of it is there again; but a day like the last would need twice that, so it is spared
        await trio.sleep(700)
        assert meter.totals.quotas["wechat"][2:] == (4_000, 2)


def levels_seen(levels: list[int]) -> list[int]:
    return list(dict.fromkeys(levels))


# ---- the reading --------------------------------------------------------------------------------------------------


def quota_answer(limit: object, used: object, remain: object, **more: object) -> bytes:
    return json.dumps({"errcode": 0, "quota": {"daily_limit": limit, "used": used, "remain": remain}, **more}).encode()


@pytest.mark.parametrize(
    ("body", "quota"),
    [
        (quota_answer(1_000, 10, 990), Quota(1_000, 10)),
        (quota_answer(1_000, 10, 900), Quota(1_000, 100)),
        (quota_answer(1_000, 200, 990), Quota(1_000, 200)),
        (quota_answer(1_000, 1_500, 0), Quota(1_000, 1_500)),
        (quota_answer(10, 0, 10, rate_limit={"call_count": 90, "refresh_second": 60}), Quota(10, 0, 1.5)),
        (quota_answer(10, 0, 10, rate_limit={"call_count": 0, "refresh_second": 0}), Quota(10, 0)),
        (quota_answer(10, 0, 10, rate_limit=None, component_rate_limit={"x": 1}), Quota(10, 0)),
    ],
)
def test_of_two_words_the_stricter_one_counts(body: bytes, quota: Quota) -> None:
    assert read_quota(body) == quota


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>", "not WeChat's JSON"),
        (b"", "not WeChat's JSON"),
        (b'{"errcode":0', "not WeChat's JSON"),
        (b'{"a":' * 100_000, "not WeChat's JSON"),
        (b'{"errcode":"\xff"}', "not WeChat's JSON"),
        (b"[]", "not WeChat's JSON"),
        (quota_answer("1000", 10, 990), "not WeChat's JSON"),
        (quota_answer(10**30, 10, 990), "not WeChat's JSON"),
        (b'{"errcode":0}', "no quota"),
        (b'{"errcode":0,"quota":null}', "no quota"),
        (b'{"errcode":0,"quota":{}}', "not WeChat's JSON"),
        (quota_answer(-1, 0, 0), "make no sense"),
        (quota_answer(100, -1, 100), "make no sense"),
        (quota_answer(100, 1, -1), "make no sense"),
        (quota_answer(0, 0, 0), "make no sense"),
        (b'{"errcode":76021,"errmsg":"cgi_path not found"}', "76021 (the path is not known there)"),
        (b'{"errcode":76022}', "76022 (the account may not read its quota)"),
        (b'{"errcode":76003}', "76003 (the path has a bad prefix)"),
        (b'{"errcode":-1}', "errcode -1"),
    ],
)
def test_an_answer_that_cannot_be_read_says_why(body: bytes, why: str) -> None:
    with pytest.raises(UnreadableQuota) as caught:
        read_quota(body)
    assert why in str(caught.value)


@pytest.mark.parametrize(
    "fail",
    [
        lambda: httpx.Response(502, content=b"<html>"),
        lambda: httpx.Response(200, json={"errcode": 40001, "errmsg": f"{TOKEN} {SECRET}"}),
        lambda: raises(httpx.ReadError(f"https://x/?access_token={TOKEN}")),
    ],
)
async def test_nothing_of_token_or_answer_is_in_the_error(fail: Callable[[], httpx.Response]) -> None:
    client = httpx.AsyncClient(transport=httpx.MockTransport(lambda request: fail()), base_url="https://x")
    with pytest.raises(UnreadableQuota) as caught:
        await ask_quota(client, TOKEN)
    assert TOKEN not in repr(caught.value)
    assert SECRET not in repr(caught.value)
    assert caught.value.token == ("40001" in str(caught.value))


def raises(error: Exception) -> httpx.Response:
    raise error


async def test_a_ledger_that_cannot_answer_pauses_the_channel_and_nothing_more(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    world = World(tmp_path)
    async with world.engine() as (_, channel, _):
        budget = channel.budget
        assert budget is not None

        async def busy(*, at_once: bool) -> None:
            raise LedgerUnavailable("the disk is full")

        # Given a process that has not looked at the quota yet, and a ledger that is full
        budget._looked = False
        budget._read = busy  # type: ignore[method-assign]
        # When the lane asks, then it is told to wait, and looks again the next time
        with pytest.raises(ChannelPaused, match="the disk is full"):
            await budget.ready()
        assert not budget._looked
