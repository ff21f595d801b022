"""``swipebell templates new``: a folder to start from."""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path

import click

from dispatcher.cli.templates_common import extra_folder, is_word, library_of, path_option, template_named
from dispatcher.cli.templates_list import told_for
from dispatcher.errors import ConfigurationError
from templates.loader import FILE_NAME, load_template

DEFAULT_FOLDER = Path("templates")

_in_text = {name: re.compile(rf"^{name} *=.*$", re.MULTILINE) for name in ("id", "version", "category", "title")}


@click.command()
@click.argument("name", metavar="ID")
@click.option("--category", help="Of the events that it is for. Default: the ID.")
@click.option("--from", "source", metavar="ID", help="Start from this template. Default: an annotated one.")
@path_option
def new(name: str, category: str | None, source: str | None, path: Path | None) -> None:
    """Write a template ID to start from into its own folder, and say what comes next.

    Nothing is overwritten. Exit status: 0 written; 2 it is there already, or cannot be written.
    """
    for word, value in (("the id", name), ("--category", category)):
        if value is not None and not is_word(value):
            raise ConfigurationError(f"{word} {value[:80]!r} must be a word of a-z, 0-9 and -, beginning with a letter")
    folder = (extra_folder(path) or DEFAULT_FOLDER) / name
    if os.path.lexists(folder):
        raise ConfigurationError(
            f"{folder} exists already, and nothing is overwritten; choose another ID, or remove it"
        )
    text = _starter(name, category or name) if source is None else _copy(source, name, category or name, path)
    try:
        folder.mkdir(parents=True)
        (folder / FILE_NAME).write_text(text, "utf-8")
    except OSError as error:
        raise ConfigurationError(f"{error.filename or folder}: cannot be written: {error.strerror}") from None
    template = load_template((folder / FILE_NAME).absolute())
    click.echo(f"wrote {folder / FILE_NAME}; it is told for: {told_for(template)}")
    click.echo(f"next: edit it, then  swipebell templates lint {folder}")
    click.echo(f"      and look at it: swipebell templates preview {name} --path {folder.parent}")


def _starter(name: str, category: str) -> str:
    text = resources.files("templates").joinpath("starter.toml").read_text("utf-8")
    values = {'"ID"': f'"{name}"', '"CATEGORY"': f'"{category}"', '"TITLE"': f'"{_titled(name)}"'}
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text.replace("lint ID", f"lint {name}").replace("preview ID", f"preview {name}")


def _copy(source: str, name: str, category: str, path: Path | None) -> str:
    template = template_named(library_of(path), source)
    text = template.path.read_text("utf-8")
    changed = {"id": f'"{name}"', "version": "1", "category": f'"{category}"', "title": f'"{_titled(name)}"'}
    for key, value in changed.items():
        text = _in_text[key].sub(f"{key} = {value}", text, count=1)
    return text


def _titled(name: str) -> str:
    return name.replace("-", " ").capitalize()
