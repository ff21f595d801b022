"""Fallback by rule: the deadlines, and the engine on both sides of the fence."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
import trio

from dispatcher.config import Config, ReceiptsConfig
from dispatcher.config_load import load_config
from dispatcher.delivery import ChannelPolicy, after_receipt
from dispatcher.errors import ConfigurationError
from dispatcher.fallback import with_deadlines
from dispatcher.ledger.api import Receipt
from dispatcher.model.recipient import RecipientLine
from dispatcher.rules_in_force import RulesInForce
from dispatcher.service import warn_of_idle_rules
from ratelimit.retry import RetryPolicy
from ratelimit.rules import Decider, load_rules
from replay.explain import tell
from tests.dispatcher.channel_kit import NOW, an_alert
from tests.dispatcher.metrics_kit import shown
from tests.dispatcher.test_engine import OK, Answer, AnswerClass, ScriptedChannel, World, swipe

RETRY = RetryPolicy(base_seconds=1.0, cap_seconds=60.0, max_attempts=5)
BAD_NUMBER = Answer(AnswerClass.RECIPIENT_GONE, "3", scope="recipient")
A_MINUTE = """version = 1
[[rule]]
id = "swipe-route"
effect = "route"
when = { category = "swipe" }
channels = ["wechat", "sms"]
deadline_seconds = 60
"""
BUSY = Answer(AnswerClass.RETRY, "2")


def in_force(rule: str) -> RulesInForce:
    return RulesInForce(Decider(load_rules(rule, "test"), ("wechat", "sms")))


@pytest.fixture
def world() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(sms: list[Answer], receipt_ms: int = 300_000, sms_receipt_ms: int | None = None) -> World:
        second = ScriptedChannel("sms", sms, fenced=True, receipt_ms=sms_receipt_ms)
        made.append(World(ScriptedChannel("wechat", [OK], receipt_ms=receipt_ms), second))
        return made[-1]

    yield make
    for one in made:
        one.ledger.store.close()


async def until(condition: Callable[[], Any]) -> None:
    with trio.fail_after(3600):
        while not condition():  # noqa: ASYNC110 - what is waited for is in the ledger or in a channel of the test
            await trio.sleep(0.1)


# ---- the deadline -------------------------------------------------------------------------------------------------


def test_a_rules_deadline_holds_while_there_is_a_next_channel() -> None:
    # Given a channel that waits five minutes, and one that waits for nothing
    waits, never = ChannelPolicy(RETRY, True, 300_000), ChannelPolicy(RETRY, True, None)
    first, last = an_alert(route=("wechat", "sms")), an_alert(route=("wechat", "sms"), position=1)
    # When a rule gives its category a minute
    rules = in_force(A_MINUTE)
    policy = with_deadlines(lambda alert: waits, rules)
    # Then its alerts wait a minute, but on their last channel as long as before, and others too
    assert [policy(one).receipt_ms for one in (first, last)] == [60_000, 300_000]
    assert policy(first) is policy(first)
    assert policy(an_alert(event={"category": "fraud"})) is waits
    assert with_deadlines(lambda alert: never, rules)(first) is never
    # And other rules hold from the moment in which they are in force
    rules.decider = in_force(A_MINUTE.replace("60", "20")).decider
    assert policy(first).receipt_ms == 20_000
    rules.decider = in_force("version = 1").decider
    assert policy(first) is waits


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[fallback]", 'id = "route-swipe", effect = "route", when = { category = "swipe" }'),
        (
            '[fallback]\nchannels = { swipe = ["sms", "wechat"] }\ndeadline_seconds = { swipe = 59.5, fraud = 30 }',
            'when = { category = "swipe" }, channels = ["sms", "wechat"], deadline_seconds = 60',
        ),
        (
            "[fallback]\ndeadline_seconds = { fraud = 30.0 }",
            'id = "route-fraud", effect = "route", when = { category = "fraud" }, '
            'channels = ["wechat", "sms", "email", "webhook"], deadline_seconds = 30',
        ),
        ('[fallback]\nchannels = { sk_LIVE_77 = ["sk_LIVE_77"] }', 'when = { category = "swipe" }'),
        ("fallback = 3", "remove the section and write into rules.toml"),
    ],
)
def test_a_configuration_that_orders_channels_is_told_which_rule_to_write(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "swipebell.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_config(path, None)
    told = str(caught.value)
    assert told.startswith(f"{path}: fallback: the rules say this now;")
    assert message in told
    assert "\n" not in told
    assert "LIVE" not in told


def test_a_deadline_for_which_no_receipt_can_come_is_said_at_the_start() -> None:
    with structlog.testing.capture_logs() as logs:
        warn_of_idle_rules(Config(), in_force("version = 1"))
        warn_of_idle_rules(Config(receipts=ReceiptsConfig()), in_force(A_MINUTE))
        assert logs == []
        warn_of_idle_rules(Config(), in_force(A_MINUTE))
    assert [line["event"] for line in logs] == ["deadline_without_receipts"]


def test_the_rule_that_is_told_is_one_that_can_be_loaded(tmp_path: Path) -> None:
    # Given what a configuration with an order is told
    path = tmp_path / "swipebell.toml"
    path.write_text('[fallback]\nchannels = { swipe = ["wechat", "sms"] }\ndeadline_seconds = { swipe = 60.0 }')
    with pytest.raises(ConfigurationError) as caught:
        load_config(path, None)
    # When it is written down one key a line
    rule = str(caught.value).partition("(one key a line) ")[2]
    # Then the rules say the same as the configuration did
    decider = in_force("version = 1\n" + re.sub(r", (?=[a-z_]+ = )", "\n", rule).replace("]], ", "]]\n")).decider
    alert = an_alert()
    assert decider.deadline_ms(alert.event, alert.recipient) == 60_000


def test_a_late_success_names_its_channel_in_the_reason() -> None:
    alert = an_alert(route=("wechat", "sms"), position=1)
    step = after_receipt(alert, "delivered:wechat", NOW)
    assert (step.state, step.reason, step.position, step.ended, step.due_ms) == (
        "delivered",
        "late:wechat",
        1,
        True,
        None,
    )


# ---- the engine ---------------------------------------------------------------------------------------------------


async def test_the_next_channel_is_taken_at_the_rules_deadline(world: Any, autojump_clock: Any) -> None:
    # Given channels that wait five minutes for a receipt, and a category that waits one
    w = world([OK], sms_receipt_ms=300_000)
    await w.tell()
    async with w.running(rules=A_MINUTE) as engine:
        await engine.admit([swipe(1), swipe(2, category="fraud")])
        # When no receipt comes
        await trio.sleep(59)
        assert len(w.sms.tried) == 0
        await trio.sleep(3)
        # Then the one alert has gone on, once, and the other has time
        assert len(w.sms.tried) == 1
        assert [(await w.state(name)).channel for name in ("e1", "e2")] == ["sms", "wechat"]
        await trio.sleep(245)
        assert len(w.sms.tried) == 2
        assert len(w.wechat.tried) == 2
        await engine.idle()
    assert w.meter.ended == {"failed": 2}


async def test_who_has_switched_a_template_off_gets_no_more_of_it_by_wechat(world: Any, autojump_clock: Any) -> None:
    # Given WeChat's 43101 for one alert
    w = world([OK])
    w.wechat.answers = [Answer(AnswerClass.OPTED_OUT, "43101", scope="template")]
    await w.tell()
    async with w.running() as engine:
        await engine.admit([swipe(1)])
        await engine.idle()
        # When the next one comes
        await engine.admit([swipe(2)])
        await engine.idle()
    # Then WeChat is not asked again for this template, and both went out by SMS
    assert [(await w.state(name)).route for name in ("e1", "e2")] == [["wechat", "sms"], ["sms"]]
    assert (len(w.wechat.tried), w.meter.delivered_by) == (1, {"sms": 2})


async def test_a_late_success_is_counted_once_and_told(world: Any, autojump_clock: Any) -> None:
    # Given an alert that went out by SMS after a minute
    w = world([OK])
    await w.tell()
    async with w.running(rules=A_MINUTE) as engine:
        await engine.admit([swipe()])
        await engine.idle()
        # When WeChat says twice that it arrived
        for _ in range(2):
            await engine.receive([Receipt("wechat", "m", "delivered")])
    # Then it is one known double, in the metric, the books and the story
    assert "swipebell_known_doubles_total 1.0" in shown(w.meter.totals)
    assert (await w.ledger.books()).known_doubles == 1
    assert (w.meter.ended, w.meter.delivered_by) == ({"delivered": 1}, {"sms": 1})
    story = await w.ledger.explain("e1")
    told = "\n".join(tell(story))
    assert "delivered by sms" in told
    assert "fallback from wechat to sms, decided once: wechat had accepted it and gave no receipt by the dead" in told
    assert "wechat reported success after that: a known double, for sms rang or may have rung too" in told
    assert "said 2 times" in told


async def test_a_success_while_the_gateway_is_busy_saves_the_sms(world: Any, autojump_clock: Any) -> None:
    # Given a gateway that was busy when the SMS was to be sent
    w = world([BUSY])
    await w.tell()
    async with w.running(rules=A_MINUTE) as engine:
        await engine.admit([swipe()])
        await until(lambda: w.sms.tried)
        # When WeChat's success comes before the next try
        await engine.receive([Receipt("wechat", "m", "delivered")])
        tried = len(w.sms.tried)
        await engine.idle()
    # Then nothing more is sent, and WeChat has delivered it
    assert len(w.sms.tried) <= tried + 1
    assert (w.meter.ended, w.meter.delivered_by) == ({"delivered": 1}, {"wechat": 1})
    assert (await w.ledger.books()).known_doubles == 0
    story = await w.ledger.explain("e1")
    told = "\n".join(tell(story))
    assert "delivered by wechat (late:wechat)" in told
    assert "so nothing more was sent by sms" in told


async def test_a_refused_sms_after_wechats_success_ends_as_delivered_in_every_count(
    world: Any, autojump_clock: Any
) -> None:
    # Given a gateway that takes five seconds to refuse the number
    w = world([BAD_NUMBER])
    await w.tell()
    async with w.running(rules=A_MINUTE) as engine:
        await engine.admit([swipe()])
        await trio.sleep(30)
        w.seconds = 5.0
        query = w.ledger.store.connection.execute
        await until(lambda: query("SELECT 1 FROM alerts WHERE state='sending'").fetchall())
        # When WeChat's success comes meanwhile
        await engine.receive([Receipt("wechat", "m", "delivered")])
        await engine.idle()
    # Then it was delivered, and the counts of the process say what the ledger says
    books = await w.ledger.books()
    assert (w.meter.ended, w.meter.failed_by) == ({"delivered": 1}, {})
    assert (books.states, books.known_doubles, books.balanced) == ({"delivered": 1}, 0, True)
    assert w.meter.outcomes["sms", "recipient_gone"] == 1


async def test_a_reversal_takes_an_alert_out_of_the_lane_it_waits_in(world: Any, autojump_clock: Any) -> None:
    # Given a slow SMS lane: its first alert goes at once, three wait
    w = world([OK])
    await w.tell(RecipientLine(account="acc", phone="+8613800000001", channels=("sms",)))
    async with w.running(rate=1) as engine:
        await engine.admit([swipe(n, amount=20_000 + n) for n in range(4)])
        await until(lambda: w.sms.tried)
        # When the last of them is reversed
        back = {"type": "reversal", "refers_to": "e3", "amount": -20_003}
        await engine.admit([swipe(9, **back)])
        await engine.idle()
    # Then it never leaves, its place in flight is free, and the reversal is not told
    assert len(w.sms.tried) == 3
    assert {name: lane.in_flight for name, lane in engine.lanes.items()} == {"wechat": 0, "sms": 0}
    assert w.meter.ended == {"delivered": 3, "cancelled": 1, "suppressed": 1}
    books = await w.ledger.books()
    assert books.states == w.meter.ended
    told = "\n".join(tell(await w.ledger.explain("e3")))
    assert "cancelled by event e9, which took it back before it was sent," in told
    assert json.loads((await w.ledger.explain("e9")).payload)["refers_to"] == "e3"
    told = "\n".join(tell(await w.ledger.explain("e9")))
    assert "suppressed (reversed-before-sending): what it takes back was cancelled before anybody was told" in told
    assert "belongs to event e3" in told
