"""``swipebell rules check`` and ``rules show``: what a rule file says, and what is in force."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dispatcher import rules_file
from dispatcher.cli.common import DEFAULT_CONFIG, config_option, json_option, load, print_json
from dispatcher.config import Config
from dispatcher.errors import ConfigurationError
from dispatcher.ledger.sqlite_history import history
from dispatcher.rules_file import SHIPPED
from dispatcher.service import read_rules
from ratelimit.errors import RulesError
from ratelimit.rules import Rules, default_rules_text, load_rules
from replay.rule_sentences import say
from replay.times import moment_of


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@json_option
def check(file: Path, as_json: bool) -> None:
    """Read the rule file FILE and say what was found: its rules as sentences, warnings, or the first error.

    Exit status: 0 the file can be put in force (warnings too); 2 it cannot.
    """
    rules = rules_of(file)
    if as_json:
        print_json({"file": str(file), "ok": True} | as_data(rules))
        return
    _print_rules(rules)
    for warning in rules.warnings:
        click.echo(f"warning: {warning}")
    found = f"{counted(len(rules.rule), 'rule')}, {counted(len(rules.warnings), 'warning')}"
    click.echo(f"{file}: {found}; version {rules.version_id}")


@click.command()
@config_option
@json_option
def show(config_path: Path | None, as_json: bool) -> None:
    """Print the rules in force as sentences: those that the ledger says are, or, before its first run, those that the
    configuration names, or the shipped ones. A file that cannot be read does not hide what is in force."""
    config = config_or_none(config_path)
    known = active(config)
    error = None
    try:
        written, of_file = in_force(config)
        source, rules = known or (written, of_file)
    except ConfigurationError as broken:
        if known is None or config is None:
            raise
        written, of_file, error = str(config.rules.file), None, str(broken)
        source, rules = known
    since = _since(config, rules)
    if as_json:
        since_text = None if since is None else moment_of(since).isoformat()
        print_json({"source": source, "file": written, "file_error": error, "since": since_text} | as_data(rules))
        return
    _print_rules(rules)
    click.echo(f"{source}: version {rules.version_id}, {_since_words(since)}")
    if of_file is None:
        click.echo(f"the file cannot be put in force: {error}")
    elif rules.version_id != of_file.version_id:
        click.echo(f"{written}: version {of_file.version_id}, not in force; see swipebell rules history")


def counted(count: int, thing: str) -> str:
    """``1 rule``, ``2 rules``."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def config_or_none(path: Path | None) -> Config | None:
    """The configuration that is named or stands in this folder; None when there is none. Raises
    `ConfigurationError`."""
    if path is None and not Path(DEFAULT_CONFIG).exists():
        return None
    return load(path, secrets=False)


def in_force(config: Config | None) -> tuple[str, Rules]:
    """Where the rules in force come from, and they. Raises `ConfigurationError`."""
    if config is None:
        return SHIPPED, load_rules(default_rules_text(), SHIPPED)
    return (SHIPPED if config.rules.file is None else str(config.rules.file)), read_rules(config)


def rules_of(path: Path) -> Rules:
    """The rules of a file, read as the service reads it. Raises `ConfigurationError` that names file, rule and key."""
    try:
        return rules_file.read(path).rules
    except RulesError as error:
        raise ConfigurationError(str(error)) from None


def as_data(rules: Rules) -> dict[str, Any]:
    """The rules for ``--json``."""
    return {
        "version": rules.version_id,
        "rules": [{"id": rule.id, "effect": rule.__struct_config__.tag, "says": say(rule)} for rule in rules.rule],
        "warnings": list(rules.warnings),
    }


def _print_rules(rules: Rules) -> None:
    width = max((len(rule.id) for rule in rules.rule), default=0)
    for rule in rules.rule:
        click.echo(f"{rule.id:<{width}}  {say(rule)}")


def active(config: Config | None) -> tuple[str, Rules] | None:
    if config is None or not config.ledger.path.exists():
        return None
    with history(str(config.ledger.path)) as past:
        active = past.active_rules()
    return None if active is None else (f"ledger {config.ledger.path}", load_rules(active[1], f"rules {active[0]}"))


def _since(config: Config | None, rules: Rules) -> int | None:
    if config is None or not config.ledger.path.exists():
        return None
    with history(str(config.ledger.path)) as past:
        return past.in_force_since(rules.version_id)


def _since_words(since: int | None) -> str:
    if since is None:
        return "nothing was decided by them yet"
    return f"first in force {moment_of(since).isoformat(sep=' ', timespec='seconds')}"
