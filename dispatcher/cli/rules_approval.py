"""``swipebell rules propose``, ``approve``, ``reject`` and ``history``: maker and checker, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.markup import escape

from dispatcher import rules_file
from dispatcher.cli import approval
from dispatcher.cli.common import config_option, json_option, load, print_json, run_trio
from dispatcher.config import Config
from dispatcher.errors import ConfigurationError, InputError, SwipebellError
from dispatcher.ledger.people import ChangeRefused, checked_note
from dispatcher.ledger.rule_changes import Approve, Propose, Reject, RuleAct, RuleChange
from dispatcher.ledger.worker import ThreadedLedger
from ratelimit.errors import RulesError
from ratelimit.rules import Rules, load_rules

SHOWN_CHANGES = 50
"""Changes that ``history`` shows unless told otherwise: years of most banks' changes."""

MAX_CHANGES = 10_000
"""Most that ``--limit`` takes; each is held with its rules, some KiB."""

PREDICTED_HOURS = 24
MAX_PREDICTED_EVENTS = 500_000
"""A prediction looks at the last day, or as many hours less as keep it below so many events (half a minute), those
included by which the rules begin to count."""

HOUR_MS = 3_600_000

TOO_BUSY = (
    "the effect is not predicted: the last hour, and what the rules count before it, is over"
    f" {MAX_PREDICTED_EVENTS:,} events; swipebell rules what-if takes as long as it needs"
)


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@approval.by_option
@click.option("--note", default="", metavar="TEXT", help="Why, for whoever is to approve it.")
@config_option
@json_option
def propose(file: Path, by: str | None, note: str, config_path: Path | None, as_json: bool) -> None:
    """Propose the rules in FILE. They take effect when somebody else approves them.

    Prints their version, and their effect as predicted from the last day's events.
    """
    config = _with_approval(config_path)
    person, note = approval.person(by), checked_note(note)
    try:
        found = rules_file.read(file)
    except RulesError as error:
        raise ConfigurationError(str(error)) from None
    for warning in found.rules.warnings:
        click.echo(f"swipebell: warning: {warning}", err=True)
    now_ms = approval.now_ms()
    act = Propose(
        version=found.rules.version_id,
        content=found.text,
        by=person,
        at_ms=now_ms,
        note=note,
        predicted=predicted_effect(config, found.rules, now_ms),
    )
    change = run_trio(_act, config, act)
    if as_json:
        print_json(_as_data(change))
        return
    if change.state == "active":
        click.echo(f"rules {change.version} are in force already; nothing is proposed")
        return
    again = "" if change.proposed_at == now_ms else " already"
    click.echo(f"rules {change.version} are proposed{again} by {change.proposed_by}; in force: {change.from_version}")
    click.echo(f"effect: {_effect(change.predicted)}")
    click.echo(f"to put them in force, somebody else says: swipebell rules approve {change.version} --by NAME")


@click.command()
@click.argument("version", metavar="VERSION")
@approval.by_option
@click.option("--note", default="", metavar="TEXT", help="What is to be remembered about it.")
@config_option
@json_option
def approve(version: str, by: str | None, note: str, config_path: Path | None, as_json: bool) -> None:
    """Put the proposed rules VERSION in force, or rules that were in force before (the undo).

    Whoever has proposed them cannot approve them. `rules history VERSION` shows what they change.
    """
    config = _with_approval(config_path)
    act = Approve(version=version, by=approval.person(by), at_ms=approval.now_ms(), note=checked_note(note))
    for known in _history(config, 1, version):
        try:  # a proposal of another release
            load_rules(known.content, f"rules {version}")
        except RulesError as error:
            raise ConfigurationError(str(error)) from None
    change = run_trio(_act, config, act)
    if as_json:
        print_json(_as_data(change))
        return
    before = "" if change.from_version is None else f" instead of {change.from_version}"
    click.echo(f"rules {version} are in force{before}; every running process takes them within seconds")


@click.command()
@click.argument("version", metavar="VERSION")
@approval.by_option
@click.option("--note", required=True, metavar="TEXT", help="Why, for whoever has proposed them.")
@config_option
@json_option
def reject(version: str, by: str | None, note: str, config_path: Path | None, as_json: bool) -> None:
    """Reject the proposed rules VERSION; the rules in force stay. Whoever has proposed them may take them back so."""
    config = _with_approval(config_path)
    note = checked_note(note)
    if not note:
        raise ChangeRefused("--note: is empty; say why, whoever has proposed the rules wants to know")
    change = run_trio(_act, config, Reject(version=version, by=approval.person(by), at_ms=approval.now_ms(), note=note))
    if as_json:
        print_json(_as_data(change))
    else:
        click.echo(f"rules {version} are rejected; the rules in force stay")


@click.command()
@click.argument("version", metavar="[VERSION]", required=False)
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_CHANGES),
    default=SHOWN_CHANGES,
    show_default=True,
    help="Most changes that are shown; the latest come first.",
)
@config_option
@json_option
def history(version: str | None, limit: int, config_path: Path | None, as_json: bool) -> None:
    """Show who changed the rules, when, from which version to which, with what predicted effect, and what is waiting.

    With VERSION: everything about these rules, and how their text differs from the one they replace.
    """
    config = load(config_path, secrets=False)
    changes = _history(config, limit, version)
    if version is not None and not changes:
        raise ChangeRefused(f"there are no rules {version} in this ledger; see: swipebell rules history")
    if as_json:
        data = [_as_data(change) for change in changes]
        if version is not None:
            data = [one | {"content": change.content} for one, change in zip(data, changes, strict=True)]
        print_json({"changes": data})
    elif version is None:
        _print_table(changes)
    else:
        for change in reversed(changes):
            click.echo("\n".join(_told(change)))
        before = _history(config, 1, changes[0].from_version) if changes[0].from_version else []
        for line in _difference(before[0] if before else None, changes[0]):
            click.echo(line)


