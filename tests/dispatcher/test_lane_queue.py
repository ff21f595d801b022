"""The queue of a lane: nothing is lost or overtaken inside its class, and the lower class is never starved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.freshness import CLASSES, FRESH, LATE, LATE_TURNS, URGENT
from dispatcher.lane_queue import LaneQueue


class Numbered:
    """Stands for an alert: the queue looks into none."""

    def __init__(self, number: int) -> None:
        self.number = number


def queue_of(fresh: Sequence[int], late: Sequence[int], urgent: Sequence[int] = ()) -> LaneQueue:
    queue = LaneQueue()
    for number, some in ((URGENT, urgent), (FRESH, fresh), (LATE, late)):
        put(queue, some, number)
    return queue


def put(queue: LaneQueue, numbers: Sequence[int], into: int, *, first: bool = False) -> None:
    alerts: Any = [Numbered(number) for number in numbers]
    queue.put(alerts, into, first=first)


def take(queue: LaneQueue, count: int) -> list[int]:
    taken: list[Any] = queue.take(count)
    return [one.number for one in taken]


def test_fresh_ones_leave_before_late_ones_in_the_order_in_which_they_came() -> None:
    queue = queue_of([], [])
    put(queue, [10, 11], LATE)
    put(queue, [1, 2], FRESH)
    put(queue, [3], FRESH)
    assert (len(queue), queue.length(LATE)) == (5, 2)
    assert take(queue, 4) == [1, 2, 3, 10]
    assert take(queue, 4) == [11]
    assert not queue


def test_what_is_put_first_goes_before_the_others_of_its_class_only() -> None:
    queue = queue_of([1, 2], [10, 11])
    put(queue, [8, 9], LATE, first=True)
    put(queue, [0], FRESH, first=True)
    assert take(queue, 7) == [0, 1, 2, 8, 9, 10, 11]


def test_what_has_aged_at_the_head_sinks_into_the_lower_class() -> None:
    queue = queue_of([1, 2, 3, 4], [10])
    queue.sink(FRESH, LATE, lambda alert: alert.number in (1, 2, 4))  # type: ignore[attr-defined]
    # 4 stands behind one that has not aged, and is looked at when it is at the head
    assert take(queue, 9) == [3, 4, 10, 1, 2]


@pytest.mark.parametrize("grant", [1, 3, 8, 50])
def test_while_both_wait_one_place_of_eight_is_for_the_late(grant: int) -> None:
    queue = queue_of(range(1000), range(1000, 2000))
    taken: list[int] = []
    while len(taken) < 800:
        taken += take(queue, grant)
    late = sum(number >= 1000 for number in taken)
    assert late == pytest.approx(len(taken) / LATE_TURNS, abs=1)


def test_the_late_owe_nothing_for_the_time_in_which_they_got_more_than_their_share() -> None:
    # Given late ones that had the whole capacity for long
    queue = queue_of([], range(1000, 1200))
    for _ in range(10):
        assert len(take(queue, 10)) == 10
    # When fresh ones come, then these have the next places but for the share
    put(queue, range(100), FRESH)
    assert sum(number < 1000 for number in take(queue, 16)) == 16 - 16 // LATE_TURNS


def test_a_lone_late_one_behind_a_flood_leaves_with_the_eighth() -> None:
    queue = queue_of(range(100), [1000])
    assert take(queue, 7) == list(range(7))
    assert take(queue, 1) == [1000]
    # Nor is anything saved up for the next one that is late
    assert take(queue, 50) == list(range(7, 57))
    put(queue, [1001, 1002, 1003], LATE)
    assert sum(number >= 1000 for number in take(queue, 8)) == 1


def test_urgent_ones_leave_before_all_others_which_keep_their_share() -> None:
    queue = queue_of(range(100, 200), range(1000, 1100), urgent=range(60))
    taken: list[int] = []
    while any(number < 100 for number in [*taken[-8:], 0]) and len(taken) < 160:
        taken += take(queue, 4)
    # Seven of eight places are theirs, and of the eighth ones the late have one of eight
    end = taken.index(59)
    assert taken[:7] == list(range(7))
    assert end == pytest.approx(60 * LATE_TURNS / (LATE_TURNS - 1), abs=2)
    assert [number for number in taken if number < 100] == list(range(60))
    # And what is put back first stands before the urgent ones only
    put(queue, [77], URGENT, first=True)
    assert take(queue, 1) == [77]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 2), st.integers(0, 12)),
        st.tuples(st.just("take"), st.integers(0, 20), st.just(0)),
    ),
    max_size=60,
)


@given(steps)
def test_nothing_is_lost_or_starved_and_each_class_keeps_its_order(script: list[tuple[str, int, int]]) -> None:
    queue = LaneQueue()
    joined: list[list[int]] = [[] for _ in range(CLASSES)]
    left: list[int] = []
    waited = 0  # places given away since the lowest class last left anything, while it waited
    for kind, number, count in script:
        if kind == "put":
            new = range(sum(map(len, joined)), sum(map(len, joined)) + count)
            joined[number] += new
            put(queue, new, number)
            continue
        before = len(queue)
        lowest = queue.length(LATE)
        taken = take(queue, number)
        # Whatever there is a place for leaves
        assert len(taken) == min(number, before)
        left += taken
        waited = 0 if not lowest or queue.length(LATE) < lowest else waited + len(taken)
        assert waited <= LATE_TURNS**2
    left += take(queue, len(queue))
    assert sorted(left) == sorted(number for some in joined for number in some)
    for some in joined:
        members = set(some)
        assert [number for number in left if number in members] == some
