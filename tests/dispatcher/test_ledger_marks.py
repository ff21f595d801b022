"""Marks: the moments that rules remember are read and written with the decisions, and forgotten in their time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest

from dispatcher.events import Accepted
from dispatcher.ledger import sqlite_marks
from dispatcher.ledger.api import Counted, Decisions, Ledger
from dispatcher.ledger.sqlite_marks import MAX_TIMES
from dispatcher.ledger.worker import InlineLedger
from tests.dispatcher.ledger_kit import HOUR_MS, NOBODY, NOW, accepted, in_halves, owner_of

Marks = dict[str, tuple[tuple[int, ...], int]]


class _Seen(Exception):
    def __init__(self, found: dict[str, Sequence[int]]) -> None:
        self.found = found


async def marked(ledger: Ledger, owner: int, *keys: str) -> dict[str, Sequence[int]]:
    """Marks as the rules would see them. Leaves no trace."""

    @in_halves
    def peek(batch: object, told: object, now_ms: int, counted: Counted) -> Decisions:
        raise _Seen(dict(counted.marks(keys)))

    with pytest.raises(_Seen) as seen:
        await ledger.admit([accepted("never admitted")], NOW, owner, peek)
    return seen.value.found


async def mark(ledger: Ledger, owner: int, event: str, marks: Marks, counters: Any = None) -> None:
    @in_halves
    def decide(batch: Sequence[Accepted], told: object, now_ms: int, counted: Counted) -> Decisions:
        return Decisions([[NOBODY] for _ in batch], counters or {}, marks)

    await ledger.admit([accepted(event)], NOW, owner, decide)


async def test_what_was_marked_is_seen_by_the_next_batch(ledger: Ledger) -> None:
    # Given marks under keys with bars, quotes and characters of several bytes
    owner = await owner_of(ledger)
    names = [f"gap|规则 {a}|{b}" for a, b in product("a'\"", ["", "A-1", 'x"', "\\", "\0", "李"])]
    marks: Marks = {name: ((NOW - n, NOW, NOW + n), NOW + HOUR_MS) for n, name in enumerate(names)}
    await mark(ledger, owner, "e-1", marks | {"bare": ((), NOW + HOUR_MS)})
    # Then they are what they were, and those that are not there are not in the answer
    assert await marked(ledger, owner, *names, "bare", "gap|other|A-1") == {
        **{name: times for name, (times, _) in marks.items()},
        "bare": (),
    }
    # And one that is set again has its new moments
    await mark(ledger, owner, "e-2", {names[0]: ((NOW + 7,), NOW + HOUR_MS)})
    assert await marked(ledger, owner, *names[:2]) == {names[0]: (NOW + 7,), names[1]: marks[names[1]][0]}


async def test_marks_and_counters_of_one_batch_are_kept_apart(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    marks: Marks = {f"roll|cap|A-{n}": ((NOW + n,), NOW + HOUR_MS) for n in range(2_000)}
    counters = {f"cap|cap|2024-01-01|A-{n}": (n, NOW + HOUR_MS) for n in range(2_000)}
    await mark(ledger, owner, "e-1", marks, counters)

    @in_halves
    def peek(batch: object, told: object, now_ms: int, counted: Counted) -> Decisions:
        assert counted.counters(list(counters)) == {key: value for key, (value, _) in counters.items()}
        assert counted.marks(list(marks)) == {key: times for key, (times, _) in marks.items()}
        assert counted.marks(list(counters)) == counted.counters(list(marks)) == {}
        raise _Seen({})

    with pytest.raises(_Seen):
        await ledger.admit([accepted("e-2")], NOW, owner, peek)


async def test_a_batch_that_is_not_admitted_marks_nothing(ledger: Ledger) -> None:
    owner = await owner_of(ledger)

    @in_halves
    def decide(batch: Sequence[Accepted], told: object, now_ms: int, counted: Counted) -> Decisions:
        return Decisions([[] for _ in batch], {}, {"gap|a|A-1": ((NOW,), NOW)})

    with pytest.raises(ValueError, match="alerts"):
        await ledger.admit([accepted("e-1")], NOW, owner, decide)
    assert await marked(ledger, owner, "gap|a|A-1") == {}


async def test_of_one_key_only_so_many_moments_are_kept(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    times = tuple(range(NOW, NOW + MAX_TIMES + 5))
    await mark(ledger, owner, "e-1", {"roll|a|A-1": (times, NOW + HOUR_MS)})
    assert (await marked(ledger, owner, "roll|a|A-1"))["roll|a|A-1"] == times[5:]


async def test_marks_are_forgotten_when_their_time_is_over_and_not_before(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given marks of two kinds, every third of them over, gone through a few at a time
    monkeypatch.setattr(sqlite_marks, "LOOKED_AT_ONCE", 4)
    owner = await owner_of(ledger)
    keys = [f"{kind}|r|A-{n:02}" for kind in ("gap", "roll") for n in range(9)]
    over = set(keys[::3])
    await mark(ledger, owner, "e-1", {key: ((NOW,), NOW - 1 if key in over else NOW) for key in keys})
    counters = {"day|x|A-1": (1, NOW - 1), "day|y|A-1": (1, NOW + 1)}
    await mark(ledger, owner, "e-2", {}, counters)

    # When the ledger forgets, for as long as it takes to come round twice
    forgotten = [await ledger.forget_counters(NOW) for _ in range(2 * len(keys))]

    # Then those and no others are gone, with the counters whose time was over
    assert sum(forgotten) == len(over) + 1
    assert set(await marked(ledger, owner, *keys)) == set(keys) - over
    # And their kinds are still known
    await mark(ledger, owner, "e-3", {keys[0]: ((NOW + 1,), NOW + 5)})
    assert await marked(ledger, owner, keys[0]) == {keys[0]: (NOW + 1,)}


async def test_a_kind_is_forgotten_with_its_last_mark() -> None:
    # Given accounts with a bar in them, so that each has a kind of its own, one of them with a mark that still counts
    ledger = InlineLedger()
    owner = await owner_of(ledger)
    marks: Marks = {f"gap|r|branch {n}|7": ((NOW,), NOW - 1) for n in range(9)}
    await mark(ledger, owner, "e-1", marks | {"gap|r|branch 9|7": ((NOW,), NOW)}, {"day|x|A-1": (1, NOW)})
    # When the ledger has gone through all of them
    await ledger.forget_counters(NOW)
    # Then the other kinds are gone, but none of a counter, and one that comes again begins anew
    kinds = ledger.store.connection.execute("SELECT name FROM counter_kinds ORDER BY name").fetchall()
    assert kinds == [("day|x|",), ("gap|r|branch 9|",)]
    await mark(ledger, owner, "e-2", {"gap|r|branch 0|7": ((NOW + 1,), NOW + 5)})
    assert await marked(ledger, owner, "gap|r|branch 0|7") == {"gap|r|branch 0|7": (NOW + 1,)}
    await ledger.aclose()


async def test_a_batch_without_marks_asks_the_ledger_nothing_more() -> None:
    # Given a ledger that tells its statements
    ledger = InlineLedger()
    owner = await owner_of(ledger)
    statements: list[str] = []
    ledger.store.connection.set_trace_callback(statements.append)
    # When a batch without marks, holds and folds is admitted
    await mark(ledger, owner, "e-1", {}, {"day|x|A-1": (1, NOW)})
    ledger.store.connection.set_trace_callback(None)
    # Then none of their tables is touched
    touched = [one for one in statements if any(name in one for name in ("marks", "holds", "held", "digest_members"))]
    assert touched == []
    assert any("INTO counters" in one for one in statements)
    await ledger.aclose()
