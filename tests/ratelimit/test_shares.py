"""Sharing a rate: over any interleaving of claims, delays, crashes and pauses, no second belongs to two processes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ratelimit.shares import GAP_MS, TERM_MS, Claim, fair_parts, least, living, occupied, over, renewed, worth_writing

SECOND_MS = 1_000
LATE_MS = 200
"""So long after its share ends may what a process was granted before still be on its way; `GAP_MS` covers it."""


@given(st.dictionaries(st.integers(1, 99), st.integers(0, 1_000), min_size=1, max_size=12), st.integers(1, 1_000))
def test_the_parts_are_the_whole_rate_and_fair(wants: dict[int, int], rate: int) -> None:
    # Given some wishes, when the rate is divided, then all of it is, and nobody has less than he wants while another
    # has more than he does (by one, because a permit cannot be cut)
    parts = fair_parts(wants, rate)
    assert sum(parts.values()) == rate
    assert min(parts.values()) >= 0
    for owner, want in wants.items():
        if parts[owner] < want:
            assert all(part <= parts[owner] + 1 for part in parts.values())


def test_who_has_all_the_work_gets_all_but_one_permit_of_each_other() -> None:
    assert fair_parts({1: 400, 2: 1, 3: 1, 4: 1}, 400) == {1: 397, 2: 1, 3: 1, 4: 1}
    # And where the rate is too low for that, an idle process keeps none back
    assert (least(400, 4), least(399, 4), least(5, 4)) == (1, 0, 0)


def test_a_claim_of_before_the_machine_was_started_anew_is_nobodys() -> None:
    # Given a claim that ends later than any could that was made by now
    claim = Claim(want=1, share=100, until_ms=5_000 + TERM_MS + 1, was=100, was_until_ms=9_000)
    # Then nothing of it is occupied, and it can be forgotten
    assert occupied(claim, 5_000) == 0
    assert over(claim, 5_000)
    assert not over(claim, 5_001)


def test_a_dead_process_keeps_its_share_until_its_last_second_is_over() -> None:
    claims = {1: Claim(want=100, share=100, until_ms=10_000)}
    for now_ms in (7_500, 9_999, 10_000, 10_000 + GAP_MS - 1):
        claim, part = renewed(claims, 2, 100, 100, 0, now_ms)
        assert claim.share == 0, now_ms
    assert part == 100
    assert renewed(claims, 2, 100, 100, 0, 10_000 + GAP_MS)[0].share == 100


def test_a_share_is_lowered_first_and_told_then() -> None:
    # Given a process that alone has all, when another wants half of it
    claims = {1: Claim(want=100, share=100, until_ms=10_000), 2: Claim(want=100, share=0, until_ms=10_000)}
    claim, part = renewed(claims, 1, 100, 100, 100, 8_000)
    # Then it still has all, and is told to lower it
    assert (claim.share, part) == (100, 50)
    # When it says that it has done so, then the other half stays occupied for as long as its last second lasts
    claims[1], _ = renewed(claims, 1, 100, 100, 50, 8_001)
    assert (claims[1].share, claims[1].was, claims[1].was_until_ms) == (50, 100, 8_001 + GAP_MS)
    assert renewed(claims, 2, 100, 100, 0, 8_000 + GAP_MS)[0].share == 0
    assert renewed(claims, 2, 100, 100, 0, 8_001 + GAP_MS)[0].share == 50


def test_processes_that_are_to_come_find_their_part_free() -> None:
    # Given the first of four, then it leaves the others their part
    claim, _ = renewed({}, 1, 400, 400, 0, 1_000, expected=4)
    assert claim.share == 100


def test_only_a_change_or_a_claim_that_runs_out_is_written() -> None:
    before = Claim(want=5, share=5, until_ms=10_000)
    assert worth_writing(None, before, 7_000)
    assert not worth_writing(before, Claim(want=5, share=5, until_ms=10_400), 7_400)
    assert worth_writing(before, Claim(want=6, share=5, until_ms=10_400), 7_400)
    assert worth_writing(before, Claim(want=5, share=4, until_ms=10_400), 7_400)
    assert worth_writing(before, Claim(want=5, share=5, until_ms=11_600), 8_600)


class _Process:
    def __init__(self) -> None:
        self.share = 0
        self.until_ms = 0
        self.answer: tuple[Claim, int] | None = None
        """What the ledger has said and the process has not yet heard."""
        self.used: list[tuple[int, int, int]] = []
        """(from, to, share) in the past."""


class Fleet(RuleBasedStateMachine):
    """Processes that claim, hear of it late or never, die, stand still, and come back with a claim that has run out."""

    @initialize(rate=st.integers(1, 500))
    def begin(self, rate: int) -> None:
        self.rate = rate
        self.now_ms = 1_000_000
        self.claims: dict[int, Claim] = {}
        self.processes: dict[int, _Process] = {}
        self.next = 1

    @rule()
    def starts(self) -> None:
        if len(self.processes) < 6:
            self.processes[self.next] = _Process()
            self.next += 1

    @rule(which=st.integers(0, 5), want=st.integers(0, 500), expected=st.integers(1, 4))
    def claims_anew(self, which: int, want: int, expected: int) -> None:
        owner, process = self._one(which)
        if process is None or process.answer is not None:
            return
        claim, part = renewed(self.claims, owner, self.rate, want, process.share, self.now_ms, expected)
        before = self.claims.get(owner)
        if worth_writing(before, claim, self.now_ms):
            self.claims[owner] = claim
        else:
            assert before is not None
            claim = before
        process.answer = claim, part

    @rule(which=st.integers(0, 5))
    def hears(self, which: int) -> None:
        _, process = self._one(which)
        if process is None or process.answer is None:
            return
        claim, part = process.answer
        process.answer = None
        process.share, process.until_ms = min(claim.share, part), claim.until_ms

    @rule(which=st.integers(0, 5))
    def dies(self, which: int) -> None:
        _, process = self._one(which)
        if process is not None:
            process.share, process.until_ms, process.answer = 0, 0, None

    @rule(passed_ms=st.integers(1, 700) | st.integers(1, 6_000))
    def time_passes(self, passed_ms: int) -> None:
        # While it passes, each process uses what it may. An answer that is on its way changes nothing yet.
        for process in self.processes.values():
            end_ms = min(self.now_ms + passed_ms, process.until_ms)
            if process.share and end_ms > self.now_ms:
                process.used.append((self.now_ms, end_ms + LATE_MS, process.share))
        self.now_ms += passed_ms
        for owner in [owner for owner, claim in self.claims.items() if over(claim, self.now_ms)]:
            del self.claims[owner]
        for process in self.processes.values():
            process.used = [one for one in process.used if one[1] >= self.now_ms - 3 * SECOND_MS]

    @invariant()
    def no_second_holds_more_than_the_rate(self) -> None:
        if not hasattr(self, "rate"):
            return
        # The largest sum is found in a second that begins where some use begins, or ends there.
        starts = {start for process in self.processes.values() for start, _, _ in process.used}
        ends = {end - 1 for process in self.processes.values() for _, end, _ in process.used}
        for begin in starts | ends | {start - SECOND_MS + 1 for start in starts}:
            largest = [
                max(
                    (share for start, end, share in process.used if start < begin + SECOND_MS and end > begin),
                    default=0,
                )
                for process in self.processes.values()
            ]
            assert sum(largest) <= self.rate, (begin, largest)

    @invariant()
    def what_is_occupied_is_no_more_than_the_rate(self) -> None:
        if hasattr(self, "rate"):
            assert sum(occupied(claim, self.now_ms) for claim in self.claims.values()) <= self.rate

    def _one(self, which: int) -> tuple[int, _Process | None]:
        owners = list(self.processes)
        if not owners:
            return 0, None
        owner = owners[which % len(owners)]
        return owner, self.processes[owner]


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@settings(max_examples=100, deadline=None)
@given(st.integers(100, 1_000), st.lists(st.integers(0, 1_000), min_size=2, max_size=5))
def test_it_settles_at_the_fair_parts_within_seconds(rate: int, wants: list[int]) -> None:
    # Given processes of which the first holds all
    claims: dict[int, Claim] = {}
    shares = dict.fromkeys(range(1, len(wants) + 1), 0)
    now_ms = 1_000_000

    def renew(owner: int) -> None:
        for _ in range(2):
            claims[owner], part = renewed(claims, owner, rate, wants[owner - 1], shares[owner], now_ms)
            shares[owner] = min(claims[owner].share, part)
            if part >= claims[owner].share:
                return

    renew(1)
    assert shares[1] == rate
    # When all of them look at it twice a second, for four seconds
    for _ in range(8):
        for owner in shares:
            renew(owner)
        now_ms += 500
    # Then each has its fair part, and all of the rate is in use
    floor = least(rate, len(wants))
    assert shares == fair_parts({owner: max(min(wants[owner - 1], rate), floor) for owner in shares}, rate)
    assert all(living(claim, now_ms) for claim in claims.values())


def test_the_test_would_notice_a_gap_that_is_too_short(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given what is given up is free for others at once, then the fleet above is caught exceeding the rate
    monkeypatch.setattr("ratelimit.shares.GAP_MS", 0)
    with pytest.raises(AssertionError):
        _exceed()


def _exceed() -> None:
    fleet = Fleet()
    fleet.begin(100)
    for _ in range(2):
        fleet.starts()
    for which in (0, 0, 1):
        fleet.claims_anew(which, 100, 1)
        fleet.hears(which)
        fleet.time_passes(100)
    for which in (0, 0, 1):
        fleet.claims_anew(which, 100, 1)
        fleet.hears(which)
    fleet.time_passes(100)
    fleet.no_second_holds_more_than_the_rate()
