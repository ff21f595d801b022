"""``swipebell rules test``: scenarios through the send rules."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import click

from dispatcher.admission import Admitter
from dispatcher.cli.common import config_option, json_option, print_json
from dispatcher.cli.rules_check import active, config_or_none, counted, in_force, rules_of
from dispatcher.config import Config
from dispatcher.errors import ConfigurationError
from dispatcher.service import read_templates
from ratelimit.rules import Rules
from replay.errors import ScenarioError
from replay.scenario_file import ALL_CHANNELS, ScenarioFile, load_scenarios
from replay.scenarios import Check, Result, run_scenario
from templates.library import Library


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@config_option
@json_option
@click.pass_context
def test(context: click.Context, file: Path, config_path: Path | None, as_json: bool) -> None:
    """Let the scenarios of FILE (TOML) happen, and compare what the rules decide with what FILE expects.

    The rules are those that FILE names (`rules = "rules.toml"`, relative to it), else those in force. Exit status: 0
    all pass; 1 one fails; 2 FILE or the rules are not understood.
    """
    scenarios = _read(file)
    config = config_or_none(config_path)
    source, rules = _in_force(config) if scenarios.rules is None else _named(file, scenarios.rules)
    admitter = _admitter(config, scenarios, rules)
    results = [run_scenario(scenario, admitter) for scenario in scenarios.scenarios]
    failed = sum(not result.passed for result in results)
    if as_json:
        print_json({"rules": source, "version": rules.version_id, "failed": failed, "scenarios": results})
    else:
        for result in results:
            _print(result)
        outcome = f"{failed:,} failed" if failed else "all pass"
        found = counted(len(results), "scenario")
        click.echo(f"{found}, {outcome}; rules {source}, version {rules.version_id}")
    if failed:
        context.exit(1)


def _read(file: Path) -> ScenarioFile:
    try:
        return load_scenarios(file.read_text(encoding="utf-8"), str(file))
    except ScenarioError as error:
        raise ConfigurationError(str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"{file}: cannot be read: {reason}") from None


def _in_force(config: Config | None) -> tuple[str, Rules]:
    """Where changes need approval what was approved, else the file: what stands there now takes effect by itself."""
    needs_approval = config is not None and config.rules.approval
    return (active(config) if needs_approval else None) or in_force(config)


def _named(file: Path, rules: str) -> tuple[str, Rules]:
    path = file.parent / rules
    return str(path), rules_of(path)


def _admitter(config: Config | None, scenarios: ScenarioFile, rules: Rules) -> Admitter:
    """As the service has it, but for brown-outs: a scenario has no provider whose quota could run low."""
    configured = () if config is None else tuple(config.channels.configured())
    channels = scenarios.channels or configured or ALL_CHANNELS
    library = Library.load() if config is None else read_templates(config)
    return Admitter(rules, library, dict.fromkeys(channels, False))


def _print(result: Result) -> None:
    click.echo(f"{'pass' if result.passed else 'FAIL'}  {result.name}")
    for _, several in groupby(result.checks, key=_alike):
        checks = list(several)
        first, last = checks[0], checks[-1]
        turns = "" if len(checks) == 1 else f" to {last.at} ({len(checks)} times)"
        click.echo(f"      event {first.event}, {first.at}{turns}, for {first.role}: {first.why}")
        if not first.passed:
            click.echo(f"      expected: {first.expected}; decided: {first.decided}")


def _alike(check: Check) -> tuple[object, ...]:
    """Repeats that ended in the same way are told once; what they counted differs, so only what failed is told."""
    return check.event, check.role, check.passed, check.expected, check.decided
