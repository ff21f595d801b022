"""A storm pages somebody once: the log, the gauge, and what /metrics of a fleet shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import structlog.testing
import trio

from dispatcher.metrics import Meter
from dispatcher.storms import OVER_MS, Storms
from dispatcher.totals import merged
from tests.dispatcher.metrics_kit import shown
from tests.dispatcher.test_engine import OK, ScriptedChannel, World, swipe


@pytest.fixture
def world() -> Iterator[World]:
    one = World(ScriptedChannel("wechat", [OK]), None)
    yield one
    one.ledger.store.close()


NOW = 1_795_406_400_000


def test_a_storm_is_said_once_and_is_over_when_nothing_was_held_for_minutes() -> None:
    meter = Meter()
    storms = Storms(meter)
    with structlog.testing.capture_logs() as logs:
        # Given a rule that holds alerts for half an hour, some every minute
        for minute in range(30):
            storms.held({"burst": 7}, NOW + minute * 60_000)
            storms.tick(NOW + minute * 60_000 + 1)
        assert meter.totals.storms == {"burst": 1}
        # When nothing comes any more
        last = NOW + 29 * 60_000
        storms.tick(last + OVER_MS - 1)
        assert meter.totals.storms == {"burst": 1}
        storms.tick(last + OVER_MS)
        storms.tick(last + OVER_MS + 1)
        # Then it is over, and the next one is another
        assert meter.totals.storms == {"burst": 0}
        storms.held({"burst": 1}, last + OVER_MS + 2)
    assert [(line["event"], line["rule"], line["log_level"]) for line in logs] == [
        ("storm", "burst", "error"),
        ("storm_over", "burst", "warning"),
        ("storm", "burst", "error"),
    ]
    assert (logs[1]["held"], logs[1]["seconds"]) == (210, 29 * 60)


def test_a_clock_that_goes_back_makes_no_storm_endless() -> None:
    meter = Meter()
    storms = Storms(meter)
    storms.held({"burst": 1}, NOW)
    storms.tick(NOW - 3_600_000)
    assert meter.totals.storms == {"burst": 0}


RULES = """version = 1
[[rule]]
id = "burst"
effect = "storm"
fingerprint = ["merchant", "amount"]
limit = 3
minutes = 10
sample = 0
"""
PERSONAL = {"merchant": "Secret Bar", "pan": "************5770"}


async def test_a_faulty_source_pages_once_and_the_fleet_shows_it(world: World, autojump_clock: Any) -> None:
    # Given a source that rings two hundred times for one purchase
    w = world
    await w.tell()
    with structlog.testing.capture_logs() as logs:
        async with w.running(rules=RULES) as engine:
            for number in range(0, 200, 20):
                await engine.admit([swipe(n, w.now_ms(), **PERSONAL) for n in range(number, number + 20)])
            await trio.sleep(1)
            # Then a few were told and the others are held
            told = len(w.wechat.tried)
            assert 1 <= told <= 5
            assert w.meter.totals.storm_held == w.meter.totals.held_by == {"burst": 200 - told}
            assert (await w.ledger.books()).states["held"] == 200 - told
            # And a fleet's page shows the storm while it lasts
            text = shown(merged([w.meter.totals, Meter().totals]))
            assert f'swipebell_storm_held_total{{rule="burst"}} {200.0 - told}' in text
            assert 'swipebell_storm_active{rule="burst"} 1.0' in text
            await trio.sleep(OVER_MS / 1000 + 2)
            assert 'swipebell_storm_active{rule="burst"} 0.0' in shown(w.meter.totals)
    # And the log says it once, without a word about the events
    lines = [line for line in logs if line["event"].startswith("storm")]
    assert [line["event"] for line in lines] == ["storm", "storm_over"]
    assert lines[0]["rule"] == "burst"
    assert not any(word in str(lines) for word in ("Secret", "5770", "acc", "20000"))


async def test_a_recipient_in_no_zone_is_counted(world: World, autojump_clock: Any) -> None:
    w = world
    await w.tell()
    w.ledger.store.connection.execute("UPDATE recipients SET card = replace(card, 'Asia/Shanghai', 'Moon/Base')")
    async with w.running() as engine:
        await engine.admit([swipe(1, w.now_ms()), swipe(2, w.now_ms())])
        await engine.idle()
    assert "swipebell_recipients_wrong_zone_total 2.0" in shown(w.meter.totals)
