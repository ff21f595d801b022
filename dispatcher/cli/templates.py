"""``swipebell templates``: what a template's author does. Each command is in a file of its own."""

from __future__ import annotations

import click

from dispatcher.cli.lazy import LazyGroup

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


@click.group(cls=LazyGroup, places=COMMANDS)
def templates() -> None:
    """Write, check, look at and try out templates, and put them in force. Nothing is ever sent by these commands."""
