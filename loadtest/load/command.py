"""``swipebell loadtest``: scheduled load against an engine, and the proof of what became of it."""

from __future__ import annotations

import errno
import os
import re
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click
import msgspec
import trio

from dispatcher.cli.common import json_option, print_json
from dispatcher.config_load import read_token
from dispatcher.errors import ConfigurationError, SwipebellError
from dispatcher.synth import synthesize
from loadtest.load.assertions import METRICS, Assertion, parse_assertion
from loadtest.load.calibrate import check_rate
from loadtest.load.lines import MAX_ACCOUNTS
from loadtest.load.outcome import Outcome, judge
from loadtest.load.plan import (
    DEFAULT_DURATION_S,
    DEFAULT_RATE,
    MAX_DURATION_S,
    MAX_SPEEDUP,
    Load,
    Plan,
    Target,
    accounts_of,
    plan_profile,
    plan_rate,
    plan_recording,
)
from loadtest.load.profiles import PROFILES
from loadtest.load.recorded import scan
from loadtest.load.run import perform
from loadtest.load.tables import print_outcome
from loadtest.load.tally import MAX_EVENTS
from loadtest.providers.errors import SettingsTextError
from loadtest.providers.faults import Faults
from loadtest.providers.mixes import MIXES, parse_mix

MAX_PROCESSES: Final = 32
MAX_SETTLE_S: Final = 3600.0
CONNECTIONS_A_PROCESS: Final = 8
DEFAULT_METRICS: Final = "http://127.0.0.1:9464"

_PROFILES_HELP = "\n".join(f"  {one.name:<14} {one.what}" for one in PROFILES.values())
_HELP = f"""Put an engine under scheduled load and prove what became of every event.

The loop is open: events arrive when the schedule says, whether or not the engine keeps up, and latency counts from
the scheduled arrival until the provider has accepted the alert, read from the provider's own book. Without --target
it brings simulated providers and an engine along, in a temporary folder.

\b
Profiles (with --speedup a day passes faster):
{_PROFILES_HELP}

\b
Examples:
  swipebell loadtest --rate 2000 --duration 60 --assert 'p99<200ms' 'lost==0'
  swipebell loadtest --profile double-eleven --speedup 60 --duration 120 --report spike.html
  swipebell loadtest --rate 500:30,1500:120,500:60 --processes 2 --faults rush-hour
  swipebell loadtest --rate 300 --write-recipients people.ndjson
  swipebell loadtest --rate 300 --target tcp://127.0.0.1:8082 --providers http://127.0.0.1:9000

Exit status: 0 all well; 1 an assertion does not hold, something was lost or it could not run; 2 usage; 3 the recorded
file had broken lines; 130 interrupted (what was seen is still told and reported).
"""


