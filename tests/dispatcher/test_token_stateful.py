"""Whatever processes do in whatever order: one fetch at a time, one new token for each that died, never a dead one
called good."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dispatcher.ledger import tokens
from dispatcher.ledger.tokens import FETCH_LEASE_MS, FORCED_PER_DAY, FORCED_SPACING_MS, TokenRow

NAMES = st.sampled_from("abcd")
LIFE_MS = 7_200_000


class Fleet(RuleBasedStateMachine):
    """Processes that ask, fetch, fail and die at any moment, and a platform that ends tokens.

    ``fetching`` holds who was told to fetch: its lease, when it was given, and the generation that it replaces.
    """

    def __init__(self) -> None:
        super().__init__()
        self.row = TokenRow()
        self.now = 10**12
        self.knows: dict[str, int] = {}
        self.fetching: dict[str, tuple[int, int]] = {}
        self.dead: set[int] = set()
        self.issued = 0
        self.forced: list[int] = []

    @rule(name=NAMES, late=st.integers(0, 400))
    def ask(self, name: str, late: int) -> None:
        """``late``: how long before its turn the process read its clock."""
        known = self.knows.get(name, 0)
        failed = known if known in self.dead else None
        before = self.row
        self.row, answer = tokens.ask(self.row, failed, self.now - late)
        if answer.what == "fetch":
            holders = [one for one in self.fetching.values() if one[0] == before.lease and before.lease_until > 0]
            # Only when nobody fetches, or the one who did has run out of time
            assert not [given for _, given in holders if self.now - late < given + FETCH_LEASE_MS - 400]
            self.fetching[name] = self.row.lease, self.now
        elif answer.what == "use":
            assert answer.row.generation not in self.refused_generations()
            self.knows[name] = answer.row.generation

    def refused_generations(self) -> set[int]:
        return {self.row.generation} if self.row.refused else set()

    @rule(name=NAMES)
    def fetch(self, name: str) -> None:
        if name not in self.fetching:
            return
        lease, _ = self.fetching.pop(name)
        before = self.row
        self.row = tokens.fetched(self.row, lease, b"t", self.now + LIFE_MS, self.now + LIFE_MS - 200_000, self.now)
        if tokens.holds(before, lease):
            self.issued += 1
            # A token that was good was not replaced
            assert before.generation in self.dead | {0} or self.now >= before.renew_at
            self.knows[name] = self.row.generation
        else:
            assert self.row == before

    @rule(name=NAMES)
    def fail(self, name: str) -> None:
        if name in self.fetching:
            self.row = tokens.failed(self.row, self.fetching.pop(name)[0], self.now + 1_000, "HTTP 502", False)

    @rule(name=NAMES)
    def force(self, name: str) -> None:
        if name in self.fetching:
            lease, _ = self.fetching[name]
            self.row, allowed = tokens.force(self.row, lease, self.now)
            if allowed:
                self.fetching[name] = lease, self.now
                self.forced.append(self.now)

    @rule(name=NAMES)
    def die(self, name: str) -> None:
        self.fetching.pop(name, None)
        self.knows.pop(name, None)

    @rule()
    def token_dies(self) -> None:
        self.dead.add(self.row.generation)

    @rule(seconds=st.sampled_from([1, 5, 30, 400, 7_000]))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds * 1000

    @invariant()
    def one_generation_for_each_token(self) -> None:
        assert self.row.generation == self.issued

    @invariant()
    def forced_within_their_limits(self) -> None:
        assert all(
            second - first >= FORCED_SPACING_MS for first, second in zip(self.forced, self.forced[1:], strict=False)
        )
        assert len(self.forced) <= FORCED_PER_DAY * 2  # a run may see one midnight

    @invariant()
    def somebody_can_always_get_on(self) -> None:
        """However it stands, after the lease and the pause there is a token to use or somebody who fetches."""
        later = max(self.now, self.row.lease_until, self.row.retry_at)
        failed = self.row.generation if self.row.generation in self.dead else None
        assert tokens.ask(self.row, failed, later)[1].what in ("use", "fetch")


Fleet.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestFleet = Fleet.TestCase
