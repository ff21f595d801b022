"""``swipebell templates preview``: a page, or a folder of pages, that shows alerts as cardholders will see them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import click

from dispatcher.channels.sms.segments import with_sign
from dispatcher.cli.common import json_option, print_json
from dispatcher.cli.rules_check import config_or_none, counted
from dispatcher.cli.templates_common import extra_folder, library_of, path_option, read_event, template_named
from dispatcher.errors import ConfigurationError
from templates.facts import DEFAULT_TIMEZONE, SwipeFacts
from templates.findings import Finding
from templates.lint import lint_file
from templates.preview import BOTH_LOCALES, MAX_LOCALES, Look, Preview, preview_of, render_index, render_preview
from templates.template import LOCALE_PATTERN, Template

INDEX = "index.html"


@click.command()
@click.argument("template", metavar="[ID]", required=False)
@click.option("--all", "whole", is_flag=True, help="The whole library: a page for each template, and one of them all.")
@click.option("--event", "file", metavar="FILE|-", help="Also show this event, one as JSON; - reads stdin.")
@click.option("--timezone", default=DEFAULT_TIMEZONE, show_default=True, help="The event's recipient's.")
@click.option("--day-total", type=int, help="The account's total of the day in minor units. Default: not known.")
@click.option("--sign", help="The SMS signature. Default: that of swipebell.toml in this folder, or an invented one.")
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
@path_option
@json_option
def preview(
    template: str | None,
    whole: bool,
    file: str | None,
    timezone: str,
    day_total: int | None,
    sign: str | None,
    out: Path | None,
    locales: tuple[str, ...],
    open_it: bool,
    path: Path | None,
    as_json: bool,
) -> None:
    """Write an HTML page that shows the template ID (`swipe`, `swipe@1`) as a WeChat message, an SMS and an e-mail.

    Light and dark, in both languages, with the template's examples, the longest values and, with --event, an event.
    What lint finds stands at the top. The page needs nothing else and asks the network for nothing.

    Exit status: 0 the page is written, whatever lint found; 2 it cannot be written, or there is no such template;
    1 FILE holds no event.
    """
    if whole == (template is not None):
        raise click.UsageError("name one template, or all of them with --all")
    if whole and file is not None:
        raise click.UsageError("--event is shown by one template: name it instead of --all")
    shown = _locales(locales)
    facts = None if file is None else SwipeFacts(read_event(file), timezone, day_total)
    library, look, extra = library_of(path), _look(sign), extra_folder(path)
    if template is None:
        folder = _made(out or Path("previews"))
        previews = [
            preview_of(one, locales=shown, look=look, findings=_lint(one, extra), index=INDEX)
            for one in sorted(library, key=lambda one: one.id)
        ]
        main = folder / INDEX
        _write_all(previews, folder)
    else:
        found = template_named(library, template)
        previews = [preview_of(found, locales=shown, look=look, findings=_lint(found, extra), facts=facts)]
        main = out or Path(_page(found))
        _write(main, render_preview(previews[0]))
    _tell(main, previews, as_json)
    if open_it:
        click.launch(main.absolute().as_uri())


def _locales(given: tuple[str, ...]) -> tuple[str, ...]:
    shown = tuple(dict.fromkeys(given)) or BOTH_LOCALES
    if len(shown) > MAX_LOCALES:
        raise click.UsageError(f"--locale is given {len(shown)} times; a page has room for {MAX_LOCALES}")
    for locale in shown:
        if not re.fullmatch(LOCALE_PATTERN, locale):
            raise click.UsageError(f"--locale {locale!r} is not a locale; write zh-CN, zh-HK, en or the like")
    return shown


def _page(template: Template) -> str:
    return f"preview-{template.id}.html"


def _look(sign: str | None) -> Look:
    if sign is None:
        config = config_or_none(None)
        sign = "" if config is None or config.channels.sms is None else config.channels.sms.sign
    return Look(sign=with_sign("", sign)) if sign else Look()


def _lint(template: Template, extra: Path | None) -> list[Finding]:
    return [finding for linted in lint_file(template.path, extra) for finding in linted.findings]


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--out {folder}: cannot be made: {error.strerror}") from None
    return folder


def _write_all(previews: Sequence[Preview], folder: Path) -> None:
    names = [_page(one.template) for one in previews]
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
