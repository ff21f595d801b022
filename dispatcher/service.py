"""Puts an engine together from a configuration: the one place that knows every part."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from dispatcher import rules_file
from dispatcher.admission import Admitter
from dispatcher.channels.base import Channel, ChannelPaused, Fleet
from dispatcher.channels.build import make_channels, open_network, section_of
from dispatcher.config import Config
from dispatcher.config_channels import ChannelSection, SecondSmsVendor
from dispatcher.engine import Engine, wall_clock_ms
from dispatcher.errors import ChannelMisconfigured, ConfigurationError
from dispatcher.lane_gate import NO_LIMITS, Limits
from dispatcher.ledger.worker import ThreadedLedger
from dispatcher.logs import get_logger
from dispatcher.metrics import Meter
from dispatcher.rates import machine_clock_ms
from dispatcher.rules_in_force import RulesInForce
from dispatcher.rules_watch import RulesWatch
from dispatcher.templates_watch import TemplatesWatch
from dispatcher.watched import Watch
from ratelimit.errors import RulesError
from ratelimit.leased import POLLED_BURST_SHARE, LeasedPacer
from ratelimit.rules import Rules
from templates.errors import TemplateError
from templates.library import Library

SWITCH_INTERVAL_S = 0.02
"""How long a thread that waits for the GIL lets another one run on. The threads work by the batch, so fewer forced
switches win: measured in the whole path, 0.5 ms 4,800 alerts/s, Python's 5 ms 5,700, 20 ms 6,300
(docs/decisions/0002-multi-row-statements.md). An idle process is not concerned: nobody holds the GIL then."""

GC_THRESHOLDS = (50_000, 20, 50)
"""A batch makes thousands of short-lived tuples and no cycles; Python's 700 would look through them several times."""

FIRST_TOKEN_WAIT_S = 15.0
"""How long a start waits for a channel's first token before it goes on without (the lane keeps trying)."""

log = get_logger("service")


class Service:
    """What a running engine stands on; made by `service`."""

    def __init__(
        self, engine: Engine, ledger: ThreadedLedger, meter: Meter, config: Config, watches: Sequence[Watch]
    ) -> None:
        self.engine = engine
        self.ledger = ledger
        self.meter = meter
        self.config = config
        self._watches = watches

    def look_now(self) -> None:
        """Somebody says that rules and templates are ready: look now."""
        for watch in self._watches:
            watch.look_now()


def read_rules(config: Config) -> Rules:
    """The rules of the configured file. Raises `ConfigurationError` that names file, rule and key."""
    try:
        return rules_file.read(config.rules.file).rules
    except RulesError as error:
        raise ConfigurationError(str(error)) from None


def read_templates(config: Config) -> Library:
    """The template library. Raises `ConfigurationError` that names file, key and remedy."""
    path: Path | None = config.templates.path
    try:
        return Library.load(path)
    except TemplateError as error:
        raise ConfigurationError(str(error)) from None


@asynccontextmanager
async def service(
    config: Config, *, fail_fast: bool, environ: Mapping[str, str] | None = None, processes: int = 1
) -> AsyncIterator[Service]:
    """Open the ledger, start network and engine; on leaving, drain and close in reverse. ``processes`` is how many of
    them a supervisor starts together; others may share the ledger as well.

    Raises `ConfigurationError`, `LedgerUnavailable` or `ChannelMisconfigured` (a wrong secret), each one line.
    """
    environ = os.environ if environ is None else environ
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    meter = Meter()
    ledger = ThreadedLedger(str(config.ledger.path), meter.committed)
    try:
        watch = RulesWatch(config.rules, ledger=ledger, meter=meter, now_ms=wall_clock_ms)
        rules = await watch.first(strict=fail_fast)
        templates = TemplatesWatch(config.templates, ledger=ledger, meter=meter, now_ms=wall_clock_ms)
        library = await templates.first(strict=fail_fast)
        network = open_network(config, environ)
        try:
            made = make_channels(config, library, network, environ, Fleet(ledger, wall_clock_ms, meter))
            budgets = {name: getattr(channel, "budget", None) for name, channel in made.items()}
            brownouts = {name: budget for name, budget in budgets.items() if budget is not None}
            sections = config.channels.configured()
            # One pacer a section: what two channels of one account send together is what the provider counts.
            pacers = {name: _pacer(section.rate_per_second) for name, section in sections.items()}
            channels = {name: (channel, pacers[section_of(name)]) for name, channel in made.items()}
            admitter = Admitter(
                rules, library, {name: channel.fenced for name, (channel, _) in channels.items()}, brownouts
            )
            admitter.tell_by(library.chooser)
            engine = Engine(
                config=config.engine,
                ledger=ledger,
                network=network,
                channels=channels,
                decide=admitter,
                rules=admitter.in_force,
                ruleset=(rules.version_id, rules.content),
                meter=meter,
                templates=library,
                limits=_limits(channels, sections),
                processes=processes,
                fail_fast=fail_fast,
            )
            warn_of_idle_rules(config, admitter.in_force)
            await _check_credentials(channels)
            if not channels:
                log.warning("no_channel", hint="no [channels.…] section is configured; every alert will be suppressed")
            # What was loaded so far lives as long as the process: keep it out of every later collection.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            async with engine.running(), trio.open_nursery() as watching:
                watching.start_soon(watch.run, admitter.put_in_force)
                watching.start_soon(templates.run, admitter.tell_by)
                yield Service(engine, ledger, meter, config, (watch, templates))
                watching.cancel_scope.cancel()
        finally:
            await network.aclose()
    finally:
        await ledger.aclose()


def warn_of_idle_rules(config: Config, rules: RulesInForce) -> None:
    """Say in the log which rules can do nothing under this configuration."""
    if config.receipts is None and rules.decider.has_deadlines:
        hint = "no channel waits for a receipt without the section [receipts], so no rule's deadline_seconds counts"
        log.warning("deadline_without_receipts", hint=hint)


def _pacer(rate: int) -> LeasedPacer:
    return LeasedPacer(rate, machine_clock_ms)


def _limits(channels: Mapping[str, object], sections: Mapping[str, ChannelSection]) -> dict[str, Limits]:
    limits = {name: _limits_of(section) for name, section in sections.items()}
    for name in channels.keys() - limits.keys():  # a second channel of a section: no templates, and the same people
        limits[name] = Limits({}, limits[section_of(name)].recipient_per_minute)
    return limits


def _limits_of(section: ChannelSection) -> Limits:
    if isinstance(section, SecondSmsVendor):  # the channel's own are for both vendors together
        return NO_LIMITS
    pacers = {
        template: LeasedPacer(rate, machine_clock_ms, burst_share=POLLED_BURST_SHARE)
        for template, rate in section.template_rates.items()
    }
    return Limits(pacers, section.recipient_per_minute)


async def _check_credentials(channels: Mapping[str, tuple[Channel, LeasedPacer]]) -> None:
    """Fetch each channel's first token, so that a wrong secret is said before anything is accepted."""
    for name, (channel, _) in channels.items():
        with trio.move_on_after(FIRST_TOKEN_WAIT_S):
            try:
                await channel.ready()
            except ChannelPaused as paused:
                if paused.misconfigured:
                    raise ChannelMisconfigured(name, str(paused)) from None
                log.warning("channel_not_ready", channel=name, reason=str(paused))
