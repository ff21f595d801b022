"""Rules that change while the service runs: watches the rule file, and follows what the ledger says is in force.

Every process looks once a second (see `watched`). Good rules from a file that has changed become the ledger's active
change: at once and in the name of the file's owner, or, where approval is asked for, when somebody else has approved
them. Each process then puts the ledger's word in force between two batches, so all of them switch within about a second
of each other, and rules from any other source than the file (a rollback) work the same way.

A file that is not understood changes nothing: the rules in force stay, one line of the log names the rule and the key,
and a metric raises the alarm until the file is mended.
"""

from __future__ import annotations

from collections.abc import Callable

from dispatcher import rules_file
from dispatcher.config import RulesConfig
from dispatcher.errors import ConfigurationError
from dispatcher.ledger.api import Ledger
from dispatcher.ledger.people import INITIAL, ChangeRefused, Person
from dispatcher.ledger.rule_changes import Activate, Propose, RuleChange
from dispatcher.logs import get_logger
from dispatcher.metrics import Meter
from dispatcher.rules_file import RulesFile
from dispatcher.watched import Seen, Watch, look
from ratelimit.errors import RulesError
from ratelimit.rules import Rules, load_rules

APPLIED, BROKEN, WAITING = "applied", "broken", "waiting"
RESULTS = (APPLIED, BROKEN, WAITING)
"""What becomes of changed rules, as the metric names it: in force, not understood, waiting for approval."""

log = get_logger("rules")


class RulesWatch(Watch):
    """Watches for one process. First `first`, then `run`.

    ``version`` is the version of the rules that this process decides by.
    """

    def __init__(self, config: RulesConfig, *, ledger: Ledger, meter: Meter, now_ms: Callable[[], int]) -> None:
        super().__init__()
        self.version = ""
        self._path = config.file
        self._approval = config.approval
        self._ledger = ledger
        self._meter = meter
        self._now_ms = now_ms
        self._row = 0
        """The change that is in force here, by its number in the ledger."""
        self._file_broken = self._active_broken = False
        self._publish: Callable[[Rules], None] | None = None

    async def first(self, *, strict: bool) -> Rules:
        """The rules to start with: the file's, or where approval is asked for, those that the ledger has in force.

        The first rules of a ledger need no approval: there is nobody to ask yet. A file that is not understood is
        passed over with the alarm when the ledger knows what is in force, so that a restart does not silence every
        alert; not when ``strict``, and not when there is nothing else. Raises `ConfigurationError`.
        """
        seen = self._look()
        active = await self._ledger.rule_active(0)
        try:
            found = rules_file.read(self._path)
        except RulesError as error:
            if active is None or (strict and not self._approval):
                raise ConfigurationError(str(error)) from None
            rules = _understood(active)
            self._in_force(active, rules)
            self._broke(error)
        else:
            if active is None or not self._approval:
                active = await self._ledger.rule_act(self._activation(found))
            # Another process may have been first, with another file.
            rules = found.rules if active.version == found.rules.version_id else _understood(active)
            self._in_force(active, rules)
            _warn(found.rules)
            if rules.version_id != found.rules.version_id:
                await self._propose(found)
        self._done = seen
        return rules

    async def run(self, publish: Callable[[Rules], None]) -> None:
        """Look every second. ``publish`` puts rules in force, between two batches and at once. See `Watch.watching`."""
        self._publish = publish
        await self.watching()

    def _look(self) -> Seen:
        return look(self._path)

    async def _take(self, seen: Seen) -> None:
        try:
            found = rules_file.read(self._path)
        except RulesError as error:
            if self._look() == seen:
                self._broke(error)
                self._done = seen
            return
        if self._look() != seen:
            return  # it changed while it was read: what was read may be half of each
        _warn(found.rules)
        if not self._approval:
            await self._ledger.rule_act(self._activation(found))
            await self._follow()
        elif found.rules.version_id != self.version:
            await self._propose(found)
        self._done = seen
        if self._file_broken:
            self._file_broken = False
            log.info("rules_mended", version=found.rules.version_id, in_force=self.version)
        self._alarm()

    async def _propose(self, found: RulesFile) -> None:
        try:
            change = await self._ledger.rule_act(
                Propose(
                    version=found.rules.version_id,
                    content=found.text,
                    by=found.owner,
                    at_ms=self._now_ms(),
                    note="the rule file was changed",
                    only_new=True,  # a restart must not propose again what was rejected or replaced
                )
            )
        except ChangeRefused as error:
            log.error("rules_not_proposed", error=str(error))
            return
        if change.state == "proposed":
            self._meter.rules_reload(WAITING)
        log.warning("rules_not_in_force", version=change.version, state=change.state, in_force=self.version)

    async def _follow(self) -> None:
        """Put the ledger's word in force, if it is news."""
        change = await self._ledger.rule_active(self._row)
        if change is None:
            return
        try:
            rules = load_rules(change.content, f"rules {change.version}")
        except RulesError as error:  # of another release, which runs on the same ledger
            self._row = change.id
            self._active_broken = True
            self._say_broken(error)
            return
        if rules.version_id != self.version:
            # Its text is durable before anything is decided by it.
            await self._ledger.ruleset(rules.version_id, rules.content, self._now_ms())
            if self._publish is not None:
                self._publish(rules)
            log.info("rules_in_force", version=rules.version_id, before=self.version)
            self._meter.rules_reload(APPLIED)
        self._in_force(change, rules)

    def _activation(self, found: RulesFile) -> Activate:
        return Activate(
            version=found.rules.version_id,
            content=found.text,
            by=Person(INITIAL, found.owner.account) if self._approval else found.owner,
            at_ms=self._now_ms(),
            only_first=self._approval,
        )

    def _in_force(self, change: RuleChange, rules: Rules) -> None:
        self._row, self.version = change.id, rules.version_id
        self._active_broken = False
        self._meter.rules_in_force(rules.version_id)
        self._alarm()

    def _broke(self, error: RulesError) -> None:
        self._file_broken = True
        self._say_broken(error)

    def _say_broken(self, error: RulesError) -> None:
        log.error("rules_broken", error=str(error), rule=error.rule, key=error.key, in_force=self.version)
        self._meter.rules_reload(BROKEN)
        self._alarm()

    def _alarm(self) -> None:
        self._meter.rules_broken(self._file_broken or self._active_broken)


def _understood(change: RuleChange) -> Rules:
    try:
        return load_rules(change.content, f"rules {change.version}")
    except RulesError as error:
        raise ConfigurationError(f"the rules that the ledger has in force are not understood: {error}") from None


def _warn(rules: Rules) -> None:
    for warning in rules.warnings:
        log.warning("rules_warning", version=rules.version_id, warning=warning)
