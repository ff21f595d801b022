"""What the commands of ``swipebell templates`` share: which folder is meant, its library, and events from files."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from dispatcher.cli.rules_check import config_or_none
from dispatcher.errors import ConfigurationError, InputError
from dispatcher.events import Rejected, decode_event
from dispatcher.model.event import Event
from templates.errors import TemplateError, UnknownTemplate
from templates.library import Library, Template
from templates.reading import MAX_FILE_BYTES

MAX_EVENT_BYTES = MAX_FILE_BYTES
"""Of a file with one event: as much as intake takes of a line, about."""

is_word = re.compile(r"[a-z][a-z0-9-]{0,63}").fullmatch
"""Whether a text can be the id of a template, or a category."""

path_option = click.option(
    "--path",
    "-p",
    "path",
    type=click.Path(path_type=Path),
    help="A folder of templates besides the shipped ones. Default: [templates] path of swipebell.toml in this folder.",
)


def extra_folder(path: Path | None) -> Path | None:
    """``path``, or the folder that the configuration of this folder names, or None. Raises `ConfigurationError`."""
    if path is not None:
        return path
    config = config_or_none(None)
    return None if config is None else config.templates.path


def library_of(path: Path | None) -> Library:
    """The shipped templates and those of the extra folder. Raises `ConfigurationError`."""
    try:
        return Library.load(extra_folder(path))
    except TemplateError as error:
        raise ConfigurationError(f"{error} (swipebell templates lint names all mistakes)") from None


def template_named(library: Library, name: str) -> Template:
    """A template by id or ``id@version``. Raises `ConfigurationError`."""
    try:
        return library.template(name)
    except UnknownTemplate as error:
        raise ConfigurationError(str(error)) from None


def read_event(file: str) -> Event:
    """The one event of a file, or of stdin for ``-``, its card number masked.

    Raises `ConfigurationError` when the file cannot be read, and `InputError` when it holds no event.
    """
    try:
        if file == "-":
            return event_of(sys.stdin.buffer.read(MAX_EVENT_BYTES + 1), "stdin")
        with Path(file).open("rb") as opened:  # a pipe is fine, as of `<(…)`
            return event_of(opened.read(MAX_EVENT_BYTES + 1), file)
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from None


def event_of(raw: bytes, name: str) -> Event:
    """The one event of what was read from ``name``, as far as `MAX_EVENT_BYTES` + 1 bytes. Raises `InputError`."""
    if len(raw) > MAX_EVENT_BYTES:
        raise InputError(f"{name}: is over {MAX_EVENT_BYTES} bytes; give one event, a JSON object")
    decoded = decode_event(raw.strip(), 1)
    if isinstance(decoded, Rejected):
        raise InputError(f"{name}: {decoded.error}; give one event, a JSON object")
    return decoded.event
