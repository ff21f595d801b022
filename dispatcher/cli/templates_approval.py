"""``swipebell templates approve``, ``reject``, ``rollout``, ``rollback`` and ``history``: which version is told, to how
many accounts, and who said so."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.markup import escape

from dispatcher.cli import approval
from dispatcher.cli.common import config_option, json_option, load, print_json, run_trio
from dispatcher.cli.templates_common import is_word
from dispatcher.config import Config
from dispatcher.errors import ConfigurationError, InputError
from dispatcher.ledger.people import ChangeRefused, checked_note
from dispatcher.ledger.template_changes import (
    Approve,
    Reject,
    Rollback,
    Rollout,
    TemplateAct,
    TemplateActRow,
    TemplateHistory,
    TemplateText,
    TemplateVersion,
)
from dispatcher.ledger.worker import ThreadedLedger
from templates.findings import Finding
from templates.layouts import FOLDER_NAME
from templates.lint import lint_file
from templates.loader import FILE_NAME

SHOWN_ACTS = 50
"""Acts that ``history`` shows unless told otherwise: a year of most banks' changes."""

MAX_ACTS = 10_000
"""Most that ``--limit`` takes."""

MAX_VERSION_DIGITS = 10
"""Of a version, which is 2^31 at most."""

SHOWN_FINDINGS = 20
"""Errors of lint that a refused approval shows; ``templates lint`` shows all."""


def version_named(name: str) -> tuple[str, int]:
    """(id, version) of ``swipe@2``. Raises `click.BadParameter`."""
    template, _, version = name.rpartition("@")
    if not is_word(template) or not version.isascii() or not version.isdigit() or len(version) > MAX_VERSION_DIGITS:
        raise click.BadParameter("name a template and its version, such as swipe@2")
    return template, int(version)


named = click.argument("name", metavar="ID@V", callback=lambda _ctx, _param, value: version_named(value))


def _id_of(name: str) -> str:
    """``name``, if a template can have it as its id. Raises `ConfigurationError`."""
    if not is_word(name):
        raise ConfigurationError(f"{name[:80]!r} is not the id of a template; see: swipebell templates history")
    return name


note_option = click.option("--note", default="", metavar="TEXT", help="What is to be remembered about it.")
PERCENT = click.IntRange(1, 100)
PERCENT_HELP = "Of the accounts, 1 to 100."


@click.command()
@named
@click.option("--percent", type=PERCENT, metavar="N", default=100, show_default=True, help=PERCENT_HELP)
@approval.by_option
@note_option
@config_option
@json_option
def approve(
    name: tuple[str, int], percent: int, by: str | None, note: str, config_path: Path | None, as_json: bool
) -> None:
    """Let the proposed version ID@V be told, to all accounts or to a part of them.

    Whose file it is cannot approve it, and nobody can while lint finds an error in it. `templates history ID@V` shows
    what it changes.
    """
    config = load(config_path, secrets=False)
    if not config.templates.approval:
        raise ChangeRefused(
            "templates.approval is false in the configuration: a new version is told by itself, nobody is asked"
        )
    act = Approve(
        id=name[0],
        version=name[1],
        percent=percent,
        by=approval.person(by),
        at_ms=approval.now_ms(),
        note=checked_note(note),
    )
    pinned = f"{act.id}@{act.version}"
    text = _ask(config, _texts, [pinned]).get(pinned)
    errors = [] if text is None else lint_errors(pinned, text)
    if errors:
        for finding in errors[:SHOWN_FINDINGS]:
            click.echo(f"swipebell: {finding}", err=True)
        raise ChangeRefused(
            f"template {pinned} cannot be approved: lint finds {len(errors)} to correct; give the corrected one a"
            " higher version"
        )
    _say(_ask(config, _act, act), as_json)


