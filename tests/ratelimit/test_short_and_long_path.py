"""A decision that is made on the short path is that of the long one, whatever was counted before."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.model.event import Event
from ratelimit.rules import Decision, Plan
from tests.ratelimit.book_kit import HOUR_MS, MINUTE_MS, Book, a_recipient, an_event, at, rule

RULES = [
    rule("expire_after", id='"age"', category='"swipe"', hours="700"),
    rule("dedup", minutes="2"),
    rule("quiet_hours", from_='"22:00"', to='"07:30"', when='{ type = "cash" }'),
    rule("min_gap", minutes="1", at_gap='"hold"'),
    rule("cap", limit="3", per='"account"', window='"day"', when='{ type = "purchase" }'),
    rule("cap", id='"roll"', limit="2", per='["recipient", "merchant"]', rolling_hours="2", at_cap='"hold"'),
    rule("cap", id='"fold"', limit="4", per='"recipient"', window='"week"', at_cap='"digest"'),
]
steps = st.lists(
    st.tuples(
        st.sampled_from([0, MINUTE_MS // 2, MINUTE_MS, 30 * MINUTE_MS, 5 * HOUR_MS, -HOUR_MS]),
        st.sampled_from(["A1", "A2"]),
        st.sampled_from(["purchase", "cash"]),
        st.sampled_from([100, 200]),
        st.sampled_from(["Asia/Shanghai", "America/New_York"]),
    ),
    min_size=1,
    max_size=12,
)


def by_the_long_path(plan: Plan) -> Plan:
    if plan.asked is None:
        return plan
    fields: dict[str, Any] = {field: getattr(plan.asked, field) for field in plan.asked.__struct_fields__}
    return msgspec.structs.replace(plan, asked=type(plan.asked)(**fields | {"must_walk": True}))


@settings(max_examples=80, deadline=None)
@given(steps=steps)
def test_the_short_path_the_long_one_and_no_reading_ahead_decide_alike(
    steps: list[tuple[int, str, str, int, str]],
) -> None:
    # Given three ledgers under the same rules, and alerts that run into all of them
    short, long, lazy = Book(*RULES), Book(*RULES), Book(*RULES)
    now_ms = at("2026-10-31T12:00Z")
    for number, (passed_ms, account, kind, amount, zone) in enumerate(steps):
        now_ms += passed_ms
        event = an_event(id=str(number), account=account, type=kind, amount=amount)
        told = [a_recipient(id=1, timezone=zone), a_recipient(id=2)]

        def decided(
            book: Book, long_way: bool, prefetch: bool, event: Event = event, now: int = now_ms
        ) -> list[Decision]:
            plans = [book.decider.plan(event, now, each, now) for each in told]  # noqa: B023
            plans = [by_the_long_path(plan) for plan in plans] if long_way else plans
            return book.decide([(event, plans)], prefetch=prefetch)[0]

        # When each is decided on the short path where there is one, always on the long one, and without reading ahead
        found = decided(short, False, True)
        # Then the decisions are the same, and so is all that is counted
        assert sorted_saw(found) == sorted_saw(decided(long, True, True)) == sorted_saw(decided(lazy, False, False))
    assert short.counters == long.counters == lazy.counters
    assert short.marks == long.marks == lazy.marks


def sorted_saw(decisions: list[Decision]) -> list[Decision]:
    """With what is counted in the order of the keys: one by one they are the same."""
    return [
        msgspec.structs.replace(each, increments=tuple(sorted(each.increments)), times=tuple(sorted(each.times)))
        for each in decisions
    ]


def test_what_is_remembered_of_a_combination_does_not_grow_by_the_day() -> None:
    # Given a cap, and recipients in two zones
    book = Book(rule("cap", limit="1", per='"account"', window='"day"'))
    told = [a_recipient(id=1, timezone="Asia/Shanghai"), a_recipient(id=2, timezone="America/New_York")]
    plans = []
    # When they are told on each of a hundred days
    for day in range(100):
        now_ms = at("2026-01-01T12:00Z") + day * 24 * HOUR_MS
        plans = [book.decider.plan(an_event(), now_ms, each, now_ms) for each in told]
    # Then a sheet of each zone is remembered, and it is today's
    (matched,) = book.decider._matched.values()
    assert matched.questions is not None
    assert len(matched.questions._sheets) == 2
    assert {key.split("|")[2] for plan in plans for key in plan.counters if key.startswith("cap|")} == {"2026-04-10"}


def test_words_of_64_kilobytes_are_not_remembered() -> None:
    # Given a rule that counts by category and merchant
    book = Book(rule("cap", limit="1", per='["category", "merchant", "account"]', window='"day"'))
    now_ms = at("2026-01-01T12:00Z")

    def counter(number: int) -> str:
        text = f"{number}".rjust(65_000, "x")
        event = an_event(category=text, type=text, merchant=text)
        return book.decider.plan(event, now_ms, a_recipient(), now_ms).counters[0]

    # When a source sends a hundred names that are far too long, 6.5 MB of each kind
    tracemalloc.start()
    counters = {counter(number) for number in range(100)}
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    # Then each is counted for itself, and nothing is kept of them
    assert len(counters) == 100
    assert kept < 1_000_000
