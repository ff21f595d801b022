"""One access token for a whole fleet: stewards of several processes over one ledger, in virtual time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from dispatcher.channels.base import ChannelPaused
from dispatcher.channels.wechat.sealed import Seal
from dispatcher.channels.wechat.token import REFRESH_BEFORE_S, TokenSteward
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import tokens
from dispatcher.ledger.tokens import FETCH_LEASE_MS, FORCED_PER_DAY, STORM_REFRESHES, TokenRow
from dispatcher.ledger.worker import InlineLedger
from dispatcher.metrics import Meter
from dispatcher.model.private import Secret
from loadtest.providers.wechat import STABLE_TOKEN_PATH
from tests.dispatcher.channel_kit import SECRET, TOKEN
from tests.dispatcher.wechat_kit import World

LIFE_S = 7200
HOUR_MS = 3_600_000


@asynccontextmanager
async def fleet(world: World, count: int) -> AsyncIterator[list[TokenSteward]]:
    """So many processes' stewards, each with a connection of its own to the one ledger."""
    ledgers = [InlineLedger(world.path) for _ in range(count)]
    async with trio.open_nursery() as nursery:
        yield [world.steward(nursery, ledger) for ledger in ledgers]
        nursery.cancel_scope.cancel()
    for ledger in ledgers:
        await ledger.aclose()


def files_of(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.iterdir()]


async def all_ask(stewards: list[TokenSteward]) -> list[str]:
    """Every process asks at the same moment; the tokens that they got."""
    got: list[str] = []

    async def ask(steward: TokenSteward) -> None:
        got.append(await steward.refresh_if_needed())

    async with trio.open_nursery() as nursery:
        for steward in stewards:
            nursery.start_soon(ask, steward)
    return got


async def test_a_fleet_that_starts_fetches_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    world = World(tmp_path)
    async with fleet(world, 8) as stewards:
        assert len(set(await all_ask(stewards))) == 1
    assert world.book.token_requests == 1
    # And one that comes later takes what is there
    async with fleet(world, 1) as stewards:
        await all_ask(stewards)
    assert world.book.token_requests == 1