@click.command()
@named
@approval.by_option
@click.option("--note", required=True, metavar="TEXT", help="Why, for whoever has written it.")
@config_option
@json_option
def reject(name: tuple[str, int], by: str | None, note: str, config_path: Path | None, as_json: bool) -> None:
    """Reject the proposed version ID@V, for good; what is told stays. The next try needs a higher version."""
    config = load(config_path, secrets=False)
    note = checked_note(note)
    if not note:
        raise ChangeRefused("--note: is empty; say why, whoever has written the template wants to know")
    act = Reject(id=name[0], version=name[1], by=approval.person(by), at_ms=approval.now_ms(), note=note)
    _say(_ask(config, _act, act), as_json)


@click.command()
@named
@click.option("--percent", type=PERCENT, metavar="N", required=True, help=PERCENT_HELP)
@approval.by_option
@note_option
@config_option
@json_option
def rollout(
    name: tuple[str, int], percent: int, by: str | None, note: str, config_path: Path | None, as_json: bool
) -> None:
    """Tell the version ID@V to N per cent of the accounts; the others stay on, or go back to, the version before it.

    Who is told it stays the same: with a higher N others join them. It must be told already, or have been before.
    """
    config = load(config_path, secrets=False)
    act = Rollout(
        id=name[0],
        version=name[1],
        percent=percent,
        by=approval.person(by),
        at_ms=approval.now_ms(),
        note=checked_note(note),
    )
    _say(_ask(config, _act, act), as_json)


@click.command()
@click.argument("template", metavar="ID")
@approval.by_option
@note_option
@config_option
@json_option
def rollback(template: str, by: str | None, note: str, config_path: Path | None, as_json: bool) -> None:
    """Take the newest version of template ID that is told back; all accounts are told the version before it.

    Alerts that were decided with it keep it. It comes back by `templates rollout` only, not with the next start.
    """
    config = load(config_path, secrets=False)
    act = Rollback(id=_id_of(template), by=approval.person(by), at_ms=approval.now_ms(), note=checked_note(note))
    _say(_ask(config, _act, act), as_json)


@click.command()
@click.argument("name", metavar="[ID|ID@V]", required=False)
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_ACTS),
    default=SHOWN_ACTS,
    show_default=True,
    help="Most acts that are shown; the latest come first.",
)
@config_option
@json_option
def history(name: str | None, limit: int, config_path: Path | None, as_json: bool) -> None:
    """Show which versions there are, which are told to how many accounts, what is waiting, and who said so.

    With ID only those of one template; with ID@V also how its text differs from the version before it.
    """
    config = load(config_path, secrets=False)
    template, version = name, None
    if name is not None:
        template, version = version_named(name) if "@" in name else (_id_of(name), None)
    found: TemplateHistory = _ask(config, _read, limit, template, version)
    if name is not None and not found.versions:
        raise ChangeRefused(f"there is no template {name} in this ledger; see: swipebell templates history")
    texts: dict[str, TemplateText] = {}
    if version is not None:
        one = found.versions[0]
        texts = _ask(config, _texts, [one.pinned] + ([f"{one.id}@{one.before}"] if one.before is not None else []))
    if as_json:
        data = msgspec.to_builtins(found)
        if version is not None:
            data |= msgspec.to_builtins(texts[found.versions[0].pinned])
        print_json(data)
        return
    _print_versions(found.versions)
    if name is not None:
        _print_acts(found.acts)
    for line in _difference(found.versions[0], texts) if texts else ():
        click.echo(line)


def lint_errors(pinned: str, text: TemplateText) -> list[Finding]:
    """What lint finds in a version that has to be corrected, with the version in the place of a file."""
    with tempfile.TemporaryDirectory(prefix="swipebell-") as folder:  # lint reads files, and the ledger has texts
        file = Path(folder, "one", FILE_NAME)
        file.parent.mkdir()
        file.write_text(text.content, "utf-8")
        layouts = Path(folder, FOLDER_NAME)
        layouts.mkdir()
        for layout, content in text.layouts.items():
            (layouts / f"{layout}.html").write_text(content, "utf-8")
        found = [finding for one in lint_file(file) for finding in one.findings]
    return [msgspec.structs.replace(one, file=pinned) for one in found if one.severity == "error"]


