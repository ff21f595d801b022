"""Safe mode from end to end: a simulated WeChat, the real listener, engine and ledger, and what the cardholder sees."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from dispatcher.channels.wechat.crypto import CallbackKeys
from dispatcher.config_load import load_config
from dispatcher.doors import open_doors
from dispatcher.model.private import Secret
from dispatcher.service import Service, service
from loadtest.providers.inbound import Inbound
from loadtest.providers.server import Providers, serve_providers
from loadtest.providers.settings import ProviderSettings
from tests.dispatcher.ledger_kit import accepted, recipient

KEY, OLD = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG", "0123456789ABCDEFGabcdefghijklmnopqrstuvwxyz"
APPID, TOKEN, SECRET = "wxsimulated000000", "callback-token", "simulated-secret"
OPENID = "oEndToEnd0000000000000000001"


class World:
    def __init__(self, running: Service, wechat: Providers, inbound: Callable[..., Inbound]) -> None:
        self.running = running
        self.wechat = wechat
        self.inbound = inbound
        self.number = 0

    async def swipe(self) -> tuple[int, int]:
        """One swipe, to its end; returns how many (service messages, template messages) came to the phone so far."""
        self.number += 1
        event = accepted(f"e-{self.number}", time=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()))
        await self.running.engine.admit([event])
        with trio.fail_after(20):
            await self.running.engine.idle()
        return self.wechat.wechat.service.accepted, self.wechat.book.wechat.delivered


@asynccontextmanager
async def a_world(folder: Path) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        wechat = Providers(ProviderSettings(appid=APPID, secret=Secret(SECRET)))
        port = await nursery.start(_serve, wechat)
        for name, content in (("secret", SECRET), ("token", TOKEN), ("aes", f"{KEY}\n{OLD}\n")):
            (folder / name).write_text(content)
            (folder / name).chmod(0o600)
        (folder / "swipebell.toml").write_text(
            f'[channels.wechat]\nbase_url = "http://127.0.0.1:{port}"\nappid = "{APPID}"\nsecret_file = "secret"\n'
            "service_messages = true\n"
            '[receipts]\nlisten = "127.0.0.1:0"\ntoken_file = "token"\naes_key_file = "aes"\ndeadline_seconds = 1.0\n'
        )
        config = load_config(folder / "swipebell.toml", {})
        assert config.warnings == ()
        async with service(config, fail_fast=True) as running, trio.open_nursery() as servers:
            stop = trio.Event()
            urls = await open_doors(running, ["receipts"], servers=servers, background=nursery, stop=stop)
            await running.ledger.import_recipients([recipient(openid=OPENID, phone=None, channels=("wechat",))])

            def inbound(**changes: Any) -> Inbound:
                given = {"keys": CallbackKeys([KEY], APPID), "mode": "safe", "service": wechat.wechat.service}
                return Inbound(urls["receipts"] + "/wechat", TOKEN, **(given | changes))

            yield World(running, wechat, inbound)
            stop.set()
        nursery.cancel_scope.cancel()


async def _serve(wechat: Providers, task_status: trio.TaskStatus[int]) -> None:
    await serve_providers(ProviderSettings(), providers=wechat, task_status=task_status)


async def test_an_alert_takes_the_way_that_the_cardholder_opened(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        wechat, now = world.inbound(), time.time()
        # (The simulation posts no delivery reports here, so a template message ends without a receipt after a second.)
        # Given nobody has written, the template message is sent
        assert await world.swipe() == (0, 1)
        # When the cardholder writes, then five service messages may follow
        assert await wechat.push(OPENID, "text", now)
        for count in range(1, 6):
            assert await world.swipe() == (count, 1)
        # And the sixth is refused (45047), follows as a template message, and closes the window for us
        assert await world.swipe() == (5, 2)
        assert await world.swipe() == (5, 3)
        assert world.wechat.wechat.service.refused == {45047: 1}
        # When they press a menu button, sealed with the key from before, then there is a window again
        old = world.inbound(keys=CallbackKeys([OLD], APPID), mode="compat")
        assert await old.push(OPENID, "CLICK", now + 1)
        assert await world.swipe() == (6, 3)
        # When they unfollow, nothing is sent; a follow brings them back, and an old unfollow does not win
        assert await wechat.push(OPENID, "unsubscribe", now + 2)
        assert await world.swipe() == (6, 3)
        assert await wechat.push(OPENID, "subscribe", now + 4)
        assert await wechat.push(OPENID, "unsubscribe", now + 3)
        world.wechat.wechat.service.heard(OPENID, "follow", now + 4)
        assert await world.swipe() == (7, 3)
        assert world.running.meter.suppressed_by == {"recipient-gone": 1}
        # And the books balance
        books = await world.running.ledger.books()
        assert books.balanced
        assert books.open == 0


async def test_what_is_wrong_is_refused_and_counted_and_the_next_one_taken(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        now = time.time()
        wrong = (
            world.inbound(mode="plain"),
            world.inbound(keys=CallbackKeys([KEY], "wx0000000000000009")),
            world.inbound(keys=CallbackKeys([KEY[::-1]], APPID)),
        )
        for one in wrong:
            assert not await one.push(OPENID, "unsubscribe", now)
        assert not await world.inbound().push(OPENID, "unsubscribe", now - 400)
        assert world.running.meter.totals.callbacks_refused == {"not-encrypted": 3, "appid": 3, "key": 3, "stale": 3}
        assert await world.swipe() == (0, 1)
        assert await world.inbound().push(OPENID, "SCAN", now)
        world.wechat.wechat.service.heard(OPENID, "follow", now)
        assert await world.swipe() == (1, 1)
