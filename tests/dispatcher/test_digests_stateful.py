"""Digests against a model of lists: random folding, reversals, takings, deaths and repeats lose no member."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dispatcher.digests import as_event
from dispatcher.events import Accepted
from dispatcher.ledger.api import Decisions, Draft
from dispatcher.ledger.digests import DueDigest
from dispatcher.ledger.worker import InlineLedger
from dispatcher.model.recipient import Recipient
from ratelimit.rules import Fold
from tests.dispatcher.ledger_kit import NOW, accepted, in_halves, recipient

EXAMPLES, STEPS = (1000, 60) if os.environ.get("SWIPEBELL_HYPOTHESIS") == "deep" else (25, 25)
ROLES = {"A": ("primary",), "B": ("primary", "second")}
RULES = ("evening", "hourly")
LEASE_MS = 10**9
ALL = 10_000
LATEST = 6
"""Events of which one is taken back: of older ones the digests have left."""

Key = tuple[str, str, str]
some = st.integers(0, 2**16)


class Open:
    """A digest as the model has it: its members by alert are (event, amount)."""

    def __init__(self, due: int) -> None:
        self.due = due
        self.members: list[tuple[str, int]] = []


class DigestMachine(RuleBasedStateMachine):
    """Members are never lost and never in two digests, and each digest's event says what they were."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = InlineLedger()
        self.now = NOW
        self.open: dict[Key, Open] = {}
        self.fixed: list[tuple[Key, list[tuple[str, int]]]] = []
        self.removed = 0
        self.amounts: dict[str, tuple[str, int]] = {}
        self.reversed: set[str] = set()
        self.in_hand: dict[int, dict[int, DueDigest]] = {}
        self.told: dict[int, DueDigest] = {}
        self.closed: set[int] = set()

    def teardown(self) -> None:
        self.ledger.store.close()

    def _ask(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return trio.run(call, *arguments)

    def _owner(self, which: int) -> int:
        owners = list(self.in_hand)
        return owners[which % len(owners)]

    def _start(self) -> None:
        self.in_hand[self._ask(self.ledger.register, "x", self.now, self.now + LEASE_MS)] = {}

    @initialize()
    def begin(self) -> None:
        lines = [recipient(account, role) for account, roles in ROLES.items() for role in roles]
        self._ask(self.ledger.import_recipients, lines)
        self._start()
        self._start()

    # ---- alerts are folded, and taken back ------------------------------------------------------------------------

    @rule(
        accounts=st.lists(st.sampled_from("AB"), min_size=1, max_size=8),
        amount=st.integers(-5, 50),
        which=st.sampled_from(RULES),
        count=st.sampled_from([None, 1, 3]),
        after=st.integers(0, 9),
        owner=some,
    )
    def fold(self, accounts: list[str], amount: int, which: str, count: int | None, after: int, owner: int) -> None:
        batch = []
        for account in accounts:
            event = accepted(f"e-{len(self.amounts)}", account=account, amount=amount)
            self.amounts[event.event.id] = account, amount
            batch.append(event)
            for role in ROLES[account]:
                digest = self.open.setdefault((account, role, which), Open(self.now + after))
                digest.members.append((event.event.id, amount))
                if count is not None and len(digest.members) >= count:
                    self._fix((account, role, which))
        self._admit(batch, owner, Fold(which, self.now + after, count))

    @rule(which=some, owner=some)
    def take_back(self, which: int, owner: int) -> None:
        left = [event for event, (_, amount) in self.amounts.items() if amount and event not in self.reversed]
        if not left:
            return
        event = left[-1 - which % min(len(left), LATEST)]
        account, amount = self.amounts[event]
        self.reversed.add(event)
        for digest in self.open.values():
            before = len(digest.members)
            digest.members = [member for member in digest.members if member[0] != event]
            self.removed += before - len(digest.members)
        self._admit(
            [accepted(f"r-{event}", account=account, type="reversal", refers_to=event, amount=-amount)], owner, None
        )

    @rule(ms=st.integers(0, 4))
    def wait(self, ms: int) -> None:
        self.now += ms

    # ---- digests leave --------------------------------------------------------------------------------------------

    @rule(owner=some, as_far_as=st.sampled_from(["taken", "told", "closed", "closed"]))
    def let_leave(self, owner: int, as_far_as: str) -> None:
        who = self._owner(owner)
        self._take(who)
        if as_far_as != "taken":
            self._tell(who)
        if as_far_as == "closed":
            self._close(who)

    def _take(self, who: int) -> None:
        due = self._ask(self.ledger.take_digests, self.now, who, ALL)
        for key in [key for key, digest in self.open.items() if digest.due <= self.now]:
            self._fix(key)
        for one in due:
            others = [hand for other, hand in self.in_hand.items() if other != who]
            assert all(one.id not in hand for hand in others), "another process has it"
            assert one.id not in self.closed
            assert self.told.get(one.id, one) == one, "the same facts again"
            self.in_hand[who][one.id] = one

    def _tell(self, who: int) -> None:
        events = [as_event(one, self.now) for one in self.in_hand[who].values()]
        if events:
            admission = self._ask(self.ledger.admit, events, self.now, who, self._decide(None))
            assert admission.accepted == sum(one.id not in self.told for one in self.in_hand[who].values())
            self.told.update(self.in_hand[who])

    def _close(self, who: int) -> None:
        hand = self.in_hand[who]
        closed = self._ask(self.ledger.digests_sent, list(hand))
        known = {digest for digest in hand if digest in self.told}
        assert closed == len(known)
        self.closed |= known
        for digest in known:
            del hand[digest]

    @rule(owner=some)
    def die(self, owner: int) -> None:
        who = self._owner(owner)
        self._ask(self.ledger.leave, who, self.now)
        del self.in_hand[who]
        self._start()

    def _fix(self, key: Key) -> None:
        digest = self.open.pop(key)
        if digest.members:
            self.fixed.append((key, digest.members))

    def _admit(self, batch: list[Accepted], owner: int, fold: Fold | None) -> None:
        self._ask(self.ledger.admit, batch, self.now, self._owner(owner), self._decide(fold))

    @staticmethod
    def _decide(fold: Fold | None) -> Any:
        @in_halves
        def decide(batch: Any, recipients: Any, now_ms: int, counted: Any) -> Decisions:
            return Decisions([[_draft(one, fold) for one in recipients[event.event.account]] for event in batch], {})

        return decide

    # ---- what holds at any moment ---------------------------------------------------------------------------------

    @invariant()
    def no_member_is_lost(self) -> None:
        books = self._ask(self.ledger.books)
        assert books.balanced
        folded = sum(len(digest.members) for digest in self.open.values())
        folded += sum(len(members) for _, members in self.fixed)
        assert (books.digests.folded, books.digests.removed) == (folded, self.removed)
        assert books.digests.states.get("sent", 0) == len(self.closed)

    @invariant()
    def what_is_told_is_what_was_folded(self) -> None:
        said = Counter(
            (one.account, one.role, one.rule, one.count, one.amounts["GBP"])
            for one in {
                **self.told,
                **{digest: one for hand in self.in_hand.values() for digest, one in hand.items()},
            }.values()
        )
        fixed = Counter((*key, len(members), sum(amount for _, amount in members)) for key, members in self.fixed)
        assert said <= fixed


def _draft(to: Recipient, fold: Fold | None) -> Draft:
    if fold is None:
        return Draft(to, "suppressed", "another", (), NOW, "swipe@1")
    return Draft(to, "suppressed", fold.rule, (), NOW, "swipe@1", fold=fold)


DigestMachine.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None)
test_no_member_is_lost = DigestMachine.TestCase
