"""``swipebell run``: the service."""

from __future__ import annotations

import signal
from pathlib import Path

import click
import trio

from dispatcher.cli.common import config_option, load, processes_option, warn_of_processes
from dispatcher.config import Config
from dispatcher.doors import open_doors
from dispatcher.fleet.run import run_fleet
from dispatcher.logs import get_logger
from dispatcher.service import service

DOORS = ("metrics", "receipts", "intake.http", "intake.stream")

log = get_logger("run")


@click.command()
@config_option
@processes_option
def run(config_path: Path | None, processes: int) -> None:
    """Run the service: HTTP and stream intake, receipts, /metrics and /healthz, until SIGTERM or Ctrl-C.

    On SIGTERM it stops accepting, waits for the answers to what is in flight, and gives everything else back to the
    ledger; nothing is lost and the next start goes on from there.

    With --processes N that many equal processes share the ledger and the listening sockets under a supervisor, which
    restarts one that dies and answers /metrics for all of them together.

    Changed rules and templates take effect without a restart, within seconds, or at once on SIGHUP (one process).
    """
    config = load(config_path)
    if processes > 1:
        # Its meaning is "look at the rules now", which workers do every second; it must not end them.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if processes == 1:
        trio.run(_run, config)
    else:
        warn_of_processes(processes)
        trio.run(run_fleet, config, processes)


async def _run(config: Config) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with service(config, fail_fast=False) as running, trio.open_nursery() as background:
            stop = trio.Event()
            async with trio.open_nursery() as servers:
                urls = await open_doors(running, DOORS, servers=servers, background=background, stop=stop)
                log.info("listening", **{name.replace(".", "_"): url for name, url in urls.items()})
                async for number in signals:
                    if number == signal.SIGHUP:
                        running.look_now()
                        continue
                    log.info("stopping", signal=signal.Signals(number).name)
                    break
                stop.set()  # the servers end by themselves, after their last answers
            background.cancel_scope.cancel()
    log.info("stopped")
