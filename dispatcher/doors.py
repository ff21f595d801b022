"""Everything that a process serves over the network, opened by the name of its configuration section.

A process that works alone opens its own sockets; a worker of a fleet is given the descriptors of sockets that all of
them share. A further listener gets its place here, and in `dispatcher.fleet.sockets.sections_to_listen`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import cast

import trio
from starlette.applications import Starlette

from dispatcher.config_load import read_token
from dispatcher.fleet.fair import FairListener
from dispatcher.intake.http import HttpIntake
from dispatcher.intake.stream_listener import StreamIntake
from dispatcher.listening import inherited_listeners
from dispatcher.receipts import receipt_desk
from dispatcher.serve import Section, listen, metrics_of_one
from dispatcher.service import Service

NONE: Mapping[str, int] = {}


async def open_doors(
    running: Service,
    names: Collection[str],
    *,
    servers: trio.Nursery,
    background: trio.Nursery,
    stop: trio.Event,
    descriptors: Mapping[str, int] = NONE,
) -> dict[str, str]:
    """Serve the sections of ``names`` that are configured until ``stop``; returns their URLs by section.

    The servers run in ``servers``, which ends with their last answers; what they lean on runs in ``background``, to be
    cancelled after them. Raises `PortInUse` or `ConfigurationError`.
    """
    urls = {}
    for name in names:
        serve = _server(running, name, background, stop, descriptors.get(name))
        if serve is not None:
            urls[name] = await servers.start(serve)
    return urls


def _server(
    running: Service, name: str, background: trio.Nursery, stop: trio.Event, descriptor: int | None
) -> Callable[..., Awaitable[None]] | None:
    """What serves a section until ``stop``, to be started; None when it is not configured."""
    config = running.config

    def serve(app: Starlette, section: Section) -> Callable[..., Awaitable[None]]:
        return partial(listen, app, section, f"{name}.listen", stop.wait, descriptor=descriptor)

    match name:
        case "metrics":
            token = read_token(config.metrics.token_file, "metrics.token_file")
            return serve(metrics_of_one(running, token), config.metrics)
        case "receipts":
            if config.receipts is None:
                return None
            desk = receipt_desk(running.engine, config)
            background.start_soon(desk.run)
            return partial(desk.serve, None if descriptor is None else inherited_listeners([descriptor]), stop.wait)
        case "intake.http":
            http = config.intake.http
            token = read_token(http.token_file, "intake.http.token_file")
            intake = HttpIntake(running.engine, token=token, max_body_bytes=http.max_body_bytes)
            return serve(intake.app, http)
        case "intake.stream":
            if config.intake.stream is None:
                return None
            stream = StreamIntake(running.engine, config.intake.stream)
            if descriptor is None:
                return partial(stream.serve, None, stop.wait)
            fair = cast(trio.SocketListener, FairListener(descriptor, lambda: stream.connections))
            return partial(stream.serve, [fair], stop.wait)
    raise ValueError(name)
