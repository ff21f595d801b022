"""Scenarios through the send rules: pass or fail, with what was decided and why. No ledger, no clock.

Each scenario starts with all counters at zero, and goes through the same code that decides in admission.
"""

from __future__ import annotations

import msgspec

from dispatcher.admission import Admitter
from dispatcher.ledger.api import Draft
from dispatcher.model.recipient import Recipient
from replay.decided import of_draft, role_of, sentence
from replay.memory import Memory
from replay.scenario_file import Expected, Happening, Scenario
from replay.times import moment_of


class Check(msgspec.Struct, frozen=True):
    """One alert of an event that expects something. ``event`` is its place in the scenario, ``turn`` which of its
    repeats, both from 1. ``expected`` is empty when it is not met by any alert."""

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
            decisions = admitter([accepted], people, now_ms, memory)
            memory.keep(decisions.counters, decisions.marks, now_ms)
            checks += _checks(happening, turn, now_ms, accepted.event.currency, decisions.drafts[0])
    return Result(scenario.name, all(check.passed for check in checks), checks)


def _checks(happening: Happening, turn: int, now_ms: int, currency: str, drafts: list[Draft]) -> list[Check]:
    checks = []
    at = moment_of(now_ms).isoformat(timespec="seconds")
    for expected in happening.expected:
        meant = [draft for draft in drafts if expected.role in (None, role_of(draft.recipient))]
        for draft in meant:
            passed = _met(expected, draft)
            decided, why = _said(draft), sentence(draft, currency)
            role = role_of(draft.recipient)
            checks.append(Check(happening.place, turn, at, role, passed, _wanted(expected), decided, why))
        if not meant:
            why = f"the account has no recipient of role {expected.role}"
            checks.append(
                Check(happening.place, turn, at, expected.role or "", False, _wanted(expected), "no alert", why)
            )
    return checks


def _met(expected: Expected, draft: Draft) -> bool:
    decided = of_draft(draft)
    return (
        expected.state == decided.state
        and expected.rule in (None, decided.rule)
        and expected.route in (None, decided.route)
        and expected.until_ms in (None, decided.until)
    )


def _said(draft: Draft) -> str:
    decided = of_draft(draft)
    return _phrase(decided.state, decided.rule or None, decided.route, decided.until)


def _wanted(expected: Expected) -> str:
    return _phrase(expected.state, expected.rule, expected.route, expected.until_ms)


def _phrase(state: str, rule: str | None, route: tuple[str, ...] | None, until: int | None) -> str:
    parts = [state]
    if rule is not None:
        parts.append(f"by {rule}")
    if until is not None:
        parts.append(f"until {moment_of(until).isoformat(timespec='seconds')}")
    if route and state in ("send", "held"):
        parts.append(f"on {', '.join(route)}")
    return " ".join(parts)
