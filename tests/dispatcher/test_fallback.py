"""Fallback by category: the order of channels, the deadlines, and the engine on both sides of the fence."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trio

from dispatcher.config_load import load_config
from dispatcher.delivery import ChannelPolicy, after_receipt
from dispatcher.errors import ConfigurationError
from dispatcher.fallback import Orders, with_deadlines
from dispatcher.ledger.api import Receipt
from dispatcher.model.recipient import Recipient, RecipientLine
from ratelimit.retry import RetryPolicy
from replay.explain import tell
from tests.dispatcher.channel_kit import NOW, an_alert
from tests.dispatcher.metrics_kit import shown
from tests.dispatcher.test_engine import OK, Answer, AnswerClass, ScriptedChannel, World, swipe

RETRY = RetryPolicy(base_seconds=1.0, cap_seconds=60.0, max_attempts=5)
BAD_NUMBER = Answer(AnswerClass.RECIPIENT_GONE, "3", scope="recipient")
BUSY = Answer(AnswerClass.RETRY, "2")


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


# ---- the order ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("category", "own", "wanted"),
    [
        ("swipe", ("sms", "wechat"), ("wechat", "sms")),
        ("swipe", ("wechat", "sms"), ("wechat", "sms")),
        ("swipe", ("email", "sms"), ("sms",)),
        ("swipe", ("email",), ()),
        ("promotion", ("wechat", "sms"), ("wechat",)),
        ("another", ("sms", "email"), ("sms", "email")),
    ],
)
def test_a_category_orders_the_channels_a_recipient_has_chosen(
    category: str, own: tuple[str, ...], wanted: tuple[str, ...]
) -> None:
    orders = Orders({"swipe": ("wechat", "sms"), "promotion": ("wechat",)})
    recipient = Recipient(1, "A", channels=own)
    for _ in range(2):  # the second time from memory
        seen = orders.of(category, recipient)
        assert (seen.channels, seen.id, recipient.channels) == (wanted, 1, own)


def test_without_an_order_nobody_is_asked() -> None:
    assert not Orders({})
    assert Orders({"swipe": ("sms",)})


# ---- the deadline -------------------------------------------------------------------------------------------------


def test_a_categorys_deadline_holds_while_there_is_a_next_channel() -> None:
    # Given a channel that waits five minutes, and one that waits for nothing
    waits, never = ChannelPolicy(RETRY, True, 300_000), ChannelPolicy(RETRY, True, None)
    first, last = an_alert(route=("wechat", "sms")), an_alert(route=("wechat", "sms"), position=1)
    # When a category has a minute
    policy = with_deadlines(lambda alert: waits, {"swipe": 60_000})
    # Then its alerts wait a minute, but on their last channel as long as before, and others too
    assert [policy(one).receipt_ms for one in (first, last)] == [60_000, 300_000]
    assert policy(first) is policy(first)
    assert with_deadlines(lambda alert: waits, {"fraud": 60_000})(first) is waits
    assert with_deadlines(lambda alert: never, {"swipe": 60_000})(first) is never


def test_without_deadlines_the_channel_is_asked_directly() -> None:
    def policy(alert: Any) -> ChannelPolicy:
        raise AssertionError

    assert with_deadlines(policy, {}) is policy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[fallback]\nchannels = { swipe = [] }", "fallback.channels: a list is empty or names a channel twice"),
        ('[fallback]\nchannels = { swipe = ["sms", "sms"] }', "fallback.channels: a list is empty or names a channel"),
        (
            '[fallback]\nchannels = { swipe = ["pigeon"] }',
            'fallback.channels: allowed is a table of names with a list of "',
        ),
        ('[fallback]\nchannels = { swipe = "sms" }', "fallback.channels: allowed is a table of names with a list"),
        (
            "[fallback]\ndeadline_seconds = { swipe = 60 }",
            "fallback.deadline_seconds: is given without the section",
        ),
        (
            "[receipts]\n[fallback]\ndeadline_seconds = { swipe = 0.5 }",
            "fallback.deadline_seconds: allowed is",
        ),
        ("[fallback.swipe]\nchannels = ['sms']", "unknown key fallback.swipe"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line_that_says_what_is_allowed(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "swipebell.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_config(path, None)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


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


async def test_the_next_channel_is_taken_at_the_categorys_deadline(world: Any, autojump_clock: Any) -> None:
    # Given channels that wait five minutes for a receipt, and a category that waits one
    w = world([OK], sms_receipt_ms=300_000)
    await w.tell()
    async with w.running(deadline_ms={"swipe": 60_000}) as engine:
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
    async with w.running(deadline_ms={"swipe": 60_000}) as engine:
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
    async with w.running(deadline_ms={"swipe": 60_000}) as engine:
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
    async with w.running(deadline_ms={"swipe": 60_000}) as engine:
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
