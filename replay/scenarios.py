"""Scenarios through the send rules: pass or fail, with what was decided and why. No ledger, no clock.

Each scenario starts with all counters at zero, and goes through the same code that decides in admission.
"""

from __future__ import annotations

import msgspec

from dispatcher.admission import Admitter
from dispatcher.ledger.api import Draft
from dispatcher.model.recipient import Recipient
from replay.decided import Decided, of_draft, role_of, sentence
from replay.memory import Memory
from replay.scenario_file import Expected, Happening, Scenario
from replay.times import local_text


class Check(msgspec.Struct, frozen=True):
    """One alert of an event that expects something. ``event`` is its place in the scenario, ``turn`` which of its
    repeats, both from 1; ``at`` is the time by the recipient's clock."""

    event: int
    turn: int
    at: str
    role: str
    passed: bool
    expected: str
    decided: str
    why: str


class Result(msgspec.Struct, frozen=True):
    """How a scenario went."""

    name: str
    passed: bool
    checks: list[Check]


def run_scenario(scenario: Scenario, admitter: Admitter) -> Result:
    """Let the scenario happen."""
    memory = Memory()
    people: dict[str, list[Recipient]] = {}
    for recipient in scenario.recipients:
        people.setdefault(recipient.account, []).append(recipient)
    checks: list[Check] = []
    for happening in scenario.happenings:
        for turn, (now_ms, accepted) in enumerate(happening.events, 1):
            decisions = admitter([accepted], people, now_ms)(memory)
            memory.keep(decisions.counters, decisions.marks, decisions.totals, now_ms)
            checks += _checks(happening, turn, now_ms, accepted.event.currency, decisions.drafts[0])
    return Result(scenario.name, all(check.passed for check in checks), checks)


def _checks(happening: Happening, turn: int, now_ms: int, currency: str, drafts: list[Draft]) -> list[Check]:
    checks = []
    for expected in happening.expected:
        meant = [draft for draft in drafts if expected.role in (None, role_of(draft.recipient))]
        for draft in meant:
            # By the clock of whoever is told: that is what the rules went by.
            zone = "UTC" if draft.recipient is None else draft.recipient.timezone
            decided = of_draft(draft)
            said = _phrase(decided.state, decided.rule or None, decided.route, decided.until, zone)
            checks.append(
                Check(
                    happening.place,
                    turn,
                    local_text(now_ms, zone),
                    role_of(draft.recipient),
                    _met(expected, decided),
                    _wanted(expected, zone),
                    said,
                    sentence(draft, currency),
                )
            )
        if not meant:
            why = f"the account has no recipient of role {expected.role}"
            at, wanted = local_text(now_ms, "UTC"), _wanted(expected, "UTC")
            checks.append(Check(happening.place, turn, at, expected.role or "", False, wanted, "no alert", why))
    return checks


def _met(expected: Expected, decided: Decided) -> bool:
    return (
        expected.state == decided.state
        and expected.rule in (None, decided.rule)
        and expected.route in (None, decided.route)
        and expected.until_ms in (None, decided.until)
    )


def _wanted(expected: Expected, zone: str) -> str:
    return _phrase(expected.state, expected.rule, expected.route, expected.until_ms, zone)


def _phrase(state: str, rule: str | None, route: tuple[str, ...] | None, until: int | None, zone: str) -> str:
    parts = [state]
    if rule is not None:
        parts.append(f"by {rule}")
    if until is not None:
        parts.append(f"until {local_text(until, zone)}")
    if route and state in ("send", "held"):
        parts.append(f"on {', '.join(route)}")
    return " ".join(parts)
