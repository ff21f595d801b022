"""A network inside one task, for tests under MockClock: a function answers, after as much virtual time as it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from dispatcher.network.api import Deliver, Network, Request, Response

Answerer = Callable[[Request], tuple[Response, float]]
"""request -> (response, virtual seconds until it comes)."""


class FakeNetwork(Network):
    """`Network` whose provider is a function; ``sent`` keeps every request in order."""

    def __init__(self, nursery: trio.Nursery, answer: Answerer) -> None:
        self._nursery = nursery
        self._answer = answer
        self.sent: list[Request] = []

    def submit(self, requests: Sequence[Request], deliver: Deliver) -> None:
        """See `Network.submit`."""
        for request in requests:
            self.sent.append(request)
            response, seconds = self._answer(request)
            self._nursery.start_soon(self._later, seconds, deliver, response)

    async def _later(self, seconds: float, deliver: Deliver, response: Response) -> None:
        with trio.CancelScope(shield=True):  # an answer comes, cancelled or not, as from a real one
            await trio.sleep(seconds)
        deliver([response])

    async def aclose(self) -> None:
        """Nothing to let go of."""
        await trio.lowlevel.checkpoint()
