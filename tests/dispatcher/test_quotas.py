"""The fleet's daily quota: the count, the reserve, midnight, and what no sequence of events may break."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dispatcher.ledger.api import Ledger
from dispatcher.ledger.quotas import (
    FIRST_READING_MS,
    HOLDER_TTL_MS,
    MAX_HOLDERS,
    PERMIT_LIFE_MS,
    READ_AGAIN_MS,
    READ_EVERY_MS,
    QuotaRow,
    QuotaTerms,
    Report,
    Standing,
    reading,
    spent,
    take,
    told,
)
from tests.dispatcher.wechat_kit import EVENING_MS as NOW

MIDNIGHT_MS = NOW + 2 * 3_600_000
LIMIT = 1_000


def terms(limit: int = LIMIT, percent: int = 10) -> QuotaTerms:
    return QuotaTerms(limit, percent, lambda standing: 0)


def wanting(holder: str = "a", ordinary: int = 256, **more: int) -> Report:
    return Report(holder=holder, ordinary=ordinary, **more)


def drained(row: QuotaRow, holder: str, *, reserved: bool = False) -> tuple[QuotaRow, int]:
    """All permits that one process can get."""
    got = 0
    while True:
        report = Report(holder=holder, reserved=256) if reserved else wanting(holder)
        row, view = take(row, report, terms(), NOW)
        if not view.ordinary + view.reserved:
            return row, got
        got += view.ordinary + view.reserved


# ---- permits ------------------------------------------------------------------------------------------------------


def test_ordinary_alerts_stop_at_the_reserve_and_reserved_ones_go_on_to_the_last() -> None:
    row, ordinary = drained(QuotaRow(), "a")
    assert ordinary == 900
    row, reserved = drained(row, "b", reserved=True)
    assert (reserved, row.held) == (100, LIMIT)


def test_no_process_takes_all_of_what_is_left() -> None:
    row, first = take(QuotaRow(), wanting("a", 10_000), terms(), NOW)
    _, second = take(row, wanting("b", 10_000), terms(), NOW)
    assert (first.ordinary, second.ordinary) == (225, 169)


def test_what_is_used_stays_used_and_what_is_given_back_is_there_again() -> None:
    row, view = take(QuotaRow(), wanting(), terms(), NOW)
    row, view = take(row, Report("a", used=100, back=view.ordinary - 100), terms(), NOW)
    assert (row.used, row.held, view.remaining) == (100, 0, 900)


def test_more_than_was_given_out_is_never_taken_back() -> None:
    row, _ = take(QuotaRow(), wanting("a", 10), terms(), NOW)
    row, _ = take(row, Report("a", used=10**6, back=10**6), terms(), NOW)
    assert (row.used, row.held) == (10, 0)


def test_what_a_dead_process_held_counts_as_used() -> None:
    row, _ = take(QuotaRow(), wanting("dead", 100), terms(), NOW)
    row, _ = take(row, wanting("b", 0), terms(), NOW + HOLDER_TTL_MS - 1)
    assert (row.used, row.held) == (0, 100)
    row, _ = take(row, wanting("b", 0), terms(), NOW + HOLDER_TTL_MS)
    assert (row.used, row.held) == (100, 0)
    # And when it was only asleep, its report is not counted again
    row, _ = take(row, Report("dead", used=40, back=60), terms(), NOW + HOLDER_TTL_MS + 1)
    assert (row.used, row.held) == (100, 0)


def test_more_processes_than_a_row_can_hold_get_nothing() -> None:
    row = QuotaRow()
    for number in range(MAX_HOLDERS):
        row, _ = take(row, wanting(f"p{number}", 1), terms(10**6), NOW)
    row, view = take(row, wanting("one more", 1), terms(10**6), NOW)
    assert (view.ordinary, len(row.holders)) == (0, MAX_HOLDERS)


# ---- the provider's word ------------------------------------------------------------------------------------------


def test_their_count_goes_before_ours_when_others_use_the_account_too() -> None:
    # Given 100 that we used, when WeChat says 700
    row, _ = take(QuotaRow(limit=LIMIT), wanting("a", 100), terms(), NOW)
    row, _ = take(row, Report("a", used=100), terms(), NOW)
    row, counted = reading(row, NOW, False)
    assert counted == 100
    # And 20 more are used before its answer is written down
    row, _ = take(row, wanting("a", 20), terms(), NOW)
    row, _ = take(row, Report("a", used=20), terms(), NOW)
    row = told(row, counted, 700, 5_000, NOW)
    # Then both are counted
    assert (row.used, row.limit) == (720, 5_000)


def test_their_count_goes_before_ours_when_it_is_lower() -> None:
    row = QuotaRow(day=0)
    row, _ = take(row, wanting("a", 200), terms(), NOW)
    row, _ = take(row, Report("a", used=200), terms(), NOW)
    row, counted = reading(row, NOW, False)
    assert counted is not None
    assert told(row, counted, 0, LIMIT, NOW).used == 0  # somebody cleared the quota


def test_a_reading_is_for_one_process_and_not_too_often() -> None:
    row, counted = reading(QuotaRow(), NOW, False)
    assert counted == 0
    assert reading(row, NOW, False)[1] is None
    assert reading(row, NOW + READ_EVERY_MS - 1, False)[1] is None
    assert reading(row, NOW + READ_EVERY_MS, False)[1] == 0
    # Right after a 45009 sooner, but not for each of them
    assert reading(row, NOW + READ_AGAIN_MS - 1, True)[1] is None
    assert reading(row, NOW + READ_AGAIN_MS, True)[1] == 0
    # Nor by one whose clock was read just before; but a clock that was set back does not stop it for ever
    assert reading(row, NOW - 50, False)[1] is None
    assert reading(row, NOW - READ_EVERY_MS, False)[1] == 0


def test_the_first_reading_is_waited_for_and_not_for_ever() -> None:
    # Given a process that has just asked WeChat for the first time
    row, counted = reading(QuotaRow(), NOW, False)
    assert counted == 0
    # When another wants permits, then it has to wait, but no longer than a call takes
    _, view = take(row, wanting(), terms(), NOW + FIRST_READING_MS - 1)
    assert (view.ordinary, view.pending) == (0, True)
    _, view = take(row, wanting(), terms(), NOW + FIRST_READING_MS)
    assert (view.ordinary, view.pending) == (225, False)
    # And when nothing could be read, the configured limit holds at once
    _, view = take(told(row, counted, 0, 0, NOW), wanting(), terms(), NOW)
    assert (view.ordinary, view.pending, view.limit) == (225, False, LIMIT)


def test_a_spent_quota_gives_nothing_until_they_say_so_or_the_day_is_over() -> None:
    row = spent(QuotaRow(), NOW)
    row, view = take(row, wanting(reserved=5), terms(), MIDNIGHT_MS - 1)
    assert (view.ordinary, view.reserved, view.remaining, view.spent) == (0, 0, 0, True)
    _, tomorrow = take(row, wanting(), terms(), MIDNIGHT_MS)
    assert (tomorrow.ordinary, tomorrow.spent) == (225, False)
    row, counted = reading(row, MIDNIGHT_MS - 1, False)
    assert counted is not None
    assert take(told(row, counted, LIMIT, LIMIT, MIDNIGHT_MS - 1), wanting(), terms(), MIDNIGHT_MS - 1)[1].ordinary == 0
    assert take(told(row, counted, 400, LIMIT, MIDNIGHT_MS - 1), wanting(), terms(), MIDNIGHT_MS - 1)[1].ordinary > 0


# ---- midnight -----------------------------------------------------------------------------------------------------


def test_at_midnight_in_china_all_starts_anew_but_what_is_held_and_the_limit() -> None:
    row, _ = take(QuotaRow(limit=2_000), wanting("a", 300, diverted=40), terms(), MIDNIGHT_MS - 10)
    row, _ = take(row, Report("a", used=100), terms(), MIDNIGHT_MS - 1)
    assert row.used == 100
    row, view = take(row, Report("a", used=50), terms(), MIDNIGHT_MS)
    # Then of the 200 it still held 50 were used on the new day
    assert (row.used, row.held, row.diverted, row.yesterday, view.limit) == (50, 150, 0, 140, 2_000)


def test_a_clock_that_goes_back_does_not_bring_yesterday_back() -> None:
    row, _ = take(QuotaRow(), wanting("a", 100), terms(), MIDNIGHT_MS)
    row, _ = take(row, Report("a", used=100), terms(), MIDNIGHT_MS - 5)
    assert row.used == 100


def test_an_answer_from_before_midnight_says_nothing_about_the_new_day() -> None:
    row, counted = reading(QuotaRow(), MIDNIGHT_MS - 50, False)
    assert counted is not None
    assert told(row, counted, 990, LIMIT, MIDNIGHT_MS + 50).used == 0
    row, _ = take(row, wanting(), terms(), MIDNIGHT_MS)
    assert told(row, counted, 990, LIMIT, MIDNIGHT_MS + 50).used == 0


def test_the_ladder_hears_how_the_account_stands() -> None:
    heard: list[Standing] = []

    def judge(standing: Standing) -> int:
        heard.append(standing)
        return 2

    row, view = take(QuotaRow(), wanting("a", 100, diverted=7), QuotaTerms(LIMIT, 10, judge), NOW)
    assert view.level == 2
    take(row, Report("a", used=60), QuotaTerms(LIMIT, 10, judge), NOW)
    assert heard == [Standing(900, 7, 0, 0, NOW), Standing(840, 67, 0, 2, NOW)]


# ---- whatever happens ---------------------------------------------------------------------------------------------


class Fleet(RuleBasedStateMachine):
    """Processes that take, use, report, sleep and die; a provider that counts, and somebody else on the account."""

    def __init__(self) -> None:
        super().__init__()
        self.row = QuotaRow(limit=LIMIT)
        self.now = NOW
        self.pools = {name: [0, 0] for name in "abc"}  # permits in hand, used and not yet reported
        self.heard = dict.fromkeys("abc", 0)
        self.provider = 0

    def stale(self, name: str) -> bool:
        """Whether the process has slept too long to use what it holds."""
        return self.now - self.heard[name] > PERMIT_LIFE_MS

    processes = st.sampled_from("abc")

    @rule(name=processes, want=st.integers(0, 400), reserved=st.integers(0, 60))
    def ask(self, name: str, want: int, reserved: int) -> None:
        pool = self.pools[name]
        if self.stale(name):
            pool[0] = 0
        self.heard[name] = self.now
        report = Report(name, used=pool[1], ordinary=want, reserved=reserved)
        self.row, view = take(self.row, report, terms(), self.now)
        pool[0] += view.ordinary + view.reserved
        pool[1] = 0

    @rule(name=processes, count=st.integers(1, 300))
    def use(self, name: str, count: int) -> None:
        pool = self.pools[name]
        count = 0 if self.stale(name) else min(count, pool[0])
        pool[0] -= count
        pool[1] += count
        self.provider += count

    @rule(name=processes)
    def give_back(self, name: str) -> None:
        pool = self.pools[name]
        self.row, _ = take(self.row, Report(name, used=pool[1], back=pool[0]), terms(), self.now)
        self.pools[name] = [0, 0]

    @rule(name=processes)
    def die(self, name: str) -> None:
        self.pools[name] = [0, 0]

    @rule(seconds=st.integers(1, 100))
    def sleep(self, seconds: int) -> None:
        self.now += seconds * 1000

    @precondition(lambda self: self.provider < LIMIT)
    @rule()
    def read(self) -> None:
        self.row, counted = reading(self.row, self.now, True)
        if counted is not None:
            self.row = told(self.row, counted, self.provider, LIMIT, self.now)

    @invariant()
    def the_limit_is_never_exceeded(self) -> None:
        assert self.provider <= LIMIT
        usable = sum(pool[0] for name, pool in self.pools.items() if not self.stale(name))
        assert self.provider + usable <= LIMIT


Fleet.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestFleet = Fleet.TestCase


# ---- every backend ------------------------------------------------------------------------------------------------


async def test_a_ledger_counts_for_all_who_ask(ledger: Ledger) -> None:
    first = await ledger.quota_take("wechat/x", wanting("a", 100), terms(), NOW)
    second = await ledger.quota_take("wechat/x", wanting("b", 100), terms(), NOW)
    assert (first.ordinary, second.ordinary) == (100, 100)
    view = await ledger.quota_take("wechat/x", Report("a", used=60, back=40), terms(), NOW)
    assert (view.used, view.remaining) == (60, 940)
    # And accounts are apart
    assert (await ledger.quota_take("wechat/y", Report("a"), terms(), NOW)).used == 0
    counted = await ledger.quota_reading("wechat/x", NOW, False)
    assert counted == 60
    assert await ledger.quota_reading("wechat/x", NOW, False) is None
    await ledger.quota_told("wechat/x", counted, 500, 2_000, NOW)
    view = await ledger.quota_take("wechat/x", Report("a"), terms(), NOW)
    assert (view.used, view.limit, view.spent) == (500, 2_000, False)
    await ledger.quota_spent("wechat/x", NOW)
    assert (await ledger.quota_take("wechat/x", wanting("a"), terms(), NOW)).ordinary == 0


async def test_a_ledger_leases_the_fetch_of_a_token_to_one(ledger: Ledger) -> None:
    first = await ledger.token_ask("wechat/x", None, NOW)
    second = await ledger.token_ask("wechat/x", None, NOW)
    assert (first.what, second.what) == ("fetch", "wait")
    row = await ledger.token_fetched("wechat/x", first.row.lease, b"sealed", NOW + 9_000, NOW + 8_000, NOW)
    assert (row.generation, row.sealed) == (1, b"sealed")
    assert (await ledger.token_ask("wechat/x", None, NOW)).what == "use"
    again = await ledger.token_ask("wechat/x", 1, NOW)
    assert again.what == "fetch"
    assert await ledger.token_force("wechat/x", again.row.lease, NOW)
    assert not await ledger.token_force("wechat/x", again.row.lease, NOW)
    await ledger.token_failed("wechat/x", again.row.lease, NOW + 500, "why", True)
    trouble = await ledger.token_ask("wechat/x", 1, NOW)
    assert (trouble.what, trouble.row.trouble, trouble.row.misconfigured) == ("trouble", "why", True)
    assert (await ledger.token_ask("wechat/x", 1, NOW + 500)).what == "fetch"
    assert "sealed" not in repr(trouble)
