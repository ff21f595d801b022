"""The channel to which alerts go on when the one under test has refused them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from dispatcher.delivery import Answer as Classified
from dispatcher.delivery import AnswerClass as A
from dispatcher.delivery import ChannelPolicy
from dispatcher.httpd import Answer, Limits, serve_http
from dispatcher.model.alert import Alert
from dispatcher.network.api import Request as Sent
from dispatcher.network.api import Response
from ratelimit.retry import RetryPolicy

NEXT = "webhook"


class NextChannel:
    """The channel after the one under test: it takes everything, over the same network."""

    name = NEXT
    connections = 8
    fenced = False

    def __init__(self, url: str) -> None:
        self._url = url

    def policy(self, alert: Alert) -> ChannelPolicy:
        return ChannelPolicy(RetryPolicy(), True, None)

    async def ready(self) -> None: ...

    def prepare(self, alert: Alert) -> Sent:
        return Sent(pool=NEXT, url=self._url, headers=(), body=b"", tag=alert)

    def classify(self, alert: Alert, response: Response) -> Classified:
        return Classified(A.ACCEPTED if response.status == 200 else A.PERMANENT, "next")

    def knows(self, code: str) -> bool:
        return True


PATIENT = Limits(request_seconds=1e6, idle_seconds=1e6, send_seconds=1e6)
"""For servers beside a clock that jumps by half a minute where nothing happens: no connection is closed for that, or a
request that goes out on it just then is made twice."""


@asynccontextmanager
async def taking_everything() -> AsyncIterator[str]:
    """The provider of the next channel."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_http, lambda _: Answer(b"{}"), listeners, limits=PATIENT))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()
