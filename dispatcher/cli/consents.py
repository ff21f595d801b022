"""``swipebell recipients consent`` and ``consents``: what recipients agreed to, and the proof of it."""

from __future__ import annotations

import getpass
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dispatcher.cli.common import config_option, json_option, load, print_json, run_trio
from dispatcher.config import Config
from dispatcher.consents import CHANNELS, change_of, decode_consent, is_name, line_of
from dispatcher.errors import ConfigurationError, InputError
from dispatcher.events import Rejected
from dispatcher.intake.ndjson import open_input, read_batches
from dispatcher.ledger.worker import ThreadedLedger
from dispatcher.model.consent import ConsentChange, Consented, ConsentEntry
from dispatcher.model.recipient import MAX_CONSENTS, MAX_SOURCE_CHARS, Consent
from dispatcher.strictjson import Fault
from ratelimit.consent import consent_of

CONSENT_BATCH = 1024
"""Lines a commit, as with recipients."""

SHOWN_REJECTIONS = 20

PIPE_COLUMNS = 4 * MAX_SOURCE_CHARS
"""Width of the history where no terminal has one: wide enough that a source in Chinese stays on one line."""


def wall_ms() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000


def who() -> str:
    """The login name of whoever runs the command, for the log of consents; empty when the machine has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


class ConsentReport(msgspec.Struct):
    """What became of the words; ``older`` ones changed nothing because a later word holds, and are in the log."""

    read: int = 0
    changed: int = 0
    same: int = 0
    older: int = 0
    rejected: list[Rejected] = []
    unknown_fields: dict[str, int] = {}


@click.command()
@click.argument("account", required=False)
@click.option("--file", "file", metavar="FILE|-", help="Many words (NDJSON, gzip recognised; - is stdin).")
@click.option("--category", help="What it is about, such as promotion.")
@click.option("--channel", type=click.Choice(CHANNELS), help="Only on this channel.")
@click.option("--template", help="Only this template on the channel.")
@click.option("--give/--withdraw", "given", default=None, help="Whether the recipient agrees or takes it back.")
@click.option("--source", help=f"Where the word is kept: a form, a recording. At most {MAX_SOURCE_CHARS} characters.")
@click.option("--role", help="Which recipient of the account. Default: primary.")
@click.option("--by", help="Who enters it. Default: the login name.")
@click.option("--at", help="When it was said, such as 2026-11-01T10:00:00+08:00. Default: now.")
@config_option
@json_option
def consent(
    account: str | None,
    file: str | None,
    by: str | None,
    config_path: Path | None,
    as_json: bool,
    **word: Any,
) -> None:
    """Write down that the recipient of ACCOUNT agrees to a category, or takes it back; or all the words in a file.

    \b
    One:  recipients consent A-77 --category promotion --channel sms --give --source "branch form 17"
    Many: recipients consent --file words.ndjson
          {"account":"A-77","category":"promotion","given":true,"at":"2026-11-01T10:00:00+08:00","source":"form 17"}

    The later word about the same holds, whichever is written down first. A broken line is named and passed over, the
    rest is kept, and the exit status is then 3.
    """
    name = who() if by is None else by
    if by is not None and not is_name(by):
        raise ConfigurationError("--by: expected a name of 1 to 64 characters without / and *")
    if file is None:
        report = _keep_one(load(config_path, secrets=False), _one(account, word, name))
    elif account is not None or any(value is not None for value in word.values()):
        raise click.UsageError("--file has all words in it: leave ACCOUNT and the other options out, but --by")
    else:
        config = load(config_path, secrets=False)
        with open_input(file) as stream:
            report = run_trio(_keep_all, config, stream, name)
    say_rejected(report.rejected, report.unknown_fields)
    if as_json:
        print_json(report)
    else:
        click.echo(
            f"consents: {report.read:,} read, {report.changed:,} changed, {report.same:,} as before,"
            f" {report.older:,} older than what holds, {len(report.rejected):,} rejected"
        )
    if report.rejected:
        sys.exit(3)


@click.command()
@click.argument("account")
@config_option
@json_option
def consents(account: str, config_path: Path | None, as_json: bool) -> None:
    """Show every word of the recipients of ACCOUNT: when, what, from which source, and which ones hold."""
    config = load(config_path, secrets=False)
    if not config.ledger.path.exists():
        raise InputError(f"there is no ledger at {config.ledger.path} yet; nobody has said anything there")
    entries: list[ConsentEntry] = run_trio(_read, config, account)
    holding = _holding(entries)
    if as_json:
        print_json({"consents": [msgspec.to_builtins(one) | {"holds": one in holding} for one in entries]})
    elif entries:
        _print_history(entries, holding)
    else:
        click.echo("nothing was ever said for this account")


def say_rejected(rejected: Sequence[Rejected], unknown_fields: Mapping[str, int]) -> None:
    """Name the first rejected lines and the ignored fields on stderr."""
    for one in rejected[:SHOWN_REJECTIONS]:
        click.echo(f"line {one.line:,}: {one.error}", err=True)
    if len(rejected) > SHOWN_REJECTIONS:
        click.echo(f"… and {len(rejected) - SHOWN_REJECTIONS:,} more rejected lines", err=True)
    for name, lines in unknown_fields.items():
        click.echo(f"unknown field ignored: {name} ({lines:,} lines)", err=True)


def _one(account: str | None, word: Mapping[str, Any], by: str) -> ConsentChange:
    needed = {"ACCOUNT": account, "--category": word["category"], "--source": word["source"]}
    missing = [name for name, value in needed.items() if value is None]
    if word["given"] is None:
        missing.append("--give or --withdraw")
    if missing:
        raise click.UsageError(f"missing: {', '.join(missing)} (or --file with all words in it)")
    now = datetime.now(UTC)
    fields = {name: value for name, value in word.items() if value is not None}
    try:
        return change_of(line_of({"account": account, "at": now.isoformat(), **fields}), now_ms=wall_ms(), by=by)
    except Fault as fault:
        option = "ACCOUNT" if fault.field == "account" else f"--{fault.field}"
        raise ConfigurationError(f"{option}: {fault.reason}") from None


def _keep_one(config: Config, change: ConsentChange) -> ConsentReport:
    done: Consented = run_trio(_keep, config, [change])
    if done.unknown:
        raise InputError("the account has no recipient of this role; import it first, or name another --role")
    if done.too_many:
        raise InputError(f"the recipient has {MAX_CONSENTS} consents already, which is all that a card takes")
    return ConsentReport(1, done.changed, done.same, done.older)


async def _keep(config: Config, changes: list[ConsentChange]) -> Consented:
    ledger = ThreadedLedger(str(config.ledger.path))
    try:
        return await ledger.consent(changes, wall_ms())
    finally:
        await ledger.aclose()


async def _keep_all(config: Config, stream: BinaryIO, by: str) -> ConsentReport:
    report = ConsentReport()
    unknown: Counter[str] = Counter()
    ledger = ThreadedLedger(str(config.ledger.path))
    try:
        for batch in read_batches(stream, max_lines=CONSENT_BATCH):
            good: list[tuple[int, ConsentChange]] = []
            rejected: list[Rejected] = []
            now_ms = wall_ms()
            for number, line in batch:
                decoded = decode_consent(line, number, now_ms=now_ms, by=by)
                if isinstance(decoded, Rejected):
                    rejected.append(decoded)
                else:
                    good.append((number, decoded.change))
                    unknown.update(decoded.unknown)
            done = await ledger.consent([change for _, change in good], now_ms)
            report.read += len(batch)
            report.changed += done.changed
            report.same += done.same
            report.older += done.older
            for positions, field, why in (
                (done.unknown, "account", "no recipient has this account and role"),
                (done.too_many, "category", f"the recipient would have more than {MAX_CONSENTS} consents"),
            ):
                refused = [good[position] for position in positions]
                rejected += [Rejected(number, one.account, field, f"field {field}: {why}") for number, one in refused]
            report.rejected += sorted(rejected, key=lambda one: one.line)
    finally:
        await ledger.aclose()
    report.unknown_fields = dict(unknown)
    return report


async def _read(config: Config, account: str) -> list[ConsentEntry]:
    ledger = ThreadedLedger(str(config.ledger.path))
    try:
        return await ledger.consents_of(account)
    finally:
        await ledger.aclose()


def _holding(entries: Sequence[ConsentEntry]) -> list[ConsentEntry]:
    """Those that count for what they are about. Of what a provider told, the recipient's refusals keep that."""
    by_role: dict[str, dict[str, Consent]] = {}
    for entry in entries:
        latest = by_role.setdefault(entry.role, {})
        known = latest.get(entry.key)
        if known is None or _word(entry).outweighs(known):
            latest[entry.key] = _word(entry)
    return [
        entry
        for entry in entries
        if not entry.key.startswith("*/") and consent_of(by_role[entry.role], *entry.key.split("/")) == _word(entry)
    ]


def _word(entry: ConsentEntry) -> Consent:
    return Consent(entry.given, entry.at, entry.source)


def _print_history(entries: Sequence[ConsentEntry], holding: Sequence[ConsentEntry]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("said", "role", "about", "word", "source", "written down", "by"):
        table.add_column(heading, justify="left")
    for one in entries:
        word = ("given" if one.given else "withdrawn") + (", holds" if one in holding else "")
        cells = (_moment(one.at), one.role, one.key, word, one.source, _moment(one.written_at), one.by)
        table.add_row(*map(Text, cells))  # as it is: a source may look like markup
    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_COLUMNS)
    console.print(table)


def _moment(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(sep=" ", timespec="seconds")
