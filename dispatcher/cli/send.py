"""``swipebell send``: a file or stdin in, delivered, and the books."""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter
from typing import BinaryIO

import click
import msgspec
import trio
from rich.console import Console

from dispatcher.cli.common import config_option, json_option, load, print_json, print_summary, run_trio
from dispatcher.cli.progress import show_progress
from dispatcher.config import Config
from dispatcher.errors import InputError
from dispatcher.events import Rejected
from dispatcher.intake.feed import feed
from dispatcher.intake.ndjson import open_input
from dispatcher.receipts import receipt_desk
from dispatcher.service import service
from dispatcher.summary import Summary, summarize

SHOWN_REJECTIONS = 20
"""Rejected lines named on stderr; --rejected FILE has all of them."""


class _Rejections:
    """Says the first ones, writes all of them where asked, counts the rest."""

    def __init__(self, file: BinaryIO | None) -> None:
        self.count = 0
        self._file = file

    def __call__(self, rejected: Rejected) -> None:
        self.count += 1
        if self._file is not None:
            self._file.write(msgspec.json.encode(rejected) + b"\n")
        if self.count <= SHOWN_REJECTIONS:
            name = f" (id {rejected.id})" if rejected.id else ""
            click.echo(f"line {rejected.line:,}{name}: {rejected.error}", err=True)

    def close(self, hint: str) -> None:
        if self.count > SHOWN_REJECTIONS:
            click.echo(f"… and {self.count - SHOWN_REJECTIONS:,} more rejected lines{hint}", err=True)


@click.command()
@click.argument("file", metavar="FILE|-")
@config_option
@click.option(
    "--restamp",
    is_flag=True,
    help="Give each event the time at which it is read, for recorded data long expired.",
)
@click.option(
    "--rejected",
    "rejected_path",
    type=click.Path(path_type=Path),
    help="Write every rejected line's number, id and reason to this file, as NDJSON.",
)
@json_option
def send(file: str, config_path: Path | None, restamp: bool, rejected_path: Path | None, as_json: bool) -> None:
    """Send the events of FILE (NDJSON, gzip recognised by its content; - is stdin) and wait until none is open.

    Sending the same file again is safe: events that were accepted before are counted as duplicate and not told again.
    After an interruption, the same command goes on where it stopped.
    """
    config = load(config_path)
    stream = open_input(file)
    rejected_file = None
    if rejected_path is not None:
        try:
            rejected_file = rejected_path.open("wb")
        except OSError as error:
            raise InputError(f"--rejected {rejected_path}: cannot be written: {error.strerror}") from None
    rejections = _Rejections(rejected_file)
    try:
        summary: Summary = run_trio(_send, config, stream, restamp, rejections)
    finally:
        rejections.close("" if rejected_path else "; --rejected FILE writes all of them")
        if rejected_file is not None:
            rejected_file.close()
    if as_json:
        print_json(summary)
    else:
        print_summary(summary, Console())
    if not summary.balanced:
        sys.exit(1)
    if summary.events["rejected"]:
        sys.exit(3)


async def _send(config: Config, stream: BinaryIO, restamp: bool, rejections: _Rejections) -> Summary:
    started = perf_counter()
    async with service(config, fail_fast=True) as running:
        async with trio.open_nursery() as nursery:
            if config.receipts is not None:  # without its receipts no alert would ever be delivered
                desk = receipt_desk(running.engine, config.receipts)
                nursery.start_soon(desk.run)
                await nursery.start(desk.serve, None, trio.sleep_forever)
            nursery.start_soon(show_progress, running.engine)
            await feed(running.engine, stream, restamped=restamp, on_rejected=rejections)
            await running.engine.idle()
            seconds = perf_counter() - started
            nursery.cancel_scope.cancel()
        return summarize(running.meter, await running.ledger.books(), seconds)
    raise AssertionError("unreachable")
