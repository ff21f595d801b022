"""The ledger: what every backend must do, in a few batch operations.

Everything that the promise rests on goes through here: an event is acknowledged after ``admit`` returned, an outcome
is known after ``record`` returned. Each call is one unit: it commits whole or not at all, and when it raises nothing
of it is in the ledger. A call that was handed over is seen through even when its task is cancelled meanwhile
(callers shield it), because a commit cannot be taken back.

The conformance tests in ``tests/dispatcher/test_ledger_conformance.py`` say what a backend has to keep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from dispatcher.events import Accepted
from dispatcher.ledger.digests import DigestBooks, DueDigest
from dispatcher.ledger.held import HeldView
from dispatcher.ledger.quotas import QuotaTerms, QuotaView, Report
from dispatcher.ledger.rule_changes import RuleAct, RuleChange
from dispatcher.ledger.stories import EventStory
from dispatcher.ledger.template_changes import (
    Offered,
    TemplateAct,
    TemplateHistory,
    TemplatesInUse,
    TemplateText,
    TemplateVersion,
)
from dispatcher.ledger.tokens import TokenAnswer, TokenRow
from dispatcher.model.alert import Alert, State, Step
from dispatcher.model.consent import ConsentChange, Consented, ConsentEntry
from dispatcher.model.heard import Heard
from dispatcher.model.recipient import Recipient, RecipientLine
from ratelimit.decision import DayTotal, Fold


class Draft(msgspec.Struct, frozen=True, gc=False):
    """What the send rules decided for one recipient of one event, before it has a row.

    ``state`` is ``sending`` (or ``queued`` for a channel that is fenced), ``held``, ``suppressed`` or ``expired``.
    ``reason`` is the rule that decided when it is held or ended at once; ``due_ms`` is until when it is held (at
    ``expires_ms`` a person has to release it). ``fold`` of a suppressed one is the digest that tells it.
    ``recipient`` None means that the account has nobody to tell.
    """

    recipient: Recipient | None
    state: State
    reason: str | None
    route: tuple[str, ...]
    expires_ms: int
    template: str
    saw: Mapping[str, int] | None = None
    day_total: int | None = None
    due_ms: int | None = None
    fold: Fold | None = None


class Noted(msgspec.Struct, frozen=True):
    """What the rules did in a batch beside ending alerts, for the metrics: how many alerts a storm rule held and how
    many were folded into a digest, by rule, and how many are for a recipient whose time zone is not known."""

    storms: dict[str, int] = {}
    folded: dict[str, int] = {}
    wrong_zones: int = 0


class Decisions(msgspec.Struct, frozen=True):
    """Decisions of a batch: ``drafts[i]`` belong to the i-th event; ``counters`` maps a key to (value, keep until),
    ``totals`` the key of a day's total to (minor units, events, keep until), ``marks`` a key to (moments in epoch ms,
    ascending, and until when to keep them). A kind (all of a key up to its last bar) has only one of the three.
    ``ruleset`` is the version of the rules that decided all of them, which `Ledger.ruleset` was told before."""

    drafts: list[list[Draft]]
    counters: dict[str, tuple[int, int]]
    marks: dict[str, tuple[tuple[int, ...], int]] = {}
    ruleset: str = ""
    noted: Noted = Noted()
    totals: dict[str, tuple[int, int, int]] = {}


class Counted(Protocol):
    """What the ledger has counted by the moment of a decision. One that does not exist is not in the answer."""

    def counters(self, keys: Sequence[str]) -> Mapping[str, int]:
        """The values of counters, by key."""

    def totals(self, keys: Sequence[str]) -> Mapping[str, DayTotal]:
        """Day totals, by key."""

    def marks(self, keys: Sequence[str]) -> Mapping[str, Sequence[int]]:
        """The moments that are remembered, by key: epoch ms, ascending."""


Decide = Callable[[Sequence[Accepted], Mapping[str, Sequence[Recipient]], int], Callable[[Counted], Decisions]]
"""(new events, recipients by account, now in epoch ms) -> (what was counted) -> decisions. Pure but for the reader.

