"""``swipebell templates lint``: everything that is wrong with templates, before they are used."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from dispatcher.cli.common import json_option, print_json
from dispatcher.cli.rules_check import counted
from dispatcher.cli.templates_common import extra_folder, path_option
from dispatcher.errors import ConfigurationError
from templates.errors import TemplateError
from templates.layouts import SHIPPED
from templates.lint import Linted, SmsParts, lint_file, lint_files, lint_folder
from templates.loader import FILE_NAME, template_files
from templates.reading import read_text


@click.command()
@click.argument("targets", metavar="[PATH|ID]...", nargs=-1)
@path_option
@json_option
@click.pass_context
def lint(context: click.Context, targets: tuple[str, ...], path: Path | None, as_json: bool) -> None:
    """Try templates with their examples and with the longest values there are, in every locale, and say what a provider
    would refuse and what a reader would stumble over.

    PATH is a folder of templates, the folder of one, or its file; ID is a template of the library. Without either all
    templates are looked at, the shipped ones too. Exit status: 0 nothing found, or warnings only; 1 errors; 2 there
    is no such template or folder.
    """
    linted = [one for target in targets for one in _target(target, path)] if targets else _all(path)
    errors = sum(one.errors for one in linted)
    warnings = sum(len(one.findings) for one in linted) - errors
    if as_json:
        print_json({"errors": errors, "warnings": warnings, "templates": linted})
    else:
        for one in linted:
            _print(one)
        files = sum(one.file.endswith(FILE_NAME) for one in linted)
        click.echo(f"{counted(files, 'template')}: {counted(errors, 'error')}, {counted(warnings, 'warning')}")
    if errors:
        context.exit(1)


def _extra(path: Path | None) -> Path | None:
    extra = extra_folder(path)
    if extra is not None and not extra.is_dir():
        raise ConfigurationError(f"{extra}: is not a folder; create it or correct [templates] path")
    return extra


def _all(path: Path | None) -> list[Linted]:
    extra = _extra(path)
    return lint_folder(SHIPPED, extra) + (lint_folder(extra) if extra is not None else [])


def _target(target: str, path: Path | None) -> list[Linted]:
    place = Path(target)
    if place.exists():
        return _place(place)
    extra = _extra(path)
    found: list[Linted] = []
    for folder in (SHIPPED, extra):
        if folder is not None:
            found += _with_id(target, folder, extra)
    if not found:
        raise ConfigurationError(f"{target}: is neither a file or folder nor the id of a template; see templates list")
    return found


def _place(place: Path) -> list[Linted]:
    if place.is_file() or os.path.lexists(place / FILE_NAME):
        return lint_file(place)
    linted = lint_folder(place)
    if not linted:
        raise ConfigurationError(f"{place}: holds no template; a template is a folder with a {FILE_NAME}")
    return linted


def _with_id(name: str, folder: Path, extra: Path | None) -> list[Linted]:
    """The templates of a folder that say to have this id, or whose folder has the name."""
    bare = name.partition("@")[0]
    says = re.compile(rf"""^id\s*=\s*["']{re.escape(bare)}["']""", re.MULTILINE)
    try:
        all_files = template_files(folder)
    except TemplateError as error:
        raise ConfigurationError(str(error)) from None
    files = [file for file in all_files if file.parent.name == bare or says.search(_text(file))]
    named = (None, bare) if "@" not in name else (None, name)
    return [one for one in lint_files(files, folder, extra) if one.id in named or f"{one.id}@{one.version}" in named]


def _text(file: Path) -> str:
    """What is to be found in it; nothing, if it cannot be read, which is said when it is linted."""
    return read_text(file, lambda *_: None) or ""


def _print(one: Linted) -> None:
    for finding in one.findings:
        click.echo(str(finding))
    if one.id is not None:
        parts = ", ".join(f"{locale} {_parts(sms)}" for locale, sms in one.sms.items())
        click.echo(f"{one.id}@{one.version}: {len(one.findings)} found" + (f"; SMS parts: {parts}" if parts else ""))


def _parts(sms: SmsParts) -> str:
    least, most = sorted((sms.example, sms.usual))
    return str(least) if least == most else f"{least} to {most}"
