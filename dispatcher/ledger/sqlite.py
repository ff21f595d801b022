"""The ledger on SQLite: the synchronous half, run by one thread that owns the connection (see ``worker``).

Methods run inside a transaction that the caller opened with ``begin`` and ends with ``commit``; several of them share
one (group commit). They hold no lock and keep nothing in memory that the file does not hold, because a commit may yet
fail; only the owners' locks are taken at once, and one too many does no harm, and the ids are told how it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dispatcher.errors import LeaseLost
from dispatcher.ledger import (
    sqlite_consents,
    sqlite_counters,
    sqlite_deliver,
    sqlite_digests,
    sqlite_fallback,
    sqlite_heard,
    sqlite_held,
    sqlite_marks,
    sqlite_quotas,
    sqlite_rates,
    sqlite_read,
    sqlite_recipients,
    sqlite_rules,
    sqlite_templates,
    sqlite_tokens,
)
from dispatcher.ledger.api import Admission, Books, Imported, RateAsk, RateShare, Receipt
from dispatcher.ledger.digests import DueDigest
from dispatcher.ledger.held import HeldView
from dispatcher.ledger.locks import OwnerLocks, WriterTurn
from dispatcher.ledger.quotas import QuotaTerms, QuotaView, Report
from dispatcher.ledger.rule_changes import RuleAct, RuleChange
from dispatcher.ledger.sqlite_admit import Admitting
from dispatcher.ledger.sqlite_ids import IdIndex
from dispatcher.ledger.sqlite_open import connect, explained
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
from dispatcher.model.recipient import RecipientLine

# What was with a dead owner: untouched, perhaps on the wire (an attempt of unknown outcome), or waiting for a word.
LOSE = (
    "INSERT OR IGNORE INTO attempts (alert, n, owner, channel, at, took, outcome, code)"
    " SELECT id, attempts + 1, owner, channel, :now, 0, 'unknown', 'process-died'"
    " FROM alerts WHERE owner=:owner AND ended_at IS NULL AND state='sending'"
)
FREE = (
    "UPDATE alerts SET attempts = attempts + (state='sending'),"
    " first_at = CASE state WHEN 'sending' THEN coalesce(first_at, :now) ELSE first_at END,"
    " state = CASE state WHEN 'sending' THEN 'interrupted' WHEN 'queued' THEN 'retrying' ELSE state END,"
    " owner=0, due_at=:now WHERE owner=:owner AND ended_at IS NULL"
)


class SqliteStore:
    """The operations of `Ledger`, synchronous, on one SQLite connection."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.connection = connect(path)
        try:
            self._locks = OwnerLocks(path)
            self.turn = WriterTurn(path)
        except BaseException:
            self.connection.close()
            raise
        self._swept = sqlite_marks.START
        self._ids = IdIndex()

    def begin(self, meanwhile: Callable[[], bool] = lambda: False) -> None:
        """Open a transaction; waits for other processes in their order, and calls ``meanwhile`` as long as it waits
        (see `WriterTurn.take`). Raises `LedgerUnavailable`."""
        self._ids.settle()
        self.turn.take(meanwhile)
        try:
            with explained(self.path):
                self.connection.execute("BEGIN IMMEDIATE")
        except BaseException:
            self.turn.give()
            raise

    def commit(self) -> None:
        """Commit and fsync. Raises `LedgerUnavailable` (disk full) or `LedgerFailed`; then nothing was written."""
        with explained(self.path):
            self.connection.execute("COMMIT")
        self._ids.committed()
        self.turn.give()

    def rollback(self) -> None:
        """Undo the open transaction, if there still is one."""
        try:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        finally:
            self._ids.rolled_back()
            self.turn.give()

    def close(self) -> None:
        """Close the file and let go of the owners' locks."""
        self.connection.close()
        self.turn.close()
        self._locks.close()

    # ---- processes and leases ---------------------------------------------------------------------------------

    def register(self, name: str, now_ms: int, alive_until_ms: int) -> int:
        """See `Ledger.register`."""
        row = self.connection.execute(
            "INSERT INTO processes (name, started_at, alive_until) VALUES (?,?,?) RETURNING id",
            (name, now_ms, alive_until_ms),
        ).fetchall()
        owner = int(row[0][0])
        self._ids.enter(self.connection)  # now, and not while the first event waits
        self._locks.hold(owner)
        return owner

    def heartbeat(self, owner: int, alive_until_ms: int) -> bool:
        """See `Ledger.heartbeat`."""
        statement = "UPDATE processes SET alive_until=? WHERE id=? AND alive_until>0"
        return self.connection.execute(statement, (alive_until_ms, owner)).rowcount == 1

    def leave(self, owner: int, now_ms: int) -> None:
        """See `Ledger.leave`."""
        self._free(owner, now_ms)
        self._locks.release(owner)

    def take_over(self, owner: int, now_ms: int) -> int:
        """See `Ledger.take_over`."""
        others = self.connection.execute(
            "SELECT id, alive_until FROM processes WHERE id <> ? AND alive_until > 0", (owner,)
        ).fetchall()
        return sum(
            self._free(other, now_ms)
            for other, alive_until in others
            if alive_until <= now_ms or self._locks.is_dead(other) is True
        )

    def _free(self, owner: int, now_ms: int) -> int:
        """Let go of an owner's alerts; what may have left with it gets an attempt of unknown outcome."""
        parameters = {"owner": owner, "now": now_ms}
        self.connection.execute(LOSE, parameters)
        freed = self.connection.execute(FREE, parameters).rowcount
        self.connection.execute("UPDATE processes SET alive_until=0 WHERE id=?", (owner,))
        return freed

    def _alive(self, owner: int) -> bool:
        query = "SELECT 1 FROM processes WHERE id=? AND alive_until>0"
        return bool(self.connection.execute(query, (owner,)).fetchall())

    def _must_be_alive(self, owner: int) -> None:
        # Nobody would ever free what an owner leases after it was taken over: the others have done with it.
        if not self._alive(owner):
            raise LeaseLost("another process took this one's alerts over (it did not answer in time); start it again")

    # ---- the path of one event --------------------------------------------------------------------------------

    def prepare(self, admitting: Admitting) -> None:
        """Do what can be done of an admission before its transaction begins."""
        admitting.prepare(self.connection, self._ids)

    def admit(self, admitting: Admitting) -> Admission:
        """See `Ledger.admit`."""
        self._must_be_alive(admitting.owner)
        return admitting.admit(self.connection, self._ids)

    def fence(self, alert_ids: Sequence[int], owner: int) -> list[int]:
        """See `Ledger.fence`."""
        self._must_be_alive(owner)
        return sqlite_deliver.fence(self.connection, alert_ids, owner)

    def record(self, steps: Sequence[Step], owner: int) -> list[Alert]:
        """See `Ledger.record`."""
        held = sqlite_deliver.record(self.connection, steps, owner)
        if not self._alive(owner):
            return []
        return sqlite_deliver.answered_already(self.connection, steps, owner, held)

    def due(self, channel: str, now_ms: int, owner: int, limit: int, lease_as: State) -> list[Alert]:
        """See `Ledger.due`."""
        self._must_be_alive(owner)
        return sqlite_deliver.due(self.connection, channel, now_ms, owner, limit, lease_as)

    def receipts(self, receipts: Sequence[Receipt], now_ms: int, owner: int) -> list[tuple[Alert, Receipt]]:
        """See `Ledger.receipts`."""
        self._must_be_alive(owner)
        return sqlite_deliver.receipts(self.connection, receipts, now_ms, owner)

    def new_doubles(self, receipts: Sequence[Receipt]) -> int:
        """See `Ledger.new_doubles`."""
        return sqlite_fallback.new_doubles(self.connection, receipts)

    # ---- digests ----------------------------------------------------------------------------------------------

    def take_digests(self, now_ms: int, owner: int, limit: int) -> list[DueDigest]:
        """See `Ledger.take_digests`."""
        self._must_be_alive(owner)
        return sqlite_digests.take(self.connection, now_ms, owner, limit)

    def digests_sent(self, digests: Sequence[int]) -> int:
        """See `Ledger.digests_sent`."""
        return sqlite_digests.sent(self.connection, self._ids, digests)

    # ---- looking, and what changes rarely ---------------------------------------------------------------------

    def open_count(self, held_until: int | None = None) -> int:
        """See `Ledger.open_count`."""
        return sqlite_read.open_count(self.connection, held_until)

    def held(self, rule: str | None = None) -> HeldView:
        """See `Ledger.held`."""
        return sqlite_held.held(self.connection, rule)

    def release_held(self, rule: str, now_ms: int, who: str, up_to: int) -> int:
        """See `Ledger.release_held`."""
        return sqlite_held.release(self.connection, rule, now_ms, who, up_to)

    def discard_held(self, rule: str, now_ms: int, who: str, up_to: int) -> int:
        """See `Ledger.discard_held`."""
        return sqlite_held.discard(self.connection, rule, now_ms, who, up_to)

    def books(self) -> Books:
        """See `Ledger.books`."""
        return sqlite_read.books(self.connection)

    def explain(self, event_id: str) -> EventStory | None:
        """See `Ledger.explain`."""
        return sqlite_read.explain(self.connection, event_id)

    def import_recipients(self, lines: Sequence[RecipientLine], now_ms: int | None = None, by: str = "") -> Imported:
        """See `Ledger.import_recipients`."""
        return sqlite_recipients.import_recipients(self.connection, lines, now_ms, by)

    def consent(self, changes: Sequence[ConsentChange], now_ms: int) -> Consented:
        """See `Ledger.consent`."""
        return sqlite_consents.consent(self.connection, changes, now_ms)

    def consents_of(self, account: str) -> list[ConsentEntry]:
        """See `Ledger.consents_of`."""
        return sqlite_consents.consents_of(self.connection, account)

    def heard(self, facts: Sequence[Heard], now_ms: int | None = None) -> int:
        """See `Ledger.heard`."""
        return sqlite_heard.heard(self.connection, facts, now_ms)

    def ruleset(self, version: str, content: str, now_ms: int) -> None:
        """See `Ledger.ruleset`."""
        sqlite_rules.keep_ruleset(self.connection, version, content, now_ms)

    def rule_act(self, act: RuleAct) -> RuleChange:
        """See `Ledger.rule_act`."""
        return sqlite_rules.act(self.connection, act)

    def rule_active(self, known: int) -> RuleChange | None:
        """See `Ledger.rule_active`."""
        return sqlite_rules.active(self.connection, known)

    def rule_history(self, limit: int, version: str | None = None) -> list[RuleChange]:
        """See `Ledger.rule_history`."""
        return sqlite_rules.history(self.connection, limit, version)

    def templates_offered(self, versions: Sequence[Offered], now_ms: int) -> list[TemplateVersion]:
        """See `Ledger.templates_offered`."""
        return sqlite_templates.offered(self.connection, versions, now_ms)

    def templates_in_use(self, known: int) -> TemplatesInUse | None:
        """See `Ledger.templates_in_use`."""
        return sqlite_templates.in_use(self.connection, known)

    def template_texts(self, names: Sequence[str]) -> dict[str, TemplateText]:
        """See `Ledger.template_texts`."""
        return sqlite_templates.texts(self.connection, names)

    def template_act(self, act: TemplateAct) -> TemplateVersion:
        """See `Ledger.template_act`."""
        return sqlite_templates.act(self.connection, act)

    def template_history(self, limit: int, template: str | None = None, version: int | None = None) -> TemplateHistory:
        """See `Ledger.template_history`."""
        return sqlite_templates.history(self.connection, limit, template, version)

    def load_ids(self) -> None:
        """Read the known ids, in a view of its own: nobody waits for it."""
        self.connection.execute("BEGIN")
        try:
            self._ids.load(self.connection)
        finally:
            self.connection.execute("ROLLBACK")
        self._ids.committed()

    @property
    def recent_ids(self) -> int:
        """See `IdIndex.recent`."""
        return self._ids.recent

    def file_ids(self) -> bool:
        """See `Ledger.file_ids`."""
        return self._ids.file(self.connection)

    def forget_counters(self, now_ms: int) -> int:
        """See `Ledger.forget_counters`."""
        forgotten = sqlite_counters.forget_counters(self.connection, now_ms)
        if forgotten:
            return forgotten
        # Where it had come to is only a hint: should this not be committed, the marks are met in the next round.
        forgotten, self._swept = sqlite_marks.forget_marks(self.connection, now_ms, self._swept)
        return forgotten

    # ---- the providers' rates ---------------------------------------------------------------------------------

    def share_rates(self, asks: Sequence[RateAsk], owner: int, steady_ms: Callable[[], int]) -> list[RateShare]:
        """See `Ledger.share_rates`."""
        return sqlite_rates.share_rates(self.connection, asks, owner, steady_ms)

    def leave_rates(self, owner: int, steady_ms: Callable[[], int]) -> None:
        """See `Ledger.leave_rates`."""
        sqlite_rates.leave_rates(self.connection, owner, steady_ms)

    # ---- what the fleet shares of a provider ------------------------------------------------------------------

    def token_ask(self, account: str, failed: int | None, now_ms: int) -> TokenAnswer:
        """See `Ledger.token_ask`."""
        return sqlite_tokens.ask(self.connection, account, failed, now_ms)

    def token_fetched(
        self, account: str, lease: int, sealed: bytes | None, ends_at: int, renew_at: int, now_ms: int
    ) -> TokenRow:
        """See `Ledger.token_fetched`."""
        return sqlite_tokens.fetched(self.connection, account, lease, sealed, ends_at, renew_at, now_ms)

    def token_failed(self, account: str, lease: int, retry_at: int, trouble: str, misconfigured: bool) -> None:
        """See `Ledger.token_failed`."""
        sqlite_tokens.failed(self.connection, account, lease, retry_at, trouble, misconfigured)

    def token_force(self, account: str, lease: int, now_ms: int) -> bool:
        """See `Ledger.token_force`."""
        return sqlite_tokens.force(self.connection, account, lease, now_ms)

    def quota_take(self, account: str, report: Report, terms: QuotaTerms, now_ms: int) -> QuotaView:
        """See `Ledger.quota_take`."""
        return sqlite_quotas.take(self.connection, account, report, terms, now_ms)

    def quota_reading(self, account: str, now_ms: int, at_once: bool) -> int | None:
        """See `Ledger.quota_reading`."""
        return sqlite_quotas.reading(self.connection, account, now_ms, at_once)

    def quota_told(self, account: str, counted: int, used: int, limit: int, now_ms: int) -> None:
        """See `Ledger.quota_told`."""
        sqlite_quotas.told(self.connection, account, counted, used, limit, now_ms)

    def quota_spent(self, account: str, now_ms: int) -> None:
        """See `Ledger.quota_spent`."""
        sqlite_quotas.spent(self.connection, account, now_ms)
