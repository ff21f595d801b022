"""``swipebell rules``: what a product owner does with send rules. Each command is in a file of its own."""

from __future__ import annotations

import click

from dispatcher.cli.lazy import LazyGroup

COMMANDS = {
    "approve": "dispatcher.cli.rules_approval:approve",
    "history": "dispatcher.cli.rules_approval:history",
    "propose": "dispatcher.cli.rules_approval:propose",
    "reject": "dispatcher.cli.rules_approval:reject",
}
"""Each command and where it is."""


@click.group(cls=LazyGroup, places=COMMANDS)
def rules() -> None:
    """Check, read, try out and predict send rules, and put them in force. Nothing is ever sent by these commands."""
