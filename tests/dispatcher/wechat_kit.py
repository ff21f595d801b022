"""A simulated WeChat in virtual time: the platform as a function, a network in the same task, and stewards or whole
engines that share one ledger file."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import httpx
import trio

from dispatcher.admission import Admitter
from dispatcher.channels.base import Fleet
from dispatcher.channels.sms.generic import GenericSmsChannel
from dispatcher.channels.wechat.channel import WechatChannel
from dispatcher.channels.wechat.token import TokenSteward
from dispatcher.config import EngineConfig
from dispatcher.config_channels import SmsConfig, WechatConfig
from dispatcher.engine import Engine
from dispatcher.httpd import Request as HttpRequest
from dispatcher.ledger.worker import InlineLedger
from dispatcher.metrics import Meter
from dispatcher.network.api import Request, Response
from dispatcher.network.fake import FakeNetwork
from dispatcher.network.transport import NetworkTransport
from dispatcher.template_versions import VersionedLibrary
from loadtest.providers.server import Providers
from loadtest.providers.settings import DEFAULT_APPID, DEFAULT_SECRET, ProviderSettings
from ratelimit.pacing import Pacer
from ratelimit.retry import RetryPolicy
from ratelimit.rules import load_rules
from templates.library import Library

EVENING_MS = 1_795_356_000_000
"""2026-11-22T22:00:00 in China."""

LIBRARY = Library.load()

EVERY_AMOUNT = "version = 1\n"
"""Rules that keep nothing back."""


class World:
    """The platform, and what the fleet has in common. ``now_ms`` is EVENING_MS and the virtual time that has passed.

    ``instead`` answers a path in the platform's place, when a test sets it. ``sent`` holds (path, body) of what was
    sent.
    """

    def __init__(self, folder: Path, *, start_ms: int = EVENING_MS, **settings: Any) -> None:
        self.path = str(folder / "ledger.db")
        self.start_ms = start_ms
        self.began_s: float | None = None
        self.providers = Providers(ProviderSettings(**settings), clock=lambda: self.now_ms() / 1000)
        self.seconds = 0.1
        self.instead: dict[str, Callable[[], tuple[int, bytes]]] = {}
        self.calls: list[str] = []
        self.sent: list[tuple[str, str]] = []

    @property
    def book(self) -> Any:
        return self.providers.book.wechat

    def now_ms(self) -> int:
        if self.began_s is None:
            self.began_s = trio.current_time()
        return self.start_ms + round((trio.current_time() - self.began_s) * 1000)

    def network(self, nursery: trio.Nursery) -> FakeNetwork:
        return FakeNetwork(nursery, self._answer)

    def _answer(self, request: Request) -> tuple[Response, float]:
        parts = urlsplit(request.url)
        self.calls.append(parts.path)
        self.sent.append((parts.path, (request.body or b"").decode()))
        if parts.path in self.instead:
            status, body = self.instead[parts.path]()
            return Response(request, status, body), self.seconds
        bearer = next((one.partition(": ")[2] for one in request.headers if one.startswith("Authorization:")), "")
        asked = HttpRequest(request.method, parts.path, parts.query, request.body or b"", bearer)
        answer = self.providers.answer(asked)
        return Response(request, answer.status, bytes(answer.body)), self.seconds

    def steward(self, nursery: trio.Nursery, ledger: InlineLedger, meter: Meter | None = None) -> TokenSteward:
        transport = NetworkTransport(self.network(nursery), "wechat")
        client = httpx.AsyncClient(transport=transport, base_url="https://wechat.example")
        return TokenSteward(client, DEFAULT_APPID, DEFAULT_SECRET, store=ledger, now_ms=self.now_ms, watch=meter)

    @asynccontextmanager
    async def engine(
        self,
        *,
        sms: bool = False,
        rate: float = 1e5,
        seed: int = 1,
        rules: str = EVERY_AMOUNT,
        templates: VersionedLibrary | None = None,
        **wechat: Any,
    ) -> AsyncIterator[tuple[Engine, WechatChannel, Meter]]:
        """An engine with a WeChat channel (and the SMS gateway); one process of the fleet."""
        ledger, meter = InlineLedger(self.path), Meter()
        library = templates or LIBRARY
        rules = load_rules(rules, "test")
        retry = RetryPolicy()
        async with trio.open_nursery() as nursery:
            network = self.network(nursery)
            config = WechatConfig(appid=DEFAULT_APPID, secret_env="SECRET", base_url="https://wechat.example", **wechat)
            fleet = Fleet(ledger, self.now_ms, meter)
            channel = WechatChannel(config, DEFAULT_SECRET, library, network, retry, None, fleet)
            channels: dict[str, Any] = {"wechat": channel}
            if sms:
                gateway = SmsConfig(base_url="https://wechat.example/sms", secret_env="SECRET")
                channels["sms"] = GenericSmsChannel(gateway, DEFAULT_SECRET, library, retry, None)
            assert channel.budget is not None
            admitter = Admitter(
                rules,
                library,
                {name: one.fenced for name, one in channels.items()},
                brownouts={"wechat": channel.budget},
            )
            if templates is not None:
                admitter.tell_by(templates.chooser)
            self.admitter = admitter
            engine = Engine(
                config=EngineConfig(),
                ledger=ledger,
                network=network,
                channels={name: (one, Pacer(rate)) for name, one in channels.items()},
                decide=admitter,
                rules=admitter.in_force,
                ruleset=(rules.version_id, rules.content),
                meter=meter,
                templates=templates,
                now_ms=self.now_ms,
                random=Random(seed),
            )
            async with engine.running():
                yield engine, channel, meter
            nursery.cancel_scope.cancel()
        await ledger.aclose()