@click.command(help=_HELP)
@click.option("--rate", metavar="N", help=f"Events a second; or steps N:SECONDS,…  [default: {DEFAULT_RATE}]")
@click.option("--profile", metavar="NAME", help=f"A day of arrivals: {', '.join(PROFILES)}.")
@click.option("--start", metavar="HH:MM", help="Where in the profile's day to begin.  [default: where it is busiest]")
@click.option("--duration", type=float, help=f"Seconds.  [default: {DEFAULT_DURATION_S:g}, or the whole recorded file]")
@click.option("--speedup", type=float, default=1.0, show_default=True, help="Let a profile or a recording pass faster.")
@click.option("--accounts", type=int, default=100_000, show_default=True, help="Cardholders; their swipes follow Zipf.")
@click.option("--events", metavar="FILE", help="Play recorded events (NDJSON, .gz), each with the time it is due.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same arrivals.")
@click.option("--target", metavar="URL", help="A running engine: http://HOST:PORT or tcp://HOST:PORT (stream intake).")
@click.option("--token-file", type=click.Path(path_type=Path), help="The target's bearer token.")
@click.option("--providers", metavar="URL", help="The simulated providers of --target, to measure by their book.")
@click.option("--metrics", metavar="URL", help=f"The metrics of --target.  [default: {DEFAULT_METRICS}]")
@click.option("--processes", type=click.IntRange(1, MAX_PROCESSES), default=1, show_default=True, help="Of the engine.")
@click.option("--latency", type=click.FloatRange(0, 600_000), default=20.0, show_default=True, help="Provider's, ms.")
@click.option("--faults", metavar="MIX", default="calm", show_default=True, help=f"{', '.join(MIXES)}; or NAME=P,…")
@click.option(
    "--provider-rate", type=click.IntRange(1, 100_000), default=50_000, help="What the engine may send a second."
)
@click.option("--kill-every", type=click.FloatRange(1), metavar="SECONDS", help="SIGKILL an engine process so often.")
@click.option("--assert", "asserted", multiple=True, metavar="CONDITION", help=f"One or more. Of {', '.join(METRICS)}.")
@click.option(
    "--settle", type=float, default=60.0, show_default=True, help="Seconds to wait for open alerts at the end."
)
@click.option("--report", type=click.Path(path_type=Path), metavar="FILE.html", help="Write a report to look at.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="Keep configuration, ledger and logs here.")
@click.option(
    "--write-recipients",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write who is told by this load, for `swipebell recipients import`, and end.",
)
@click.argument("conditions", nargs=-1, metavar="")
@json_option
def loadtest(**options: Any) -> None:
    """See ``_HELP``."""
    given = msgspec.convert(options, _Options)
    given.check()
    assertions = given.assertions()
    target = given.parsed_target()
    faults = given.mix()
    load = given.load()
    if given.write_recipients is not None:
        _write_recipients(given, load)
        return
    with ExitStack() as stack:
        folder = given.folder
        if folder is None and target is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swipebell-loadtest-")))
        plan = Plan(
            load=load,
            seed=given.seed,
            accounts=given.accounts,
            assertions=assertions,
            scenario=given.scenario(load),
            settle_s=given.settle,
            target=target,
            token=read_token(given.token_file, "--token-file"),
            connections=CONNECTIONS_A_PROCESS * given.processes,
            providers_url=given.providers,
            metrics_url=None if target is None else f"{(given.metrics or DEFAULT_METRICS).rstrip('/')}/metrics",
            folder=folder,
            processes=given.processes,
            latency_s=given.latency / 1000,
            provider_rate=given.provider_rate,
            faults=faults,
            kill_every_s=given.kill_every,
        )
        if (warning := check_rate(load.peak)) is not None:
            click.echo(f"swipebell: warning: {warning}", err=True)
        plan.check()
        outcome = judge(plan, trio.run(perform, plan))
    _tell(plan, outcome, given)


class _Options(msgspec.Struct, kw_only=True):
    rate: str | None
    profile: str | None
    start: str | None
    duration: float | None
    speedup: float
    accounts: int
    events: str | None
    seed: int
    target: str | None
    token_file: Path | None
    providers: str | None
    metrics: str | None
    processes: int
    latency: float
    faults: str
    provider_rate: int
    kill_every: float | None
    asserted: tuple[str, ...]
    conditions: tuple[str, ...]
    settle: float
    report: Path | None
    folder: Path | None
    write_recipients: Path | None
    as_json: bool

    def check(self) -> None:
        """What does not go together, or is out of range."""
        if self.rate is not None and self.profile is not None:
            raise ConfigurationError("--profile: is given beside --rate; keep one of the two")
        if self.events is not None and self.profile is not None:
            raise ConfigurationError("--profile: recorded --events have times of their own; give --rate or neither")
        if self.start is not None and self.profile is None:
            raise ConfigurationError("--start: needs a --profile, whose day it is about")
        if self.duration is not None and not 0 < self.duration <= MAX_DURATION_S:
            raise ConfigurationError(
                f"--duration {self.duration:g}: allowed is above 0 and up to {MAX_DURATION_S:,.0f} s"
            )
        if not 0 < self.speedup <= MAX_SPEEDUP:
            raise ConfigurationError(f"--speedup {self.speedup:g}: allowed is above 0 and up to {MAX_SPEEDUP:,.0f}")
        if self.speedup != 1 and (self.rate is not None or (self.profile is None and self.events is None)):
            raise ConfigurationError("--speedup: a --rate is what it is; give a --profile, or --events without --rate")
        if not 0 < self.accounts <= MAX_ACCOUNTS:
            raise ConfigurationError(f"--accounts {self.accounts:,}: allowed is 1 to {MAX_ACCOUNTS:,}")
        if not 0 <= self.settle <= MAX_SETTLE_S:
            raise ConfigurationError(f"--settle {self.settle:g}: allowed is 0 to {MAX_SETTLE_S:,.0f} seconds")
        if self.target is not None:
            alone = {"--processes": self.processes != 1, "--dir": self.folder, "--kill-every": self.kill_every}
            for option, given in alone.items():
                if given:
                    raise ConfigurationError(f"{option}: is about an engine of our own; leave it or --target away")
        for option, value in {
            "--token-file": self.token_file,
            "--providers": self.providers,
            "--metrics": self.metrics,
        }.items():
            if value is not None and self.target is None:
                raise ConfigurationError(f"{option}: belongs to a --target")
        if self.conditions and not self.asserted:
            raise ConfigurationError(f"{self.conditions[0]!r}: belongs behind --assert, if it is a condition")
        if self.report is not None:
            _check_writable(self.report)

    def assertions(self) -> list[Assertion]:
        """The conditions; all that are malformed are refused before anything runs."""
        try:
            return [parse_assertion(text) for text in (*self.asserted, *self.conditions)]
        except ValueError as error:
            raise ConfigurationError(f"--assert {error}") from None

    def mix(self) -> Faults:
        """The faults of the providers."""
        try:
            return parse_mix(self.faults)
        except SettingsTextError as error:
            raise ConfigurationError(f"--faults: {error}") from None

    def parsed_target(self) -> Target | None:
        """The running engine, if one is named."""
        if self.target is None:
            return None
        allowed = "allowed is http://HOST:PORT (HTTP intake) or tcp://HOST:PORT (stream intake)"
        try:
            parts = urlsplit(self.target)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ConfigurationError(f"--target: is not a URL; {allowed}") from None
        if parts.scheme not in ("http", "https", "tcp") or not host or parts.path not in ("", "/") or parts.username:
            raise ConfigurationError(f"--target: {allowed}")
        if parts.scheme != "tcp":
            return Target(url=f"{parts.scheme}://{parts.netloc}", stream=False)
        if port is None:
            raise ConfigurationError(f"--target: the port is missing; {allowed}")
        return Target(url=f"tcp://{parts.netloc}", stream=True, host=host, port=port)

    def load(self) -> Load:
        """When events arrive."""
        if self.events is not None:
            return plan_recording(scan(self.events, MAX_EVENTS), self.rate, self.duration, self.speedup)
        if self.profile is not None:
            return plan_profile(self.profile, _second(self.start), self.duration, self.speedup)
        return plan_rate(self.rate or DEFAULT_RATE, self.duration)

    def scenario(self, load: Load) -> dict[str, str]:
        """What was asked for, name to shown text."""
        kind = "events" if self.events is not None else "profile" if self.profile is not None else "rate"
        found = {kind: load.words, "duration": f"{load.seconds:,.6g} s"}
        if load.start_s is not None:
            found["from"] = f"{int(load.start_s) // 3600:02}:{int(load.start_s) // 60 % 60:02}"
        if load.speedup != 1:
            found["speedup"] = f"× {load.speedup:g}"
        found["peak"] = f"{load.peak:,.6g} a second"
        found["accounts"] = f"{self.accounts if load.recording is None else len(load.recording.accounts):,}"
        found["seed"] = str(self.seed)
        if self.target is not None:
            return {**found, "target": self.target, "providers": self.providers or "not measured"}
        found |= {
            "target": f"an engine of our own, {self.processes} process{'es' if self.processes > 1 else ''}",
            "provider latency": f"{self.latency:g} ms",
            "faults": self.faults,
        }
        if self.kill_every is not None:
            found["kills"] = f"an engine process every {self.kill_every:g} s"
        return found


def _write_recipients(given: _Options, load: Load) -> None:
    """The recipients of an engine that runs elsewhere; the same that one of our own would have."""
    path = given.write_recipients
    assert path is not None
    accounts = accounts_of(load, given.seed, given.accounts)
    count = 0
    try:
        with path.open("wb") as file:
            for account in accounts:
                file.write(msgspec.json.encode(synthesize(account, given.seed)) + b"\n")
                count += 1
    except OSError as error:
        raise ConfigurationError(f"--write-recipients {path}: cannot be written: {error.strerror}") from None
    click.echo(f"wrote {count:,} recipients; load them with: swipebell recipients import {path}")


def _second(text: str | None) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"([01]?[0-9]|2[0-3]):([0-5][0-9])", text, re.ASCII)
    if match is None:
        raise ConfigurationError(f"--start {text}: allowed is HH:MM, 00:00 to 23:59")
    return int(match[1]) * 3600.0 + int(match[2]) * 60.0


