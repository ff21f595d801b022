"""Admissions that come at once are made as one, and everybody hears of his own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from dispatcher.errors import LedgerUnavailable
from dispatcher.events import Accepted
from dispatcher.ledger.api import Admission
from dispatcher.together import Together
from tests.dispatcher.ledger_kit import accepted


class Door:
    """A ledger that takes a second for each admission, and knows some ids already."""

    def __init__(self, known: Sequence[str] = (), poison: str = "", broken: bool = False) -> None:
        self.sizes: list[int] = []
        self._known, self._poison, self._broken = known, poison, broken

    async def admit(self, events: Sequence[Accepted]) -> Admission:
        self.sizes.append(len(events))
        await trio.sleep(1)
        if self._broken:
            raise LedgerUnavailable("the disk is full")
        if any(one.event.id == self._poison for one in events):
            raise ValueError("a defect")
        duplicates = [place for place, one in enumerate(events) if one.event.id in self._known]
        conflicts = [place for place, one in enumerate(events) if one.event.id.startswith("other")]
        return Admission(len(events) - len(duplicates) - len(conflicts), duplicates, conflicts, [], {})


@asynccontextmanager
async def running(door: Door, most: int = 100) -> AsyncIterator[Together]:
    together = Together(door.admit, most)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(together.run)
        yield together
        nursery.cancel_scope.cancel()


async def all_of(together: Together, batches: Sequence[Sequence[str]]) -> list[Any]:
    """Admit the batches of ids at once, in order; what each heard."""
    heard: list[Any] = [None] * len(batches)

    async def one(place: int) -> None:
        try:
            heard[place] = await together.admit([accepted(name) for name in batches[place]])
        except (ValueError, LedgerUnavailable) as error:
            heard[place] = error

    async with trio.open_nursery() as nursery:
        for place in range(len(batches)):
            nursery.start_soon(one, place)
            await wait_all_tasks_blocked()
    return heard


async def test_a_lone_admission_goes_at_once(autojump_clock: Any) -> None:
    async with running(Door()) as together:
        (heard,) = await all_of(together, [["a"]])
        assert (heard.accepted, trio.current_time()) == (1, 1.0)


async def test_what_comes_meanwhile_is_one_admission_and_each_hears_of_its_own(autojump_clock: Any) -> None:
    # Given a ledger that knows b and d
    door = Door(known=["b", "d"])
    async with running(door) as together:
        # When five come while the first is under way
        batches = [["a"], ["b", "c"], ["d"], ["other-1", "e"], ["f"]]
        heard = await all_of(together, batches)
    # Then they are two admissions, and positions are each batch's own
    assert door.sizes == [1, 6]
    assert [one.accepted for one in heard] == [1, 1, 0, 1, 1]
    assert [one.duplicates for one in heard] == [[], [0], [0], [], []]
    assert [one.conflicts for one in heard] == [[], [], [], [0], []]


async def test_no_admission_is_larger_than_allowed_and_order_is_kept(autojump_clock: Any) -> None:
    door = Door()
    async with running(door, most=3) as together:
        await all_of(together, [["a"], ["b", "c"], ["d", "e"], ["f"], ["g", "h", "i", "j"]])
    # A batch beyond the limit goes by itself
    assert door.sizes == [1, 2, 3, 4]


async def test_a_defect_in_one_batch_refuses_that_batch_alone(autojump_clock: Any) -> None:
    async with running(Door(poison="bad")) as together:
        first, good, bad, last = await all_of(together, [["a"], ["b"], ["bad"], ["c"]])
    assert [first.accepted, good.accepted, last.accepted] == [1, 1, 1]
    assert isinstance(bad, ValueError)


async def test_a_ledger_that_cannot_write_is_told_to_all_and_tried_once(autojump_clock: Any) -> None:
    door = Door(broken=True)
    async with running(door) as together:
        heard = await all_of(together, [["a"], ["b"], ["c"]])
    assert all(isinstance(one, LedgerUnavailable) for one in heard)
    assert door.sizes == [1, 2]


async def test_one_that_gives_up_waiting_disturbs_nobody(autojump_clock: Any) -> None:
    async with running(Door()) as together:
        with trio.move_on_after(0.5) as gave_up:
            await together.admit([accepted("a")])
        assert gave_up.cancelled_caught
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.2):
            await together.admit([accepted("b")])
        (heard,) = await all_of(together, [["c"]])
    assert heard.accepted == 1
