"""``swipebell rules what-if``: recorded events through draft rules."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dispatcher.admission import Admitter
from dispatcher.channels.wechat.service import WechatServiceChannel
from dispatcher.cli.common import config_option, json_option, load, print_json
from dispatcher.cli.rules_check import counted, rules_of
from dispatcher.config import Config
from dispatcher.errors import ConfigurationError
from dispatcher.fallback import Orders
from dispatcher.ledger.sqlite_history import History, history
from dispatcher.service import read_templates
from ratelimit.brownout import BrownOutTerms
from ratelimit.effects import Storm
from ratelimit.rules import Rules
from replay.errors import PeriodError
from replay.memory import Memory
from replay.prediction import Prediction
from replay.times import moment_of, read_time
from replay.whatif import RecordedBrownOut, WhatIf, warm_up_ms

SHOWN_DAYS = 31
"""Days of the quota's table; ``--json`` has all."""


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@click.option("--since", required=True, metavar="TIME", help="First moment: an ISO time with a zone, a date, or -7d.")
@click.option("--until", metavar="TIME", default=None, help="The moment after the last. Default: now.")
@click.option(
    "--sms-cost",
    type=click.FloatRange(min=0),
    default=0.045,
    show_default=True,
    metavar="CNY",
    help="What one SMS costs; give the price of a text times its usual number of parts.",
)
@config_option
@json_option
def what_if(
    file: Path, since: str, until: str | None, sms_cost: float, config_path: Path | None, as_json: bool
) -> None:
    """Let the recorded events of a period pass the draft rules in FILE, and compare with what was decided.

    Nothing is sent, and the ledger is only read. Dates are days of this machine's time zone.
    """
    config = load(config_path, secrets=False)
    rules = rules_of(file)
    now_ms = time.time_ns() // 1_000_000
    try:
        since_ms = read_time(since, now_ms)
        until_ms = now_ms if until is None else read_time(until, now_ms)
    except PeriodError as error:
        raise ConfigurationError(f"--since or --until: {error}") from None
    if since_ms >= until_ms:
        raise ConfigurationError("--until: is not after --since")
    with history(str(config.ledger.path)) as past:
        prediction = predict(config, rules, past, since_ms, until_ms)
        versions = past.rulesets()
    in_force = {versions.get(row, "not recorded"): count for row, count in prediction.rulesets.items()}
    head = {
        "file": str(file),
        "version": rules.version_id,
        "since": moment_of(since_ms).isoformat(),
        "until": moment_of(until_ms).isoformat(),
        "versions_in_force": in_force,
    }
    if as_json:
        print_json(head | _with_cost(prediction.as_data(), sms_cost) | {"warnings": list(rules.warnings)})
        return
    for warning in rules.warnings:
        click.echo(f"warning: {warning}", err=True)
    _print(head, prediction, sms_cost, _quota_of(config))


def predict(config: Config, rules: Rules, past: History, since_ms: int, until_ms: int) -> Prediction:
    """The draft ``rules`` in the place of those that were in force, with the channels of the configuration."""
    channels = list(config.channels.configured())
    wechat = config.channels.wechat
    brownouts: dict[str, RecordedBrownOut] = {}
    if wechat is not None:
        reserved = frozenset(wechat.reserve_categories)
        terms = BrownOutTerms(wechat.brownout_minimum, wechat.brownout_digest_below, wechat.reserve_from, reserved)
        brownouts["wechat"] = RecordedBrownOut(terms)
        if wechat.service_messages:
            channels.append(WechatServiceChannel.name)
    orders = Orders(config.fallback.channels)
    admitter = Admitter(rules, read_templates(config), dict.fromkeys(channels, False), orders, brownouts)
    memory = Memory(day_totals=any(isinstance(rule, Storm) for rule in rules.rule))
    run = WhatIf(admitter, memory, brownouts)
    warm_ms = warm_up_ms(rules.rule)
    if not sys.stderr.isatty():
        return run.run(past, since_ms, until_ms, warm_ms)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("events", total=past.count(since_ms - warm_ms, until_ms))
        return run.run(past, since_ms, until_ms, warm_ms, lambda count: progress.advance(task, count))


