"""``swipebell held``: what the send rules hold, and what a person decides about it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from dispatcher.cli.common import config_option, json_option, load, print_json, run_trio
from dispatcher.config import Config
from dispatcher.errors import InputError
from dispatcher.ledger.held import HeldBy, HeldView
from dispatcher.ledger.worker import ThreadedLedger

MAX_NAME_CHARS = 80
"""Of a person's name: it is shown in every story of an alert that the person let go."""

rule_option = click.option("--rule", required=True, metavar="ID", help="The rule that holds them.")
by_option = click.option("--by", "who", required=True, metavar="NAME", help="Who decides this; it is kept and shown.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


class Done(msgspec.Struct, frozen=True):
    """What a person did: so many ``alerts`` of ``rule`` were released or discarded (``act``)."""

    act: str
    rule: str
    who: str
    alerts: int


@click.group()
def held() -> None:
    """Look at the alerts that the send rules hold until later, release or discard them.

    Works while `swipebell run` is running on the same ledger.
    """


@held.command("list")
@click.option("--rule", metavar="ID", help="Only what this rule holds.")
@config_option
@json_option
def list_held(rule: str | None, config_path: Path | None, as_json: bool) -> None:
    """Show what is held, rule by rule, when it goes or expires, and who released or discarded what before."""
    view: HeldView = run_trio(_view, _config(config_path), rule)
    if as_json:
        print_json(view)
    else:
        _show(view)


@held.command()
@rule_option
@by_option
@yes_option
@config_option
@json_option
def release(rule: str, who: str, yes: bool, config_path: Path | None, as_json: bool) -> None:
    """Send now what a storm rule holds. It leaves as fast as the channels' rates allow, and cannot be called back.

    What another rule holds (quiet hours, a cap, a gap) goes by itself in its time.
    """
    config, who = _config(config_path), _name(who)
    one = _held_by(config, rule)
    if not one.waiting:
        raise InputError(
            f"rule {rule} holds {one.alerts:,} alerts until a time of its own (next {_moment(one.first_due)}); "
            "only what a storm rule holds can be released"
        )
    _confirm(f"Send {one.waiting:,} alerts that rule {rule} holds? This cannot be undone.", yes=yes)
    _decide(config, "released", one, one.waiting, who, as_json)


@held.command()
@rule_option
@by_option
@yes_option
@config_option
@json_option
def discard(rule: str, who: str, yes: bool, config_path: Path | None, as_json: bool) -> None:
    """End what a rule holds without telling anybody: cancelled, discarded:RULE. It cannot be called back."""
    config, who = _config(config_path), _name(who)
    one = _held_by(config, rule)
    _confirm(f"End {one.alerts:,} alerts that rule {rule} holds, untold? This cannot be undone.", yes=yes)
    _decide(config, "discarded", one, one.alerts, who, as_json)


def _config(path: Path | None) -> Config:
    config = load(path, secrets=False)
    if not config.ledger.path.exists():
        raise InputError(f"there is no ledger at {config.ledger.path} yet; nothing was ever held there")
    return config


def _name(who: str) -> str:
    who = who.strip()
    if not who or len(who) > MAX_NAME_CHARS or not who.isprintable():
        raise InputError(f"--by: a name of 1 to {MAX_NAME_CHARS} characters that can be printed")
    return who


def _held_by(config: Config, rule: str) -> HeldBy:
    view: HeldView = run_trio(_view, config, None)
    for one in view.rules:
        if one.rule == rule:
            return one
    others = ", ".join(one.rule for one in view.rules)
    raise InputError(f"rule {rule} holds no alert; " + (f"those that do: {others}" if others else "no rule does"))


def _confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not _somebody_is_there():
        raise InputError("nobody is there to be asked (stdin is not a terminal); say --yes if you mean it")
    if not click.confirm(question, err=True):
        raise InputError("nothing was changed")


def _somebody_is_there() -> bool:
    return sys.stdin.isatty()


def _decide(config: Config, act: str, one: HeldBy, wanted: int, who: str, as_json: bool) -> None:
    done: Done = run_trio(_in_batches, config, act, one, wanted, who)
    if as_json:
        print_json(done)
    else:
        click.echo(f"{done.act} {done.alerts:,} alerts that rule {done.rule} held")
        if done.alerts < wanted:
            click.echo(f"the other {wanted - done.alerts:,} were no longer held", err=True)


async def _view(config: Config, rule: str | None) -> HeldView:
    ledger = ThreadedLedger(str(config.ledger.path))
    try:
        return await ledger.held(rule)
    finally:
        await ledger.aclose()


async def _in_batches(config: Config, act: str, one: HeldBy, wanted: int, who: str) -> Done:
    """Batch by batch, so that a service on the same ledger goes on meanwhile. Interrupted, it can be begun again."""
    ledger = ThreadedLedger(str(config.ledger.path))
    try:
        decide = ledger.release_held if act == "released" else ledger.discard_held
        now_ms, alerts = time.time_ns() // 1_000_000, 0
        with _Progress(wanted) as advance:
            # One moment for all: they are one act. What came after the question is not part of it.
            while count := await decide(one.rule, now_ms, who, one.up_to):
                alerts += count
                advance(count)
        return Done(act, one.rule, who, alerts)
    finally:
        await ledger.aclose()


class _Progress:
    """A bar on stderr, only when that is a terminal."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._bar: Any = None

    def __enter__(self) -> Callable[[int], None]:
        if sys.stderr.isatty():
            self._bar = click.progressbar(length=self._wanted, file=sys.stderr)
            self._bar.__enter__()
        return self._advance

    def _advance(self, count: int) -> None:
        if self._bar is not None:
            self._bar.update(count)

    def __exit__(self, *error: Any) -> None:
        if self._bar is not None:
            self._bar.__exit__(*error)


def _show(view: HeldView) -> None:
    if not view.rules:
        click.echo("nothing is held")
    for one in view.rules:
        going = one.alerts - one.waiting
        click.echo(f"{click.style(one.rule, bold=True)} holds {one.alerts:,} alerts")
        click.echo(f"  accepted {_moment(one.oldest)} to {_moment(one.newest)}")
        if one.waiting:
            until = f"the last expires {_moment(one.last_due)}"
            click.echo(f"  {one.waiting:,} wait until somebody releases or discards them; {until}")
        if going:
            click.echo(f"  {going:,} go by themselves, the first {_moment(one.first_due)}")
    if view.acts:
        click.echo("what people did")
    for act in view.acts:
        click.echo(f"  {_moment(act.at)} {act.act} {act.alerts:,} of {act.rule}, by {act.who}")


def _moment(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(sep=" ", timespec="seconds").replace("+00:00", " UTC")