# ---- the ledger -------------------------------------------------------------------------------------------------


def _ask(config: Config, operation: Any, *arguments: Any) -> Any:
    if not config.ledger.path.exists():
        raise InputError(f"there is no ledger at {config.ledger.path} yet; no template was ever told there")
    return run_trio(_in_ledger, config, operation, *arguments)


async def _in_ledger(config: Config, operation: Any, *arguments: Any) -> Any:
    ledger = ThreadedLedger(str(config.ledger.path))
    try:
        return await operation(ledger, *arguments)
    finally:
        await ledger.aclose()


async def _act(ledger: ThreadedLedger, act: TemplateAct) -> TemplateHistory:
    done = await ledger.template_act(act)
    return await ledger.template_history(1, done.id, done.version)


async def _texts(ledger: ThreadedLedger, names: list[str]) -> dict[str, TemplateText]:
    return await ledger.template_texts(names)


async def _read(ledger: ThreadedLedger, limit: int, template: str | None, version: int | None) -> TemplateHistory:
    return await ledger.template_history(limit, template, version)


# ---- words ------------------------------------------------------------------------------------------------------


def _say(done: TemplateHistory, as_json: bool) -> None:
    version, act = done.versions[0], done.acts[0]
    if as_json:
        print_json({"version": version, "act": act})
        return
    if act.act == "reject":
        click.echo(f"template {version.pinned} is rejected; what is told stays")
    elif act.act == "rollback":
        click.echo(f"template {version.pinned} is taken back; {_told_by(act)}, within seconds in every process")
    else:
        click.echo(f"template {_told_by(act)}, within seconds in every process")


def _told_by(act: TemplateActRow) -> str:
    active = None if act.active is None else f"{act.id}@{act.active}"
    if act.rolling is None:
        return "no version of it is told" if active is None else f"{active} is told to all accounts"
    others = "the others are told by other templates" if active is None else f"the others {active}"
    return f"{act.id}@{act.rolling} is told to {act.percent} % of the accounts, {others}"


def _print_versions(versions: list[TemplateVersion]) -> None:
    table = approval.table_of("version", "state", "told to", "proposed", "approved", last="note")
    for one in versions:
        proposed = approval.with_account(one.proposed_by, _other(one.proposed_by, one.proposed_as))
        approved = "-"
        if one.approved_at is not None and one.approved_by is not None:
            approved = f"{approval.moment(one.approved_at)} {one.approved_by}"
        table.add_row(
            one.pinned,
            one.state,
            f"{one.percent} %" if one.percent else "-",
            escape(f"{approval.moment(one.proposed_at)} {proposed}"),
            escape(approved),
            escape(one.note),
        )
    approval.print_table(table)
    if not versions:
        click.echo("no template was ever told in this ledger")


def _other(name: str, account: str | None) -> str | None:
    return None if account == name else account


def _print_acts(acts: list[TemplateActRow]) -> None:
    for act in reversed(acts):
        who = approval.with_account(act.who, _other(act.who, act.who_as))
        click.echo(
            f"{approval.moment(act.at)} {act.act} {act.id}@{act.version} by {who}{approval.noted(act.note)}"
            f" ({_told_by(act)})"
        )


def _difference(one: TemplateVersion, texts: dict[str, TemplateText]) -> Iterator[str]:
    before = TemplateText("", {}) if one.before is None else texts[f"{one.id}@{one.before}"]
    name = "nothing" if one.before is None else f"{one.id}@{one.before}"
    now = texts[one.pinned]
    yield from approval.difference(before.content, now.content, name, one.pinned)
    for layout in sorted(before.layouts.keys() | now.layouts.keys()):
        old, new = before.layouts.get(layout, ""), now.layouts.get(layout, "")
        yield from approval.difference(old, new, f"{name}, layout {layout}", f"{one.pinned}, layout {layout}")
