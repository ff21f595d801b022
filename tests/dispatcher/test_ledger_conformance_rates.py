"""What every ledger keeps of the shares of a rate; the arithmetic is tried in tests/ratelimit/test_shares.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from dispatcher.ledger.api import Ledger, RateAsk, RateShare
from ratelimit.shares import GAP_MS, TERM_MS
from tests.dispatcher.ledger_kit import BACKENDS

START_MS = 1_000_000


@pytest.fixture(params=BACKENDS)
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    one = await BACKENDS[request.param](tmp_path)
    yield one
    await one.aclose()


def at(ms: int) -> Callable[[], int]:
    return lambda: START_MS + ms


def ask(want: int, using: int, name: str = "wechat") -> RateAsk:
    return RateAsk(name, 400, want, using)


async def test_the_first_gets_all_and_each_rate_is_its_own(ledger: Ledger) -> None:
    shares = await ledger.share_rates([ask(400, 0), ask(400, 0, "sms")], 1, at(0))
    assert shares == [RateShare(400, START_MS + TERM_MS, 400)] * 2


async def test_a_part_moves_only_when_its_last_second_is_over(ledger: Ledger) -> None:
    # Given one that has all, when another comes
    await ledger.share_rates([ask(400, 0)], 1, at(0))
    assert (await ledger.share_rates([ask(400, 0)], 2, at(10)))[0].share == 0
    # Then the first is told, lowers its share, and says so
    assert (await ledger.share_rates([ask(400, 400)], 1, at(20)))[0].fair == 200
    assert (await ledger.share_rates([ask(400, 200)], 1, at(30)))[0].share == 200
    # And the other gets it when the gap is over, not before
    assert (await ledger.share_rates([ask(400, 0)], 2, at(29 + GAP_MS)))[0].share == 0
    assert (await ledger.share_rates([ask(400, 0)], 2, at(30 + GAP_MS)))[0].share == 200


async def test_what_a_process_gives_back_is_free_after_the_gap(ledger: Ledger) -> None:
    await ledger.share_rates([ask(400, 0)], 1, at(0))
    await ledger.leave_rates(1, at(100))
    assert (await ledger.share_rates([ask(400, 0)], 2, at(99 + GAP_MS)))[0].share == 0
    assert (await ledger.share_rates([ask(400, 0)], 2, at(100 + GAP_MS)))[0].share == 400


async def test_a_dead_process_is_waited_for_and_then_forgotten(ledger: Ledger) -> None:
    await ledger.share_rates([ask(400, 0)], 1, at(0))
    over = TERM_MS + GAP_MS
    assert (await ledger.share_rates([ask(400, 0)], 2, at(over - 1)))[0].share == 0
    assert (await ledger.share_rates([ask(400, 0)], 2, at(over)))[0].share == 400
    # And should it come back, it has nothing until the other has lowered its share
    assert (await ledger.share_rates([ask(400, 400)], 1, at(over + 1)))[0].share == 0
