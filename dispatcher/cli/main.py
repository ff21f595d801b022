"""The ``swipebell`` command: the group of all commands, and the way errors end."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from dispatcher import __version__
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
    "run": "dispatcher.cli.run:run",
    "send": "dispatcher.cli.send:send",
}
"""Each command and where it is. All together take half a second to import, so one is imported when it is asked for."""


class Commands(click.Group):
    """The group of `COMMANDS`, each imported when it is used or its help is shown."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, as the help lists them."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, or None."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
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