async def test_five_hundred_refusals_in_four_processes_lead_to_one_refresh(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    # Given four processes with 125 sends each in flight, all with one token
    world = World(tmp_path)
    async with fleet(world, 4) as stewards:
        (old,) = set(await all_ask(stewards))
        got: list[str] = []

        async def refused(steward: TokenSteward, after_s: float) -> None:
            await trio.sleep(after_s)
            steward.invalidate(old)
            got.append(await steward.refresh_if_needed())

        for expiry in range(1, 4):
            # When it expires, and the refusals come before, during and after the refresh
            world.providers.wechat.expire_tokens(world.now_ms() / 1000)
            got.clear()
            async with trio.open_nursery() as nursery:
                for n in range(500):
                    nursery.start_soon(refused, stewards[n % 4], n * 0.001)
            # Then there was one more fetch, and all have its token
            assert len(set(got)) == 1
            assert got[0] != old
            assert world.book.token_requests == 1 + expiry
            old = got[0]


async def test_a_token_is_renewed_before_its_end_by_one_while_the_others_go_on(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    world = World(tmp_path)
    async with fleet(world, 4) as stewards:
        (old,) = set(await all_ask(stewards))
        await trio.sleep(LIFE_S - REFRESH_BEFORE_S + 1)
        began = trio.current_time()
        # When all find that it is time, then three go on with the old one at once, and soon all have the new one
        got = sorted(await all_ask(stewards), key=lambda token: token == old)
        assert (len(set(got)), got.count(old)) == (2, 3)
        assert trio.current_time() - began <= 0.2
        await trio.sleep(2)
        (new,) = set(await all_ask(stewards))
        assert new == got[0]
    assert world.book.token_requests == 2


async def test_a_process_that_dies_while_it_fetches_is_replaced(tmp_path: Path, autojump_clock: MockClock) -> None:
    # Given a process that took the lease and was killed before it could give it back
    world = World(tmp_path)
    async with fleet(world, 1) as (survivor,):
        dead = InlineLedger(world.path)
        answer = await dead.token_ask("wechat/wxsimulated000000", None, world.now_ms())
        assert answer.what == "fetch"
        # When another needs the token, then it waits until the lease has run out, and fetches
        began = trio.current_time()
        await survivor.refresh_if_needed()
        assert FETCH_LEASE_MS / 1000 <= trio.current_time() - began <= FETCH_LEASE_MS / 1000 + 1
        assert world.book.token_requests == 1
        # And what the dead one still wrote changes nothing
        current = survivor.current
        await dead.token_fetched(
            "wechat/wxsimulated000000", answer.row.lease, b"late", world.now_ms() + 10**7, world.now_ms() + 10**7, 0
        )
        other = InlineLedger(world.path)
        assert (await other.token_ask("wechat/wxsimulated000000", None, world.now_ms())).row.generation == 1
        assert await survivor.refresh_if_needed() == current
        await dead.aclose()
        await other.aclose()


async def test_one_that_is_cancelled_leaves_the_fetch_to_the_next_at_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    world = World(tmp_path)
    async with fleet(world, 2) as (first, second):
        with trio.move_on_after(0.05) as impatient:
            await first.refresh_if_needed()
        assert impatient.cancelled_caught
        began = trio.current_time()
        await second.refresh_if_needed()
        assert trio.current_time() - began < 1


async def test_an_outage_of_the_token_endpoint_is_asked_about_once_a_second_by_the_whole_fleet(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    world = World(tmp_path)
    world.instead[STABLE_TOKEN_PATH] = lambda: (502, b"<html>502 Bad Gateway</html>")
    async with fleet(world, 6) as stewards:
        until, said = trio.current_time() + 30, set[str]()

        async def lane(steward: TokenSteward) -> None:
            while trio.current_time() < until:
                try:
                    await steward.refresh_if_needed()
                except ChannelPaused as paused:
                    said.add(str(paused))
                    await trio.sleep(paused.retry_after_s)

        async with trio.open_nursery() as nursery:
            for steward in stewards:
                nursery.start_soon(lane, steward)
        assert said == {"no WeChat token: HTTP 502"}
        assert 10 <= world.calls.count(STABLE_TOKEN_PATH) <= 31
        # And when it is over, one fetch serves all
        del world.instead[STABLE_TOKEN_PATH]
        await trio.sleep(1.1)
        await all_ask(stewards)
    assert world.book.token_requests == 1


async def test_an_ip_that_is_not_allowed_is_said_plainly_by_every_process(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    # Given an answer as WeChat words it, which echoes what it was sent
    world = World(tmp_path)
    text = f"invalid ip 203.0.113.9 ipv6 ::ffff:203.0.113.9, not in whitelist {SECRET} {TOKEN} rid: 1-2-3"
    world.instead[STABLE_TOKEN_PATH] = lambda: (200, json.dumps({"errcode": 40164, "errmsg": text}).encode())
    async with fleet(world, 3) as stewards:
        # When all ask, then each says what to do, and WeChat was asked once
        for steward in stewards:
            with pytest.raises(ChannelPaused) as caught:
                await steward.refresh_if_needed()
            assert caught.value.misconfigured
            assert "203.0.113.9 is" in str(caught.value).replace("): this machine's address", " is")
            assert "IP allow-list; add it in WeChat's console" in str(caught.value)
            assert SECRET not in str(caught.value)
        assert world.calls.count(STABLE_TOKEN_PATH) == 1
    assert SECRET.encode() not in b"".join(files_of(tmp_path))


async def test_a_process_whose_clock_was_read_before_it_waited_for_its_turn_does_not_fetch_as_well(
    tmp_path: Path,
) -> None:
    # Given two processes that ask at the same moment; the second one's clock was read first
    ledger = InlineLedger(str(tmp_path / "ledger.db"))
    first = await ledger.token_ask("wechat/x", None, 1_000_200)
    second = await ledger.token_ask("wechat/x", None, 1_000_000)
    # Then one fetches; but a lease that a clock set back by hours has left does not hold them all up
    assert (first.what, second.what) == ("fetch", "wait")
    assert (await ledger.token_ask("wechat/x", None, 1_000_000 - 2 * FETCH_LEASE_MS)).what == "fetch"
    await ledger.aclose()


# ---- the last resort ----------------------------------------------------------------------------------------------


async def test_a_forced_refresh_is_made_only_when_the_refused_token_comes_back(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    world = World(tmp_path)
    async with fleet(world, 4) as stewards:
        (old,) = set(await all_ask(stewards))
        # When the platform refuses a token that it goes on giving out
        world.providers.wechat.kill_token()
        for steward in stewards:
            steward.invalidate(old)
        (new,) = set(await all_ask(stewards))
        # Then one process forces a new one
        assert new != old
        assert (world.book.token_requests, world.book.forced_refreshes) == (3, 1)
        # And when that happens again within 30 s, nobody forces: WeChat would not refresh
        world.providers.wechat.kill_token()
        for steward in stewards:
            steward.invalidate(new)
        for steward in stewards:
            with pytest.raises(ChannelPaused, match="force_refresh is used up"):
                await steward.refresh_if_needed()
        assert world.book.forced_refreshes == 1
        await trio.sleep(31)
        assert new not in set(await all_ask(stewards))
        assert world.book.forced_refreshes == 2


async def test_at_most_twenty_forced_refreshes_a_day_in_china(tmp_path: Path, autojump_clock: MockClock) -> None:
    world = World(tmp_path, token_lifetime_seconds=86_400)
    async with fleet(world, 2) as stewards:
        refusals = 0
        until_ms = world.start_ms + 2 * 3_600_000  # midnight in China
        while world.now_ms() < until_ms - 40_000:
            for steward in stewards:
                try:
                    token = await steward.refresh_if_needed()
                except ChannelPaused:
                    refusals += 1
                else:
                    world.providers.wechat.kill_token()
                    steward.invalidate(token)
            await trio.sleep(31)
        assert world.book.forced_refreshes == FORCED_PER_DAY
        assert refusals > 10
        # And after midnight there are others
        await trio.sleep(80)
        await stewards[0].refresh_if_needed()
        assert world.book.forced_refreshes == FORCED_PER_DAY + 1


async def test_a_storm_of_refreshes_is_an_alarm_and_ends(
    tmp_path: Path, autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    world, meter = World(tmp_path), Meter()
    ledger = InlineLedger(world.path)
    async with trio.open_nursery() as nursery:
        steward = world.steward(nursery, ledger, meter)
        # When somebody else ends the token again and again
        for _ in range(STORM_REFRESHES):
            steward.invalidate(await steward.refresh_if_needed())
            world.providers.wechat.expire_tokens(world.now_ms() / 1000)
            await trio.sleep(10)
        assert meter.totals.token_storms == {}
        await steward.refresh_if_needed()
        # Then it is said
        assert meter.totals.token_storms == {"wechat": 1}
        assert meter.totals.token_refreshes == {"wechat": STORM_REFRESHES + 1}
        # And when it is over, too
        await trio.sleep(601)
        steward.calm()
        assert meter.totals.token_storms == {"wechat": 0}
        nursery.cancel_scope.cancel()
    await ledger.aclose()


# ---- at rest ------------------------------------------------------------------------------------------------------


async def test_the_token_does_not_lie_open_in_the_ledger(tmp_path: Path, autojump_clock: MockClock) -> None:
    world = World(tmp_path)
    async with fleet(world, 1) as (steward,):
        token = await steward.refresh_if_needed()
        files = files_of(tmp_path)
        assert any(b'"generation":1' in content for content in files)
        assert not any(token.encode() in content for content in files)


async def test_a_changed_app_secret_fetches_a_new_token(tmp_path: Path, autojump_clock: MockClock) -> None:
    # Given a ledger whose token was sealed with another secret
    world = World(tmp_path)
    other = Seal("wechat/wxsimulated000000", Secret("the one before"))
    async with fleet(world, 1) as (steward,):
        ledger = InlineLedger(world.path)
        lease = (await ledger.token_ask("wechat/wxsimulated000000", None, world.now_ms())).row.lease
        late = world.now_ms() + 10**7
        await ledger.token_fetched("wechat/wxsimulated000000", lease, other.seal("x" * 100), late, late, 0)
        await ledger.aclose()
        # When it is needed
        token = await steward.refresh_if_needed()
        # Then WeChat was asked
        assert token != "x" * 100
        assert world.book.token_requests == 1


@pytest.mark.parametrize("sealed", [b"", b"short", b"x" * 200])
def test_a_damaged_seal_is_no_token(sealed: bytes) -> None:
    assert Seal("a", Secret(SECRET)).open(sealed) is None


def test_a_seal_is_of_one_account_and_one_secret() -> None:
    seal = Seal("a", Secret(SECRET))
    sealed = seal.seal(TOKEN)
    assert TOKEN.encode() not in sealed
    assert sealed != seal.seal(TOKEN)
    assert seal.open(sealed) == TOKEN
    assert Seal("b", Secret(SECRET)).open(sealed) is None
    assert Seal("a", Secret("other")).open(sealed) is None
    assert SECRET not in repr(vars(seal))


async def test_a_ledger_that_cannot_be_written_pauses_the_channel(tmp_path: Path, autojump_clock: MockClock) -> None:
    world = World(tmp_path)
    async with fleet(world, 1) as (steward,):
        steward._store = _Broken()  # type: ignore[assignment]
        with pytest.raises(ChannelPaused, match="the disk is full"):
            await steward.refresh_if_needed()


class _Broken:
    async def token_ask(self, *_: object) -> None:
        raise LedgerUnavailable("the disk is full")


def test_a_clock_that_was_set_back_does_not_stop_the_fleet() -> None:
    # Given a fetch that failed by a clock which was an hour ahead
    row = tokens.failed(tokens.ask(TokenRow(), None, HOUR_MS)[0], 1, HOUR_MS + 1_000, "HTTP 503", misconfigured=False)
    # When a process asks after the clock was set right, then it may fetch; a second before its time it may not
    assert tokens.ask(row, None, 0)[1].what == "fetch"
    assert tokens.ask(row, None, HOUR_MS)[1].what == "trouble"