def _check_writable(path: Path) -> None:
    """Before the run: after it would be too late."""
    existed = path.exists()
    try:
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        missing = f"the folder {path.parent} does not exist" if error.errno == errno.ENOENT else error.strerror
        raise ConfigurationError(f"--report {path}: cannot be written: {missing}; name another file") from None


def _tell(plan: Plan, outcome: Outcome, given: _Options) -> None:
    """Report, summary, failures, and the exit status."""
    recording = plan.load.recording
    if recording is not None and recording.broken:
        for rejected in recording.shown:
            click.echo(f"swipebell: --events line {rejected.line:,}: {rejected.error}", err=True)
        more = recording.broken - len(recording.shown)
        words = f", {more:,} more of them not shown" if more > 0 else ""
        click.echo(f"swipebell: {recording.broken:,} broken lines were not played{words}", err=True)
    written = _write_report(outcome, given.report)
    if given.as_json:
        result = outcome.result
        data = {name: getattr(result, name) for name in result.__struct_fields__ if name != "summary"}
        told = {"generator": outcome.generator, "failures": outcome.failures, "remarks": outcome.remarks}
        print_json({**result.summary, "loadtest": {**data, **told}})
        for text in (*outcome.remarks, *outcome.failures):
            click.echo(f"swipebell: {text}", err=True)
    else:
        print_outcome(outcome)
        if written is not None:
            click.echo(f"the report is {written}")
    if outcome.result.interrupted:
        sys.exit(130)
    if outcome.failures:
        sys.exit(1)
    if outcome.summary.events["rejected"]:
        sys.exit(3)


def _write_report(outcome: Outcome, path: Path | None) -> Path | None:
    if path is None:
        return None
    from loadtest.report import write_report  # its charts and the page are of no use to a run without a report

    try:
        write_report(outcome.result, path)
    except OSError as error:
        raise SwipebellError(
            f"--report {path}: cannot be written: {error.strerror or os.strerror(error.errno or 0)}"
        ) from None
    return path
