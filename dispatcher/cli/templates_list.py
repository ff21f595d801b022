"""``swipebell templates list``: what there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dispatcher.cli.common import json_option, print_json
from dispatcher.cli.rules_check import counted
from dispatcher.cli.templates_common import library_of, path_option
from templates.layouts import SHIPPED
from templates.template import Match, Template

PIPED_WIDTH = 200
"""Columns where no terminal says how many it has: a line a template."""


@click.command("list")
@path_option
@json_option
def list_templates(path: Path | None, as_json: bool) -> None:
    """List the templates: the shipped ones and yours, which win where an id is in both."""
    templates = sorted(library_of(path), key=lambda template: template.id)
    if as_json:
        print_json({"templates": [_as_data(template) for template in templates]})
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("template", "what it is", "category", "told for", "channels", "locales", "owner", "from"):
        table.add_column(column, overflow="fold")
    for template in templates:
        data = _as_data(template)
        table.add_row(
            template.pinned,
            template.title,
            template.category,
            data["told_for"],
            " ".join(data["channels"]),
            " ".join(data["locales"]),
            template.owner or "-",
            data["from"],
            style=None,
        )
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    console.print(table)
    click.echo(counted(len(templates), "template"))


def _as_data(template: Template) -> dict[str, Any]:
    shipped = template.path.is_relative_to(SHIPPED)
    return {
        "id": template.id,
        "version": template.version,
        "title": template.title,
        "category": template.category,
        "told_for": told_for(template),
        "match": {} if template.match is None else _given(template.match),
        "channels": list(template.locales),
        "locales": sorted({locale for locales in template.locales.values() for locale in locales}),
        "owner": template.owner,
        "from": "shipped" if shipped else _near(template.path),
        "file": str(template.path),
    }


def _near(path: Path) -> str:
    """The path as seen from this folder, if it lies below it."""
    absolute = path.absolute()
    return str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else path)


def _given(match: Match) -> dict[str, Any]:
    return {name: value for name in match.__struct_fields__ if (value := getattr(match, name)) is not None}


def told_for(template: Template) -> str:
    """Which events it is for, in words: ``category swipe, type refund, foreign``."""
    if template.match is None:
        return f"category {template.category}"
    words = [] if template.match.category else [f"category {template.category}"]
    for name, value in _given(template.match).items():
        if isinstance(value, bool):
            words.append(name if value else f"not {name}")
        elif isinstance(value, dict):
            amounts = " or ".join(f"{amount:,} {currency}" for currency, amount in value.items())
            words.append(f"from {amounts} (minor units)")
        else:
            words.append(f"{name} {' or '.join(value)}")
    return ", ".join(words)
