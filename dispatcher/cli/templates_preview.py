"""``swipebell templates preview``: a page, or a folder of pages, that shows alerts as cardholders will see them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from dispatcher.channels.sms.segments import with_sign
from dispatcher.cli.common import config_option, json_option, print_json
from dispatcher.cli.rules_check import config_or_none, counted
from dispatcher.config import Config
from dispatcher.errors import ConfigurationError
from dispatcher.events import Rejected, decode_event
from dispatcher.model.event import Event
from dispatcher.service import read_templates
from templates.errors import UnknownTemplate
from templates.facts import SwipeFacts
from templates.findings import Finding
from templates.library import Library
from templates.lint import lint_file
from templates.preview import BOTH_LOCALES, MAX_LOCALES, Look, Preview, preview_of, render_index, render_preview
from templates.template import Template

INDEX = "index.html"

MAX_EVENT_FILE_BYTES = 1_048_576
"""Of the file with the event to show: an event is below 1 kB, and a day of them is not meant."""


@click.command()
@click.argument("template", metavar="[ID]", required=False)
@click.option("--all", "whole", is_flag=True, help="The whole library: a page for each template, and one of them all.")
@click.option("--event", "event_file", type=click.Path(path_type=Path), help="Also show this event (JSON).")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Where to write. Default: preview-ID.html; with --all: previews/."
)
@click.option(
    "--locale",
    "locales",
    multiple=True,
    metavar="LOCALE",
    help=f"Show this locale only; up to {MAX_LOCALES} may be given. Default: {', '.join(BOTH_LOCALES)}.",
)
@click.option("--open", "open_it", is_flag=True, help="Open the page in the browser.")
@config_option
@json_option
def preview(
    template: str | None,
    whole: bool,
    event_file: Path | None,
    out: Path | None,
    locales: tuple[str, ...],
    open_it: bool,
    config_path: Path | None,
    as_json: bool,
) -> None:
    """Write an HTML page that shows the template ID (`swipe`, `swipe@1`) as a WeChat message, an SMS and an e-mail.

    Light and dark, in both languages, with the template's examples, the longest values and, with --event, an event.
    What lint finds stands at the top. The page needs nothing else and asks the network for nothing.

    Exit status: 0 the page is written, whatever lint found; 2 it cannot be, or the template, the event or the
    configuration is not understood.
    """
    if whole == (template is not None):
        raise click.UsageError("name one template, or all of them with --all")
    if whole and event_file is not None:
        raise click.UsageError("--event is shown by one template: name it instead of --all")
    shown = tuple(dict.fromkeys(locales)) or BOTH_LOCALES
    if len(shown) > MAX_LOCALES:
        raise click.UsageError(f"--locale is given {len(shown)} times; a page has room for {MAX_LOCALES}")
    config = config_or_none(config_path)
    library = Library.load() if config is None else read_templates(config)
    look = _look(config)
    if template is None:
        folder = out or Path("previews")
        previews = [
            preview_of(one, locales=shown, look=look, findings=_lint(one), index=INDEX)
            for one in sorted(library, key=lambda one: one.id)
        ]
        main = folder / INDEX
        _write_all(previews, folder)
    else:
        facts = None if event_file is None else SwipeFacts(_read_event(event_file))
        found = _named(library, template)
        previews = [preview_of(found, locales=shown, look=look, findings=_lint(found), facts=facts)]
        main = out or Path(_page(found))
        _write(main, render_preview(previews[0]))
    _tell(main, previews, as_json)
    if open_it:
        click.launch(main.absolute().as_uri())


def _page(template: Template) -> str:
    return f"preview-{template.id}.html"


def _named(library: Library, name: str) -> Template:
    try:
        return library.template(name)
    except UnknownTemplate as error:
        raise ConfigurationError(str(error)) from None


def _look(config: Config | None) -> Look:
    sms = None if config is None else config.channels.sms
    if sms is None or not sms.sign:
        return Look()
    return Look(sign=with_sign("", sms.sign))


def _lint(template: Template) -> list[Finding]:
    return [finding for linted in lint_file(template.path) for finding in linted.findings]


def _read_event(path: Path) -> Event:
    """The event of a file: a JSON object, or the first line of NDJSON. Raises `ConfigurationError`, without a value."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_EVENT_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_EVENT_FILE_BYTES:
        raise ConfigurationError(
            f"{path}: is over {MAX_EVENT_FILE_BYTES:,} bytes; keep the one event that is to be shown"
        )
    found = decode_event(data.strip(), 1)
    if isinstance(found, Rejected):
        # Not one object: then each line is to be one, and the first is shown.
        first = decode_event(data.strip().partition(b"\n")[0].strip(), 1)
        found = found if isinstance(first, Rejected) else first
    if isinstance(found, Rejected):
        raise ConfigurationError(f"{path}: is not an event: {found.error}")
    return found.event


def _write_all(previews: Sequence[Preview], folder: Path) -> None:
    names = [_page(one.template) for one in previews]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--out {folder}: cannot be made: {error.strerror}") from None
    for one, name in zip(previews, names, strict=True):
        _write(folder / name, render_preview(one))
    _write(folder / INDEX, render_index(previews, names))


def _write(path: Path, page: str) -> None:
    """In one step, so that a browser never finds half a page."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(page, encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ConfigurationError(f"--out {path}: cannot be written: {error.strerror}") from None


def _tell(main: Path, previews: Sequence[Preview], as_json: bool) -> None:
    findings = [finding for one in previews for finding in one.findings]
    if as_json:
        templates = [one.template.pinned for one in previews]
        print_json({"file": str(main), "templates": templates, "findings": findings})
        return
    for finding in findings:
        click.echo(str(finding), err=True)
    click.echo(f"{main}: {counted(len(previews), 'template')}, {counted(len(findings), 'lint finding')}")