def _with_cost(data: dict[str, Any], sms_cost: float) -> dict[str, Any]:
    sms = data["sms"]
    sms["cost_cny"] = {side: round(sms[side] * sms_cost, 2) for side in ("recorded", "predicted")}
    return data


def _quota_of(config: Config) -> int | None:
    return None if config.channels.wechat is None else config.channels.wechat.daily_quota


def _print(head: dict[str, Any], prediction: Prediction, sms_cost: float, quota: int | None) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{counted(prediction.events, 'event')} and {counted(prediction.alerts, 'alert')} from {head['since']} to"
        f" {head['until']}, with the rules of {head['file']} (version {head['version']})"
    )
    console.print(_said_of_versions(head["versions_in_force"], head["version"], prediction.changed))
    table = _table("", "by")
    names = {
        "sent": "sent at once",
        "held": "held",
        "suppressed": "suppressed",
        "folded": "folded",
        "expired": "expired",
    }
    last = ""
    for kind, name, before, after in prediction.rows():
        _add(table, "" if kind == last else names[kind], name, before, after)
        last = kind
    if prediction.digests or prediction.digests_predicted:
        _add(table, "digests told", "", prediction.digests, prediction.digests_predicted)
    before, after = prediction.recorded.sms, prediction.predicted.sms
    _add(table, "SMS", "", before, after)
    _add(table, "SMS cost, CNY", f"at {sms_cost:g}", before * sms_cost, after * sms_cost, digits=2)
    console.print(table)
    if prediction.gathering:
        console.print(f"{counted(prediction.gathering, 'digest')} of the draft would still be gathering at the end")
    _print_days(console, prediction, quota)
    _print_accounts(console, prediction)


def _said_of_versions(versions: dict[str, int], draft: str, changed: int) -> str:
    if not versions:
        return "nothing was accepted in this period"
    if len(versions) > 1:
        named = ", ".join(f"{version} ({counted(count, 'alert')})" for version, count in versions.items())
        return f"the rules changed inside the period: {named}; {counted(changed, 'alert')} would be decided otherwise"
    (version,) = versions
    if version != draft:
        return f"in force was version {version}; {counted(changed, 'alert')} would be decided otherwise"
    if changed:
        return (
            f"these are the rules that were in force, and yet {counted(changed, 'alert')} would be decided otherwise:"
            " recipients or the configuration have changed since"
        )
    return "these are the rules that were in force: every alert would be decided as it was"


def _print_days(console: Console, prediction: Prediction, quota: int | None) -> None:
    days = prediction.days()
    if not days:
        return
    limit = "" if quota is None else f" of {quota:,}"
    table = _table(f"template messages of WeChat by day in China{limit}", "")
    for day, before, after in days[-SHOWN_DAYS:]:
        _add(table, day, "" if quota is None else f"{after / quota:.1%}", before, after)
    console.print(table)
    if len(days) > SHOWN_DAYS:
        console.print(f"the last {SHOWN_DAYS} of {len(days)} days; --json has all")


def _print_accounts(console: Console, prediction: Prediction) -> None:
    affected = prediction.most_affected()
    if not affected:
        return
    table = Table(title="accounts most affected", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("account")
    for heading in ("alerts changed", "of these told", "draft"):
        table.add_column(heading, justify="right")
    for account, one in affected:
        table.add_row(account, f"{one.changed:,}", f"{one.told_recorded:,}", f"{one.told_predicted:,}")
    console.print(table)


def _table(title: str, second: str) -> Table:
    table = Table(title=title or None, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    table.add_column(second)
    for heading in ("recorded", "draft", "difference"):
        table.add_column(heading, justify="right")
    return table


def _add(table: Table, kind: str, name: str, before: float, after: float, *, digits: int = 0) -> None:
    changed = after - before
    difference = f"{changed:+,.{digits}f}" if changed else "="
    table.add_row(kind, name, f"{before:,.{digits}f}", f"{after:,.{digits}f}", difference)