The first half is asked before the transaction where it can be, and again inside it when the recipients have changed
meanwhile; the second is called inside, so that nothing counted can change between decision and commit."""


class Admission(msgspec.Struct, frozen=True):
    """What became of a batch. ``duplicates`` and ``conflicts`` are positions in it.

    ``alerts`` are open and leased to the caller, ``ended`` counts (state, reason) of those that ended at once, ``held``
    those that are held, by rule. ``noted`` is what came with the decisions.
    """

    accepted: int
    duplicates: list[int]
    conflicts: list[int]
    alerts: list[Alert]
    ended: dict[tuple[State, str], int]
    held: dict[str, int] = {}
    noted: Noted = Noted()


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """A provider's last word about a message. ``status``: ``delivered`` or ``failed:<why>``."""

    channel: str
    msgid: str
    status: str


class Books(msgspec.Struct, frozen=True):
    """The ledger's totals. ``without_alert`` counts accepted events that have no alert, ``inconsistent``
    alerts whose state does not fit their end; both must be 0. ``known_doubles`` are alerts that arrived by an earlier
    channel after they had gone on to the next one and rung there."""

    events: int
    recipients: int
    states: dict[State, int]
    suppressed_by: dict[str, int]
    failed_by: dict[str, int]
    unknown_attempts: int
    attempts: dict[str, int]
    without_alert: int
    inconsistent: int = 0
    known_doubles: int = 0
    digests: DigestBooks = DigestBooks()

    @property
    def open(self) -> int:
        """Alerts that have not ended."""
        return sum(n for state, n in self.states.items() if state in OPEN_STATES)

    @property
    def balanced(self) -> bool:
        """Every accepted event has its alerts, every alert is open or has one end, and every folded one its digest.

        That an open one is held or will be looked at needs no counting: a backend's table takes no other.
        """
        return self.without_alert == 0 and self.inconsistent == 0 and self.digests.faults == 0


OPEN_STATES: frozenset[State] = frozenset({"held", "queued", "sending", "retrying", "awaiting", "interrupted"})


class RateAsk(msgspec.Struct, frozen=True, gc=False):
    """What a process asks of one rate (permits a second). ``want`` is what it could use, ``using`` what it has confined
    itself to by now, ``expected`` how many processes there will soon be at least."""

    name: str
    rate: int
    want: int
    using: int
    expected: int = 1


class RateShare(msgspec.Struct, frozen=True, gc=False):
    """The answer: ``share`` may be used until ``until_ms`` of the steady clock. A ``fair`` part below it means that
    others want some of it: confine yourself to that, then say so."""

    share: int
    until_ms: int
    fair: int


class Imported(msgspec.Struct, frozen=True):
    """What ``import_recipients`` did. ``too_many`` are positions whose account has no room for one more.

    ``older_consents`` counts consents that changed nothing because a later word holds; ``too_many_consents`` are
    positions whose recipient would have more of them than a card takes.
    """

    added: int
    changed: int
    same: int
    too_many: list[int] = []
    older_consents: int = 0
    too_many_consents: list[int] = []


