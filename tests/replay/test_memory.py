"""Counters in memory."""

from __future__ import annotations

import pytest

from replay import memory as module
from replay.memory import Memory

NOW = 1_793_500_000_000
LATER = NOW + 3_600_000


def test_what_is_kept_is_found_and_what_is_not_is_missing() -> None:
    # Given a counter, a mark and a day's total
    memory = Memory()
    day = "day|Asia/Shanghai|2026-11-01|CNY|A"
    marks = {"gap|quiet|7": ((NOW, NOW + 5), LATER)}
    memory.keep({"cap|two|2026-11-01|A": (3, LATER)}, marks, {day: (7_261, 2, LATER)}, NOW)
    # Then each is found under its key only; a counter that was never written is missing and not 0
    assert memory.counters(["cap|two|2026-11-01|A", "cap|two|2026-11-01|B", "other|A"]) == {"cap|two|2026-11-01|A": 3}
    assert memory.marks(["gap|quiet|7", "gap|quiet|8"]) == {"gap|quiet|7": (NOW, NOW + 5)}
    assert memory.totals([day, day + "B"]) == {day: (7_261, 2)}
    assert (memory.counters([day]), len(memory)) == ({}, 3)
    # And a total goes when its time is over
    memory.keep({}, {}, {}, LATER + 1)
    assert memory.totals([day]) == {}


def test_a_kind_is_forgotten_when_all_of_it_is_over() -> None:
    # Given one day's counters of two accounts, of which one is to be kept for longer
    memory = Memory()
    memory.keep({"cap|two|1|A": (1, NOW), "cap|two|1|B": (1, LATER), "cap|two|0|A": (1, NOW)}, {}, {}, NOW)
    # When something is counted in between
    memory.keep({"cap|two|2|A": (1, LATER)}, {}, {}, NOW + 1)
    # Then the kind whose time is over is gone, and the other is whole
    assert len(memory) == 3
    assert memory.counters(["cap|two|0|A"]) == {}
    assert memory.counters(["cap|two|1|A", "cap|two|1|B"]) == {"cap|two|1|A": 1, "cap|two|1|B": 1}


def test_marks_that_are_over_are_swept_so_that_memory_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given room for few marks before it looks
    monkeypatch.setattr(module, "FIRST_SWEEP", 4)
    memory = Memory()
    # When for a long time new recipients come whose marks are soon over
    for turn in range(100):
        now = NOW + turn * 1000
        memory.keep({}, {f"gap|quiet|{turn}": ((now,), now + 1500)}, {}, now)
    # Then only a few are left, and the living ones are among them
    assert len(memory) <= 5
    assert memory.marks(["gap|quiet|99", "gap|quiet|98"]).keys() == {"gap|quiet|99", "gap|quiet|98"}


def test_day_totals_are_left_out_when_nobody_needs_them() -> None:
    memory = Memory(day_totals=False)
    memory.keep({"cap|two|1|A": (1, LATER)}, {}, {"day|Asia/Shanghai|2026-11-01|CNY|A": (100, 1, LATER)}, NOW)
    assert len(memory) == 1
