"""``swipebell recipients``: who is told about the swipes of an account."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from dispatcher.cli.common import config_option, json_option, load, print_json, run_trio
from dispatcher.cli.consents import consent, consents, say_rejected, wall_ms, who
from dispatcher.config import Config
from dispatcher.errors import InputError
from dispatcher.events import Accepted, Rejected, decode_event
from dispatcher.intake.ndjson import open_input, read_batches
from dispatcher.ledger.worker import ThreadedLedger
from dispatcher.model.recipient import MAX_CONSENTS, MAX_RECIPIENTS_PER_ACCOUNT, RecipientLine
from dispatcher.recipients import decode_recipient
from dispatcher.synth import synthesize

IMPORT_BATCH = 1024
MAX_SYNTH_ACCOUNTS = 10_000_000
"""Accounts that ``synth`` remembers (about 1 GB); a file with more is cut up first."""


@click.group()
def recipients() -> None:
    """Load recipients, write down what they agreed to, or invent some for a test."""


recipients.add_command(consent)
recipients.add_command(consents)


@recipients.command("import")
@click.argument("file", metavar="FILE|-")
@config_option
@json_option
def import_file(file: str, config_path: Path | None, as_json: bool) -> None:
    """Add or change the recipients in FILE (NDJSON, gzip recognised; - is stdin), one per line.

    A recipient is known by its account and role. A broken line is named and passed over, the rest is imported, and
    the exit status is then 3. Importing the same file again changes nothing.
    """
    config = load(config_path, secrets=False)
    with open_input(file) as stream:
        result = run_trio(_import, config, stream)
    _report(result, as_json)


@recipients.command()
@click.option(
    "--from",
    "events",
    required=True,
    metavar="EVENTS",
    help="Events to take the accounts from (NDJSON, .gz).",
)
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@config_option
@click.option("--seed", default=0, show_default=True, help="The same seed invents the same people.")
def synth(events: str, file: Path | None, config_path: Path | None, seed: int) -> None:
    """Invent one recipient for each account found in EVENTS.

    Writes them to FILE (ready for `recipients import`), or to stdout; with --config they are imported into that
    ledger as well. The people are invented: no openid or phone belongs to anybody.
    """
    lines = _invent(events, seed)
    if file is not None:
        try:
            file.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
        except OSError as error:
            raise InputError(f"{file}: cannot be written: {error.strerror}") from None
        click.echo(f"wrote {len(lines):,} recipients to {file}", err=True)
    elif config_path is None:
        for line in lines:
            sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
        return
    if config_path is not None:
        _report(run_trio(_load, load(config_path, secrets=False), lines), as_json=False)


class ImportReport(msgspec.Struct):
    """What an import did; ``unknown_fields`` counts lines by the name of a field that was ignored, ``older_consents``
    words that changed nothing because a later one holds."""

    read: int = 0
    added: int = 0
    changed: int = 0
    same: int = 0
    older_consents: int = 0
    rejected: list[Rejected] = []
    unknown_fields: dict[str, int] = {}


def _invent(events: str, seed: int) -> list[RecipientLine]:
    accounts: dict[str, None] = {}
    broken = 0
    with open_input(events) as stream:
        for batch in read_batches(stream):
            for number, line in batch:
                event = decode_event(line, number)
                if isinstance(event, Accepted):
                    accounts[event.event.account] = None
                else:
                    broken += 1
            if len(accounts) > MAX_SYNTH_ACCOUNTS:
                raise InputError(f"{events}: more than {MAX_SYNTH_ACCOUNTS:,} accounts; cut the file up")
    if broken:
        click.echo(f"{broken:,} broken lines passed over", err=True)
    if not accounts:
        raise InputError(f"{events}: no event in it has an account; is this a file of events (NDJSON)?")
    return [synthesize(account, seed) for account in accounts]


async def _load(config: Config, lines: list[RecipientLine]) -> ImportReport:
    report = ImportReport(read=len(lines))
    ledger = ThreadedLedger(str(config.ledger.path))
    try:
        for start in range(0, len(lines), IMPORT_BATCH):
            await _add(ledger, report, [(0, line) for line in lines[start : start + IMPORT_BATCH]])
    finally:
        await ledger.aclose()
    return report


async def _import(config: Config, stream: BinaryIO) -> ImportReport:
    report = ImportReport()
    unknown: Counter[str] = Counter()
    ledger = ThreadedLedger(str(config.ledger.path))
    try:
        for batch in read_batches(stream, max_lines=IMPORT_BATCH):
            good = []
            now_ms = wall_ms()
            for number, line in batch:
                decoded = decode_recipient(line, number, now_ms)
                if isinstance(decoded, Rejected):
                    report.rejected.append(decoded)
                else:
                    good.append((number, decoded.recipient))
                    unknown.update(decoded.unknown)
            report.read += len(batch)
            await _add(ledger, report, good)
    finally:
        await ledger.aclose()
    report.unknown_fields = dict(unknown)
    return report


async def _add(ledger: ThreadedLedger, report: ImportReport, numbered: list[tuple[int, RecipientLine]]) -> None:
    done = await ledger.import_recipients([line for _, line in numbered], wall_ms(), who())
    report.added += done.added
    report.changed += done.changed
    report.same += done.same
    report.older_consents += done.older_consents
    for position in done.too_many:
        number, line = numbered[position]
        why = f"field role: the account has {MAX_RECIPIENTS_PER_ACCOUNT} recipients already"
        report.rejected.append(Rejected(number, line.account, "role", why))
    for position in done.too_many_consents:
        number, line = numbered[position]
        why = f"field consents: the recipient would have more than {MAX_CONSENTS}"
        report.rejected.append(Rejected(number, line.account, "consents", why))


def _report(report: ImportReport, as_json: bool) -> None:
    say_rejected(report.rejected, report.unknown_fields)
    if as_json:
        print_json(report)
    else:
        click.echo(
            f"recipients: {report.read:,} read, {report.added:,} added, {report.changed:,} changed,"
            f" {report.same:,} as before, {len(report.rejected):,} rejected"
        )
        if report.older_consents:
            click.echo(f"consents: {report.older_consents:,} changed nothing: a later word holds")
    if report.rejected:
        sys.exit(3)
