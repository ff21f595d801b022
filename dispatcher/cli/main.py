"""The ``swipebell`` command: the group of all commands, and the way errors end."""

from __future__ import annotations

import sys

import click

from dispatcher import __version__
from dispatcher.cli.lazy import LazyGroup
from dispatcher.errors import SwipebellError, known_error
from dispatcher.logs import get_logger

COMMANDS = {
    "demo": "loadtest.demo:demo",
    "explain": "dispatcher.cli.explain:explain",
    "held": "dispatcher.cli.held:held",
    "init": "dispatcher.cli.init:init",
    "loadtest": "loadtest.load.command:loadtest",
    "providers": "loadtest.providers.command:providers_command",
    "recipients": "dispatcher.cli.recipients:recipients",
    "rules": "dispatcher.cli.rules:rules",
    "run": "dispatcher.cli.run:run",
    "send": "dispatcher.cli.send:send",
    "templates": "dispatcher.cli.templates:templates",
}
"""Each command and where it is (see `LazyGroup`)."""


@click.group(
    cls=LazyGroup,
    places=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="swipebell")
def commands() -> None:
    """Swipebell rings a cardholder's phone for every card swipe.

    Start with `swipebell demo`; then `swipebell init DIR` writes a configuration, `swipebell run` is the service.

    Exit status: 0 all well and balanced; 1 it failed; 2 usage or configuration; 3 some input was rejected.
    """


def main() -> None:
    """Entry point: whatever goes wrong in a known way ends in one line on stderr and its exit status."""
    try:
        commands(prog_name="swipebell")
    except (SwipebellError, BaseExceptionGroup) as error:
        known = known_error(error)
        if known is None:
            defect(error)
        else:
            fail(known)
    except Exception as error:  # noqa: BLE001 - the last one there is
        defect(error)


def defect(error: BaseException) -> None:
    """A defect of ours: where it happened goes to the log, masked; a raw traceback could show personal data."""
    get_logger("cli").error("defect", exc_info=error)
    click.echo("swipebell: this is a defect of Swipebell; please report the log line above", err=True)
    sys.exit(1)


def fail(error: SwipebellError) -> None:
    """Say it in one line and end."""
    click.echo(f"swipebell: {error}", err=True)
    sys.exit(error.exit_status)