class Ledger(Protocol):
    """A durable ledger, shared by every process of a fleet. All times are epoch milliseconds.

    Every operation may raise `LedgerUnavailable` (it may pass; the same call may be made again) or `LedgerFailed` (it
    does not pass; every later call raises it too). Those that lease to ``owner`` raise `LeaseLost` once it was taken
    over or has left: nobody would ever free what it then held.
    """

    async def register(self, name: str, now_ms: int, alive_until_ms: int) -> int:
        """Enter this process; returns its owner number. Leases of that owner hold until ``alive_until_ms``."""

    async def heartbeat(self, owner: int, alive_until_ms: int) -> bool:
        """Prolong the leases of ``owner``; False when they were taken over: it must stop sending at once."""

    async def leave(self, owner: int, now_ms: int) -> None:
        """Give back what ``owner`` still holds and forget it. What may be on the wire becomes ``interrupted``."""

    async def take_over(self, owner: int, now_ms: int) -> int:
        """Free the alerts of owners that died; returns how many. Their possible attempts are marked ``unknown``."""

    async def admit(self, batch: Sequence[Accepted], now_ms: int, owner: int, decide: Decide) -> Admission:
        """Deduplicate, decide, count and record the intent to send, in one transaction.

        Raises what ``decide`` raises, and `ValueError` when it leaves an event without an alert.
        """

    async def fence(self, alert_ids: Sequence[int], owner: int) -> list[int]:
        """Write down that these queued alerts are about to leave; returns those that may not, because they were
        cancelled or taken over meanwhile, or seen on a channel before. Raises `LeaseLost`, and then none may leave."""

    async def record(self, steps: Sequence[Step], owner: int) -> list[Alert]:
        """Write down what happened, in order. Returns alerts whose receipt had already come, to be stepped again.

        A step that would ring on the next channel, or end without success, an alert whose success a provider has
        reported by now is not taken: the alert comes back, with that receipt.

        Steps of alerts that ``owner`` no longer holds change no state; their attempts are kept. An attempt that was
        already given up as ``unknown`` stays so (others have decided by it); its code becomes ``<outcome>:<code>``.
        """

    async def due(self, channel: str, now_ms: int, owner: int, limit: int, lease_as: State) -> list[Alert]:
        """Lease up to ``limit`` alerts of a channel that are due, those due for longest first.

        A retry and one that was held are leased as state ``lease_as``; one that waits for a receipt or for its policy
        keeps its state. All come back with the state they had.
        """

    async def receipts(self, receipts: Sequence[Receipt], now_ms: int, owner: int) -> list[tuple[Alert, Receipt]]:
        """Keep receipts; lease and return the awaiting alerts they belong to. Unknown and repeated ones are normal."""

    async def new_doubles(self, receipts: Sequence[Receipt]) -> int:
        """How many of these receipts, which were kept just now, say for the first time that a message arrived whose
        alert had gone on to another channel, where it rang or may have. Changes nothing."""

    async def take_digests(self, now_ms: int, owner: int, limit: int) -> list[DueDigest]:
        """Fix the members of up to ``limit`` digests that are due, and say what is to be told.

        A digest is given to one owner; to another only once that one has left or was taken over, and to the same one
        again until it is sent. Raises `LeaseLost`.
        """

    async def digests_sent(self, digests: Sequence[int]) -> int:
        """Say that these digests' events were admitted; returns how many that closes. One whose event is not in the
        ledger stays as it is."""

    async def open_count(self, held_until: int | None = None) -> int:
        """How many alerts have not ended, with the digests that take no more members and are about to be told. With
        ``held_until``, without the alerts that are held until later than that."""

    async def held(self, rule: str | None = None) -> HeldView:
        """What the rules (or this one) hold now, and what people did with it last."""

    async def release_held(self, rule: str, now_ms: int, who: str, up_to: int) -> int:
        """Let go of some alerts that ``rule`` holds until a person decides, up to the alert ``up_to``: they are due now
        and leave as their lanes let them. Returns how many, 0 when none is left. What goes by itself stays: it is
        counted in the time it was held until. Calls of the same moment by the same person are one act."""

    async def discard_held(self, rule: str, now_ms: int, who: str, up_to: int) -> int:
        """End some alerts that ``rule`` holds as ``cancelled``, reason ``discarded:<rule>``; else as `release_held`,
        but for those as well that would go by themselves."""

    async def books(self) -> Books:
        """The totals. Reads the whole ledger: seconds on a large one."""

    async def explain(self, event_id: str) -> EventStory | None:
        """The story of one event; None when the id was never accepted."""

    async def import_recipients(
        self, lines: Sequence[RecipientLine], now_ms: int | None = None, by: str = ""
    ) -> Imported:
        """Add or change recipients by (account, role). A changed address clears what was refused.

        Of consents the later word holds, whichever came first, and one that a line does not name stays. Every word is
        kept in the log with ``now_ms`` and ``by``; raises `ValueError` when there is one and ``now_ms`` is missing.
        """

    async def consent(self, changes: Sequence[ConsentChange], now_ms: int) -> Consented:
        """Keep what recipients agreed to or took back, and write every word into the log, older ones too.

        Idempotent, and in any order: the later word holds, and the log has each word once.
        """

    async def consents_of(self, account: str) -> list[ConsentEntry]:
        """Every word of the recipients of an account, in the order in which they were said."""

    async def heard(self, facts: Sequence[Heard], now_ms: int | None = None) -> int:
        """Keep what WeChat users did with every recipient of their openid; returns how many that changed.

        Idempotent, and in any order: of a follow and an unfollow the later one holds. Facts of somebody who is no
        recipient are normal and are not kept. Follows and unfollows are also written into the log of consents, with
        ``now_ms`` or else their own time as the time at which it was written down.
        """

    async def ruleset(self, version: str, content: str, now_ms: int) -> None:
        """Keep the text of rules before anything is decided by them, so that each decision can name its own."""

    async def rule_act(self, act: RuleAct) -> RuleChange:
        """Propose, approve, reject or activate rules; returns the change as it is now. See `rule_changes`, which says
        what each of them does. At most one change is active. Raises `ChangeRefused`."""

    async def rule_active(self, known: int) -> RuleChange | None:
        """The change whose rules are in force; None when there is none yet, or it is the one numbered ``known``."""

    async def rule_history(self, limit: int, version: str | None = None) -> list[RuleChange]:
        """The last changes, or those of one version; the latest act first."""

    async def templates_offered(self, versions: Sequence[Offered], now_ms: int) -> list[TemplateVersion]:
        """Write down what a library brings and let it be told as far as that needs nobody's approval; returns each
        version as it is now (see `template_changes`). One whose digest is another is not taken: it has two contents."""

    async def templates_in_use(self, known: int) -> TemplatesInUse | None:
        """The versions that are told; None when the last act is the one numbered ``known``."""

    async def template_texts(self, names: Sequence[str]) -> dict[str, TemplateText]:
        """What versions say, by their names (``swipe@2``); one that was never written down is not in the answer."""

    async def template_act(self, act: TemplateAct) -> TemplateVersion:
        """Approve, reject, roll out or roll back a version; returns it as it is now. Raises `ChangeRefused`."""

    async def template_history(
        self, limit: int, template: str | None = None, version: int | None = None
    ) -> TemplateHistory:
        """Versions and the last acts: all, those of a template, or those of one version."""

    async def file_ids(self) -> bool:
        """Do a piece of the work on event ids (file a block of recent ones, or merge some that were filed), if there is
        any; False when there is none.

        To be called now and then, at least three times as often as 32,768 events come; it takes some 25 ms.
        """

    async def forget_counters(self, now_ms: int) -> int:
        """Drop some of the counters whose time is over; returns how many, 0 when none is left."""

    async def share_rates(self, asks: Sequence[RateAsk], owner: int, steady_ms: Callable[[], int]) -> list[RateShare]:
        """Claim or renew this process's share of each rate; see `ratelimit.shares` for what is guaranteed.

        ``steady_ms`` is read in the ledger's turn; every process of the machine must read the same clock.
        """

    async def leave_rates(self, owner: int, steady_ms: Callable[[], int]) -> None:
        """Say that ``owner`` uses its shares no longer."""

    async def token_ask(self, account: str, failed: int | None, now_ms: int) -> TokenAnswer:
        """What a process that needs a token is to do (see `dispatcher.ledger.tokens`). ``failed`` is the generation
        that was refused. At most one process at a time is told to fetch."""

    async def token_fetched(
        self, account: str, lease: int, sealed: bytes | None, ends_at: int, renew_at: int, now_ms: int
    ) -> TokenRow:
        """The holder of ``lease`` has a new token (None: the same one); returns the row as it is now, which is
        another's when the lease had run out meanwhile."""

    async def token_failed(self, account: str, lease: int, retry_at: int, trouble: str, misconfigured: bool) -> None:
        """The holder of ``lease`` got no token; the lease is given back."""

    async def token_force(self, account: str, lease: int, now_ms: int) -> bool:
        """Whether the holder of ``lease`` may fetch with ``force_refresh``; counted for the fleet when it may."""

    async def quota_take(self, account: str, report: Report, terms: QuotaTerms, now_ms: int) -> QuotaView:
        """Report what was used of the day's quota and ask for permits (see `dispatcher.ledger.quotas`). What all
        processes have used and hold together never exceeds the limit."""

    async def quota_reading(self, account: str, now_ms: int, at_once: bool) -> int | None:
        """The right to ask the provider for the account's quota, for one process of the fleet at a time and not too
        often: the count to give back to `quota_told`. None: not now."""

    async def quota_told(self, account: str, counted: int, used: int, limit: int, now_ms: int) -> None:
        """The provider says that ``used`` of ``limit`` are used; ``counted`` is what `quota_reading` returned."""

    async def quota_spent(self, account: str, now_ms: int) -> None:
        """The provider says that the day's quota is used up, whatever we have counted."""

    async def aclose(self) -> None:
        """Finish what was handed over, then close. Call ``leave`` first; any call after it is an error."""
