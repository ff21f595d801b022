"""``swipebell explain``: everything that happened to one event."""

from __future__ import annotations

from pathlib import Path

import click

from dispatcher.cli.common import config_option, json_option, load, print_json, run_trio
from dispatcher.config import Config
from dispatcher.errors import InputError
from dispatcher.ledger.stories import EventStory
from dispatcher.ledger.worker import ThreadedLedger
from replay.explain import as_data, tell


@click.command()
@click.argument("event_id", metavar="EVENT_ID")
@config_option
@json_option
def explain(event_id: str, config_path: Path | None, as_json: bool) -> None:
    """Tell everything that happened to EVENT_ID: its alerts, the rule and template versions, every attempt."""
    config = load(config_path, secrets=False)
    if not config.ledger.path.exists():
        raise InputError(f"there is no ledger at {config.ledger.path} yet; nothing was ever accepted there")
    story: EventStory | None = run_trio(_explain, config, event_id)
    if story is None:
        raise InputError("this id was never accepted into this ledger; check it, and which ledger --config names")
    if as_json:
        print_json(as_data(story))
        return
    for line in tell(story):
        click.echo(line)


async def _explain(config: Config, event_id: str) -> EventStory | None:
    ledger = ThreadedLedger(str(config.ledger.path))
    try:
        return await ledger.explain(event_id)
    finally:
        await ledger.aclose()
