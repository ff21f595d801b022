"""The send rules: whether an alert is sent, when, on which channels, and why.

Pure: no clock, no I/O, no ledger. One batch goes through in three steps, so that every counter is read once
inside the admission transaction::

    plans = [[decider.plan(event, swipe_ms, recipient, now_ms) for recipient in …] for event, swipe_ms in …]
    tally = Tally(read_counters, read_marks, read_totals)
    tally.prefetch(keys_of(plans))
    for event, several in zip(events, plans):
        decisions = tally.decide_event(event, several)
        balances = [tally.day_total(decision.day_total_key) for decision in decisions]
    write(tally.changed, tally.changed_marks, tally.changed_totals)

The order of the questions: opt-out and consent, channels (route, configured, address, refused, consent, minimum
amount), age, storms, duplicates, and then quiet hours, gaps and caps in the order of the file. So whoever is counted as
expired would have been told in time, and whoever is counted by a cap would have been told. ``docs/rules.md`` says it
exactly.
"""

from __future__ import annotations

from ratelimit.asked import KEEP_COUNTER_MS, MAX_MOVES
from ratelimit.decider import MAX_COUNTED_AMOUNT, MOVES_MONEY, Decider, moved_amount
from ratelimit.decision import Decision, Fold, Increment, Mark, Plan, State
from ratelimit.errors import RulesError
from ratelimit.routes import MAX_LADDERS, REFUSAL_HOLDS_MS, SERVICE
from ratelimit.rulefile import (
    DEFAULT_EXPIRE_AFTER_SECONDS,
    DEFAULT_EXPIRY,
    NO_ADDRESS,
    NO_CHANNEL,
    NO_RECIPIENT,
    OPT_OUT,
    RECIPIENT_GONE,
    RECIPIENT_MIN_AMOUNT,
    Rules,
    default_rules_text,
    load_content,
    load_rules,
)
from ratelimit.tally import ReadCounters, ReadMarks, Tally, decide

__all__ = [
    "DEFAULT_EXPIRE_AFTER_SECONDS",
    "DEFAULT_EXPIRY",
    "KEEP_COUNTER_MS",
    "MAX_COUNTED_AMOUNT",
    "MAX_LADDERS",
    "MAX_MOVES",
    "MOVES_MONEY",
    "NO_ADDRESS",
    "NO_CHANNEL",
    "NO_RECIPIENT",
    "OPT_OUT",
    "RECIPIENT_GONE",
    "RECIPIENT_MIN_AMOUNT",
    "REFUSAL_HOLDS_MS",
    "SERVICE",
    "Decider",
    "Decision",
    "Fold",
    "Increment",
    "Mark",
    "Plan",
    "ReadCounters",
    "ReadMarks",
    "Rules",
    "RulesError",
    "State",
    "Tally",
    "decide",
    "default_rules_text",
    "load_content",
    "load_rules",
    "moved_amount",
]
