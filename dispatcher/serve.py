"""HTTP serving by Hypercorn on trio, and the metrics application."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio import serve
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dispatcher.config import HttpIntakeConfig, MetricsConfig
from dispatcher.config_parts import parse_listen
from dispatcher.intake.http import health_answer
from dispatcher.listening import cannot_listen
from dispatcher.metrics import lane_lengths
from dispatcher.model.private import Secret
from dispatcher.service import Service

Section = HttpIntakeConfig | MetricsConfig

GRACEFUL_S = 5.0
"""How long requests that are being answered may still take when the process is told to stop."""


async def listen(
    app: Starlette,
    section: Section,
    key: str,
    stop: Callable[[], Awaitable[None]],
    *,
    descriptor: int | None = None,
    task_status: trio.TaskStatus[str],
) -> None:
    """Serve ``app`` where ``section`` says until ``stop`` returns; ``key`` is the configuration key for the error.

    ``descriptor`` is a bound socket to take over instead, which a whole fleet may share. Reports the URL it listens
    on. Raises `PortInUse`.
    """
    config = HypercornConfig()
    where = parse_listen(section.listen)
    config.bind = [str(where) if descriptor is None else f"fd://{descriptor}"]
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.graceful_timeout = GRACEFUL_S
    config.include_server_header = False
    if isinstance(section, HttpIntakeConfig) and section.tls_cert_file is not None:
        config.certfile, config.keyfile = str(section.tls_cert_file), str(section.tls_key_file)
    started = False
    try:
        async with trio.open_nursery() as nursery:
            bound: list[str] = await nursery.start(_serve, app, config, stop)
            started = True
            task_status.started(bound[0])
    except* OSError as group:
        if started:  # not about listening: a defect, to be seen as one
            raise
        error = next(one for one in _leaves(group) if isinstance(one, OSError))
        raise cannot_listen(error, key, where) from None


async def _serve(
    app: Starlette,
    config: HypercornConfig,
    stop: Callable[[], Awaitable[None]],
    *,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    await serve(app, config, shutdown_trigger=stop, task_status=task_status)  # type: ignore[arg-type]


def _leaves(group: BaseException) -> list[BaseException]:
    if isinstance(group, BaseExceptionGroup):
        return [leaf for one in group.exceptions for leaf in _leaves(one)]
    return [group]


def metrics_app(
    registry: CollectorRegistry,
    token: Secret | None,
    *,
    refresh: Callable[[], Awaitable[None]],
    health: Callable[[], Response],
) -> Starlette:
    """``/metrics`` for Prometheus and ``/healthz``. ``token``: the bearer token that is wanted, if any.

    ``refresh`` is awaited before each scrape; ``health`` answers for the process or the fleet.
    """

    async def metrics(request: Request) -> Response:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token is not None and not hmac.compare_digest(given.encode(), token.reveal().encode()):
            return Response(status_code=401, headers={"WWW-Authenticate": "Bearer"})
        await refresh()
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def healthz(_request: Request) -> Response:
        return health()

    return Starlette(routes=[Route("/metrics", metrics), Route("/healthz", healthz)])


def metrics_of_one(service: Service, token: Secret | None) -> Starlette:
    """The metrics application of a process that works alone."""
    engine = service.engine

    async def refresh() -> None:
        service.meter.lanes(lane_lengths(engine.lanes), await service.ledger.open_count())

    return metrics_app(service.meter.registry, token, refresh=refresh, health=lambda: health_answer(engine))
