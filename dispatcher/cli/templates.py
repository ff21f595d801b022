"""``swipebell templates``: what a template's author does. Each command is in a file of its own."""

from __future__ import annotations

import errno
from typing import Any

import click

from dispatcher.cli.lazy import LazyGroup
from dispatcher.errors import ConfigurationError

COMMANDS = {
    "lint": "dispatcher.cli.templates_lint:lint",
    "list": "dispatcher.cli.templates_list:list_templates",
    "new": "dispatcher.cli.templates_new:new",
    "render": "dispatcher.cli.templates_render:render",
    "test": "dispatcher.cli.templates_test:test",
    "preview": "dispatcher.cli.templates_preview:preview",
    "approve": "dispatcher.cli.templates_approval:approve",
    "history": "dispatcher.cli.templates_approval:history",
    "reject": "dispatcher.cli.templates_approval:reject",
    "rollback": "dispatcher.cli.templates_approval:rollback",
    "rollout": "dispatcher.cli.templates_approval:rollout",
}
"""Each command and where it is."""


SHOWN_CHARS = 80
"""Of a name that the operating system refuses, perhaps because it is thousands long."""


class TemplatesGroup(LazyGroup):
    """Commands that are about files whose names people give: what the operating system says about one ends them in a
    line, and is no defect of ours."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Also refuses what is no text: it could be neither shown nor found again."""
        try:
            "".join(args).encode()
        except UnicodeEncodeError:
            raise ConfigurationError("an argument is not UTF-8; write it, or rename the file, in UTF-8") from None
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Raises `ConfigurationError` for what would be an ``OSError``."""
        try:
            return super().invoke(ctx)
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of our output has gone, which click knows
                raise
            name = "" if error.filename is None else f"{str(error.filename)[:SHOWN_CHARS]}: "
            raise ConfigurationError(f"{name}{error.strerror or error}") from error
        except UnicodeEncodeError as error:
            raise ConfigurationError("the name of a file is not UTF-8; rename it") from error


@click.group(cls=TemplatesGroup, places=COMMANDS)
def templates() -> None:
    """Write, check, look at and try out templates, and put them in force. Nothing is ever sent by these commands."""
