"""Several networks as one: a request goes to the network that its pool belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import trio

from dispatcher.network.api import Deliver, Network, Request


class RoutedNetwork(Network):
    """`Network` for channels that do not all speak the same protocol; ``by_pool`` names the exceptions.

    It owns them all: `aclose` closes each.
    """

    def __init__(self, network: Network, by_pool: Mapping[str, Network]) -> None:
        self._network = network
        self._by_pool = dict(by_pool)

    def submit(self, requests: Sequence[Request], deliver: Deliver) -> None:
        """See `Network.submit`."""
        pools = {request.pool for request in requests}
        if len(pools) == 1:  # always so from a lane: a batch is one channel's
            self._by_pool.get(pools.pop(), self._network).submit(requests, deliver)
            return
        for pool in pools:
            part = [request for request in requests if request.pool == pool]
            self._by_pool.get(pool, self._network).submit(part, deliver)

    async def aclose(self) -> None:
        """See `Network.aclose`. All are closed, also when one raises or the caller was cancelled."""
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                for network in (self._network, *self._by_pool.values()):
                    nursery.start_soon(network.aclose)
