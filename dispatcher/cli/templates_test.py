"""``swipebell templates test``: renderings as they are known to be right."""

from __future__ import annotations

import os
from pathlib import Path

import click

from dispatcher.cli.common import json_option, print_json
from dispatcher.cli.rules_check import counted
from dispatcher.cli.templates_common import MAX_EVENT_BYTES, event_of, extra_folder
from dispatcher.errors import ConfigurationError
from dispatcher.model.event import Event
from templates.errors import TemplateError
from templates.facts import SwipeFacts
from templates.golden import EVENT_ENDING, FOLDER_NAME, MAX_EVENTS, Difference, differences, renderings, update
from templates.layouts import SHIPPED
from templates.library import FILE_NAME, Template, load_template
from templates.loader import template_files
from templates.reading import read_bytes


@click.command()
@click.argument("place", metavar="[PATH]", type=click.Path(path_type=Path), required=False)
@click.option(
    "--golden", type=click.Path(path_type=Path), help=f"Keep the files in this folder, not in {FOLDER_NAME}/."
)
@click.option(
    "--update", "write", is_flag=True, help="Write what is rendered now; then look at the change and commit it."
)
@json_option
@click.pass_context
def test(context: click.Context, place: Path | None, golden: Path | None, write: bool, as_json: bool) -> None:
    """Render each template of PATH and compare with the files that are kept beside it, in golden/.

    PATH is a folder of templates or of one; by default [templates] path, else the shipped templates. Rendered are the
    template's examples, the same without what is optional, and each event in golden/NAME.event.json; on every channel
    and in every locale. Exit status: 0 all is as it was; 1 something differs (shown as a diff); 2 PATH holds no
    template, or a broken one.
    """
    checked, found = 0, list[Difference]()
    for template in _templates(place or extra_folder(None) or SHIPPED):
        folder = template.path.parent / FOLDER_NAME if golden is None else golden / template.id
        made = renderings(template, _events(folder))
        checked += len(made)
        try:
            different = list(differences(folder, made))
            if write:
                update(folder, made, different)
        except OSError as error:
            raise ConfigurationError(f"{error.filename or folder}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigurationError(f"{folder}: a file is not UTF-8; write it anew with --update") from None
        found += different
    if as_json:
        print_json({"renderings": checked, "differ": len(found), "updated": write, "differences": found})
    else:
        for one in found:
            click.echo(one.diff if one.state == "changed" and not write else f"{one.state}: {one.file}")
        outcome = f"{len(found):,} {'written' if write else 'differ'}" if found else "all as they were"
        click.echo(f"{counted(checked, 'rendering')}, {outcome}")
        if found and not write:
            click.echo("see what changed; if it is meant, write it with --update")
    if found and not write:
        context.exit(1)


def _templates(place: Path) -> list[Template]:
    one = place.absolute() / FILE_NAME  # its layouts are beside its folder, which `.` would not tell
    try:
        files = [one] if os.path.lexists(one) else template_files(place) if place.is_dir() else []
        if not files:
            raise ConfigurationError(f"{place}: holds no template; a template is a folder with a {FILE_NAME}")
        return [load_template(file) for file in files]
    except TemplateError as error:
        raise ConfigurationError(f"{error} (swipebell templates lint names all mistakes)") from None


def _events(folder: Path) -> dict[str, SwipeFacts]:
    files = sorted(folder.glob(f"*{EVENT_ENDING}"))
    if len(files) > MAX_EVENTS:
        raise ConfigurationError(f"{folder}: holds {len(files)} events, and {MAX_EVENTS} are enough; remove some")
    return {file.name.removesuffix(EVENT_ENDING): SwipeFacts(_event(file)) for file in files}


def _event(file: Path) -> Event:
    try:
        return event_of(read_bytes(file, MAX_EVENT_BYTES), str(file))
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from None
