"""``swipebell run``: the service."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path

import click
import trio
from starlette.applications import Starlette

from dispatcher.cli.common import config_option, load
from dispatcher.config import Config, HttpIntakeConfig, MetricsConfig, ReceiptsConfig
from dispatcher.config_load import read_token
from dispatcher.intake.http import HttpIntake
from dispatcher.intake.stream_listener import StreamIntake
from dispatcher.logs import get_logger
from dispatcher.receipts import receipt_desk
from dispatcher.serve import listen, metrics_app
from dispatcher.service import Service, service

log = get_logger("run")


@click.command()
@config_option
def run(config_path: Path | None) -> None:
    """Run the service: HTTP and stream intake, receipts, /metrics and /healthz, until SIGTERM or Ctrl-C.

    On SIGTERM it stops accepting, waits for the answers to what is in flight, and gives everything else back to the
    ledger; nothing is lost and the next start goes on from there.
    """
    trio.run(_run, load(config_path))


async def _run(config: Config) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with service(config, fail_fast=False) as running, trio.open_nursery() as background:
            stop = trio.Event()
            async with trio.open_nursery() as servers:
                urls = {}
                for name, app, section in _applications(running, background):
                    serve = partial(listen, app, section, f"{name}.listen", stop.wait)
                    urls[name] = await servers.start(serve)
                if config.intake.stream is not None:
                    stream = StreamIntake(running.engine, config.intake.stream)
                    urls["intake.stream"] = await servers.start(partial(stream.serve, None, stop.wait))
                log.info("listening", **{name.replace(".", "_"): url for name, url in urls.items()})
                async for number in signals:
                    log.info("stopping", signal=signal.Signals(number).name)
                    break
                stop.set()  # the servers end by themselves, after their last answers
            background.cancel_scope.cancel()
    log.info("stopped")


Section = HttpIntakeConfig | ReceiptsConfig | MetricsConfig


def _applications(running: Service, background: trio.Nursery) -> list[tuple[str, Starlette, Section]]:
    """What is served, by its section: (name, application, section)."""
    config = running.config
    http = config.intake.http
    token = read_token(http.token_file, "intake.http.token_file")
    intake = HttpIntake(running.engine, token=token, max_body_bytes=http.max_body_bytes)
    metrics = metrics_app(running, read_token(config.metrics.token_file, "metrics.token_file"))
    served: list[tuple[str, Starlette, Section]] = [("metrics", metrics, config.metrics)]
    if config.receipts is not None:
        desk = receipt_desk(running.engine, config.receipts)
        background.start_soon(desk.run)
        served.append(("receipts", desk.app, config.receipts))
    served.append(("intake.http", intake.app, http))
    return served
