"""An alert that leaves late says so, when the rules want it to: in the words of each channel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from dispatcher.channels.sms.generic import GenericSmsChannel
from dispatcher.config_sms import SmsConfig
from dispatcher.freshness import telling_age
from dispatcher.model.alert import Alert
from dispatcher.model.private import Secret
from dispatcher.network.api import Request
from ratelimit.retry import RetryPolicy
from tests.dispatcher import test_wechat_channel, test_wechat_service
from tests.dispatcher.channel_kit import NOW, SECRET, an_alert
from tests.dispatcher.test_engine import BUSY, OK, ScriptedChannel, World, swipe
from tests.dispatcher.wechat_kit import LIBRARY

MINUTE_MS = 60_000
RULES = """version = 1
[[rule]]
id = "swipe-expiry"
effect = "expire_after"
category = "swipe"
hours = 24
say_late_minutes = 30
"""


class Listening(ScriptedChannel):
    """Remembers how late each alert says to be, by its event's id, at every attempt."""

    def __init__(self) -> None:
        super().__init__("wechat", [OK])
        self.said: dict[str, list[int]] = {}

    def prepare(self, alert: Alert) -> Request:
        self.said.setdefault(alert.event.id, []).append(alert.late_seconds)
        return super().prepare(alert)


@pytest.fixture
def channel() -> Listening:
    return Listening()


@pytest.fixture
def world(channel: Listening) -> Iterator[World]:
    one = World(channel, None)
    yield one
    one.ledger.store.close()


async def test_an_alert_says_how_late_it_is_when_it_leaves(
    world: World, channel: Listening, autojump_clock: Any
) -> None:
    # Given a rule for swipes, and one of 29, of 30 and of 35 minutes, and another category's of two hours
    await world.tell()
    async with world.running(rules=RULES) as engine:
        for number, minutes, changes in ((1, 29, {}), (2, 30, {}), (3, 35, {}), (4, 120, {"category": "notice"})):
            await engine.admit([swipe(number, world.now_ms() - minutes * MINUTE_MS, **changes)])
        await engine.idle()
    # Then those that are old enough say so, and only those
    assert channel.said == {"e1": [0], "e2": [1800], "e3": [2100], "e4": [0]}


async def test_one_that_had_to_wait_says_it_then(world: World, channel: Listening, autojump_clock: Any) -> None:
    # Given a provider that is busy at first, and a swipe of 29 minutes
    await world.tell()
    channel.answers = [BUSY, BUSY, BUSY, BUSY, BUSY, BUSY, BUSY, BUSY, OK]
    async with world.running(rules=RULES) as engine:
        await engine.admit([swipe(1, world.now_ms() - 29 * MINUTE_MS)])
        # When it is accepted at last
        await engine.idle()
    # Then it said nothing as long as it was young, and after that its age at each attempt
    said = channel.said["e1"]
    assert said[0] == 0
    assert said[-1] >= 1800
    assert said == sorted(said)


async def test_without_such_a_rule_none_says_it(world: World, channel: Listening, autojump_clock: Any) -> None:
    await world.tell()
    async with world.running(rules="version = 1\n") as engine:
        await engine.admit([swipe(1, world.now_ms() - 300 * MINUTE_MS)])
        await engine.idle()
    assert channel.said == {"e1": [0]}


def test_fresh_alerts_are_not_asked_about() -> None:
    def say_late_ms(category: str) -> int | None:
        raise AssertionError

    alerts = [an_alert(), an_alert()]
    assert telling_age(alerts, NOW + 9_000, say_late_ms) is alerts


async def words_of(channel: str, alert: Alert) -> str:
    """What a channel sends for an alert."""
    if channel == "sms":
        gateway = SmsConfig(base_url="https://sms.example", secret_env="SECRET")
        request = GenericSmsChannel(gateway, Secret(SECRET), LIBRARY, RetryPolicy(), None).prepare(alert)
    else:
        made = test_wechat_channel.a_channel if channel == "wechat" else test_wechat_service.a_channel
        async with made() as wechat:
            request = wechat.prepare(alert)
    assert request.body is not None
    return str(msgspec.json.decode(request.body))


@pytest.mark.parametrize(
    ("channel", "locale", "words"),
    [
        ("wechat", "zh-CN", "尾号5770 迟到约35分钟"),
        ("wechat", "en", "*5770, 35 min late"),
        ("wechat_service", "zh-CN", "，本通知延迟约35分钟。"),
        ("sms", "zh-CN", "，本通知延迟约35分钟。"),
        ("sms", "en", "This notice is about 35 min late."),
    ],
)
async def test_every_channel_has_words_for_it(channel: str, locale: str, words: str) -> None:
    late = an_alert(recipient={"locale": locale}, late_seconds=2_100)
    assert words in await words_of(channel, late)
    in_time = await words_of(channel, an_alert(recipient={"locale": locale}))
    assert not any(word in in_time for word in (" late", "迟"))
