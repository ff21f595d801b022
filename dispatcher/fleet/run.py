"""``swipebell run --processes N``: N workers on shared sockets, and one place that answers for all of them."""

from __future__ import annotations

from functools import partial

import trio

from dispatcher.config import Config
from dispatcher.config_load import read_token
from dispatcher.errors import LedgerFailed, LedgerUnavailable
from dispatcher.fleet.process import start_process
from dispatcher.fleet.share import check_processes
from dispatcher.fleet.signals import until_signal
from dispatcher.fleet.sockets import bind_all, close_all, scheme_of, sections_to_listen, url_of
from dispatcher.fleet.supervisor import Fleet
from dispatcher.ledger.worker import ThreadedLedger
from dispatcher.logs import get_logger

STOP_MARGIN_S = 15.0
"""On top of the drain: the servers' last answers take up to 5 seconds, and giving leases back waits for the ledger."""

log = get_logger("run")


async def run_fleet(config: Config, processes: int) -> None:
    """Run the service until SIGTERM or SIGINT. Raises `SwipebellError`: what ended the fleet."""
    check_processes(config, processes)
    # Opened before any worker: what is wrong with the file is said once, and its layout is made once.
    ledger = ThreadedLedger(str(config.ledger.path))
    sockets = bind_all(sections_to_listen(config, intake=True))
    fleet = Fleet(
        lambda index: start_process(config, index, processes, sockets, feeds=False),
        processes,
        fail_fast=False,
        stop_seconds=config.engine.drain_seconds + STOP_MARGIN_S,
    )

    async def work() -> None:
        try:
            async with fleet.running(), trio.open_nursery() as servers:
                await fleet.all_ready()
                urls = {name: url_of(one, scheme_of(config, name)) for name, one in sockets.items()}
                urls["metrics"] = await servers.start(partial(_serve_metrics, config, fleet, ledger))
                log.info(
                    "listening", processes=processes, **{name.replace(".", "_"): url for name, url in urls.items()}
                )
                try:
                    await trio.sleep_forever()
                finally:  # the workers stop accepting next; what would still queue here would never be answered
                    close_all(sockets.values())
        finally:
            close_all(sockets.values())

    try:
        await until_signal(work, fleet.kill)
    finally:
        await ledger.aclose()
    log.info("stopped")


async def _serve_metrics(
    config: Config, fleet: Fleet, ledger: ThreadedLedger, *, task_status: trio.TaskStatus[str]
) -> None:
    # Imported here, because `send` needs none of it.
    from starlette.responses import JSONResponse, Response

    from dispatcher.exposition import registry_of
    from dispatcher.serve import listen, metrics_app

    open_alerts = 0
    shown = fleet.totals()

    async def refresh() -> None:
        nonlocal open_alerts, shown
        await fleet.refresh()
        try:
            open_alerts = await ledger.open_count()
        except (LedgerUnavailable, LedgerFailed) as error:  # the last count stays; the workers meet the same
            log.warning("open_alerts_unknown", error=str(error))
        shown = fleet.totals()
        shown.open_alerts = open_alerts

    def health() -> Response:
        counts = {"wanted": fleet.processes, "ready": fleet.ready}
        if fleet.trouble is not None:
            return JSONResponse({"status": "trouble", "error": fleet.trouble, "processes": counts}, 503)
        return JSONResponse({"status": "ok", "processes": counts})

    token = read_token(config.metrics.token_file, "metrics.token_file")
    registry = registry_of(lambda: shown, processes=lambda: (fleet.ready, fleet.deaths))
    app = metrics_app(registry, token, refresh=refresh, health=health)
    await listen(app, config.metrics, "metrics.listen", trio.sleep_forever, task_status=task_status)