def predicted_effect(config: Config, rules: Rules, now_ms: int) -> dict[str, Any] | None:
    """What ``rules`` would have changed about the last ``PREDICTED_HOURS`` hours, as `rules what-if` finds it; None:
    not predicted. ``MAX_PREDICTED_EVENTS`` events are read at most, so of a busy ledger it is a shorter time."""
    try:
        history = import_module("dispatcher.ledger.sqlite_history").history
        predict = import_module("dispatcher.cli.rules_whatif").predict
        warm_up_ms = import_module("replay.whatif").warm_up_ms
    except (ImportError, AttributeError):
        return None
    warm_ms = warm_up_ms(rules.rule)
    try:
        with history(str(config.ledger.path)) as past:
            hours = PREDICTED_HOURS
            # Up to a moment that is not over: counting leaves some slack at both ends.
            while past.count(now_ms - hours * HOUR_MS - warm_ms, now_ms + HOUR_MS) > MAX_PREDICTED_EVENTS:
                hours //= 2
                if not hours:
                    click.echo(f"swipebell: warning: {TOO_BUSY}", err=True)
                    return None
            prediction = predict(config, rules, past, now_ms - hours * HOUR_MS, now_ms)
    except SwipebellError as error:  # the proposal is worth more than its prediction
        click.echo(f"swipebell: warning: the effect is not predicted: {error}", err=True)
        return None
    data: dict[str, Any] = prediction.as_data()
    data.pop("accounts", None)  # what is kept for good names nobody
    return {"hours": hours} | data


# ---- the ledger -------------------------------------------------------------------------------------------------


def _with_approval(config_path: Path | None) -> Config:
    config = load(config_path, secrets=False)
    if not config.rules.approval:
        raise ChangeRefused(
            "rules.approval is false in the configuration: a changed rule file takes effect by itself, nobody is asked"
        )
    return config


def _history(config: Config, limit: int, version: str | None) -> list[RuleChange]:
    if not config.ledger.path.exists():
        raise InputError(f"there is no ledger at {config.ledger.path} yet; no rules were ever in force there")
    changes: list[RuleChange] = run_trio(_read, config, limit, version)
    return changes


async def _read(config: Config, limit: int, version: str | None) -> list[RuleChange]:
    ledger = ThreadedLedger(str(config.ledger.path))
    try:
        return await ledger.rule_history(limit, version)
    finally:
        await ledger.aclose()


async def _act(config: Config, act: RuleAct) -> RuleChange:
    ledger = ThreadedLedger(str(config.ledger.path))
    try:
        return await ledger.rule_act(act)
    finally:
        await ledger.aclose()


# ---- words ------------------------------------------------------------------------------------------------------


def _as_data(change: RuleChange) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.to_builtins(change)
    del data["content"]
    return data


def _print_table(changes: list[RuleChange]) -> None:
    table = approval.table_of("version", "state", "proposed", "decided", last="effect and notes")
    for change in changes:
        decided = "-"
        if change.decided_at is not None:
            decided = f"{approval.moment(change.decided_at)}\n{change.decided_by or 'nobody was asked'}"
        said = [_effect(change.predicted), change.note, change.decision]
        table.add_row(
            change.version + (f"\nfrom {change.from_version}" if change.from_version else ""),
            change.state,
            escape(f"{approval.moment(change.proposed_at)}\n{change.proposed_by}"),
            escape(decided),
            escape("\n".join(filter(None, said))),
        )
    approval.print_table(table)
    if not changes:
        click.echo("no rules were ever in force in this ledger")


def _told(change: RuleChange) -> Iterator[str]:
    yield f"rules {change.version}: {change.state}"
    who = approval.with_account(change.proposed_by, change.proposed_as)
    yield f"  proposed {approval.moment(change.proposed_at)} by {who}{approval.noted(change.note)}"
    if change.decided_at is not None:
        word = "rejected" if change.state == "rejected" else "in force"
        if change.decided_by is None:
            who = "nobody was asked"
        else:
            who = f"by {approval.with_account(change.decided_by, change.decided_as)}"
        yield f"  {word} {approval.moment(change.decided_at)}, {who}{approval.noted(change.decision)}"
    yield f"  effect: {_effect(change.predicted)}"


def _difference(before: RuleChange | None, change: RuleChange) -> Iterator[str]:
    old, name = ("", "nothing") if before is None else (before.content, before.version)
    return approval.difference(old, change.content, name, change.version)


def _effect(predicted: dict[str, Any] | None) -> str:
    if predicted is None:
        return "not predicted"
    if not predicted["alerts"]:
        return f"nothing to predict it from: no alert in the last {predicted['hours']} h"
    said = f"{predicted['changed']:,} of {predicted['alerts']:,} alerts of the last {predicted['hours']} h otherwise"
    sums = {
        word: [sum(one[side] for one in predicted.get(kind, {}).values()) for side in ("recorded", "predicted")]
        for word, kind in (("sent", "sent"), ("held", "held"), ("suppressed", "suppressed"), ("folded", "folded"))
    }
    sums["SMS"] = [predicted["sms"]["recorded"], predicted["sms"]["predicted"]]
    moved = [f"{word} {before:,} → {after:,}" for word, (before, after) in sums.items() if before != after]
    return "; ".join([said, *moved])
