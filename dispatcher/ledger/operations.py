"""Every operation of the ledger, told in terms of one: run something on the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import trio

from dispatcher.errors import LedgerFailed
from dispatcher.events import Accepted
from dispatcher.ledger.api import Admission, Books, Decide, Imported, RateAsk, RateShare, Receipt
from dispatcher.ledger.digests import DueDigest
from dispatcher.ledger.held import HeldView
from dispatcher.ledger.quotas import QuotaTerms, QuotaView, Report
from dispatcher.ledger.rule_changes import RuleAct, RuleChange
from dispatcher.ledger.sqlite import SqliteStore
from dispatcher.ledger.sqlite_admit import Admitting
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


class Operations:
    """`Ledger`'s operations, told in terms of one method that runs something on the store, in a transaction.
    ``prepare`` may be called before that begins, and only reads."""

    def __init__(self) -> None:
        self._failure: LedgerFailed | None = None
        self._closed = False

    def _must_be_usable(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise trio.ClosedResourceError("the ledger was closed")

    async def _run(
        self, operation: Callable[[SqliteStore], Any], prepare: Callable[[SqliteStore], None] | None = None
    ) -> Any:
        raise NotImplementedError  # pragma: no cover - both ledgers below have it

    async def register(self, name: str, now_ms: int, alive_until_ms: int) -> int:
        return int(
            await self._run(lambda store: store.register(name, now_ms, alive_until_ms), lambda store: store.load_ids())
        )

    async def heartbeat(self, owner: int, alive_until_ms: int) -> bool:
        return bool(await self._run(lambda store: store.heartbeat(owner, alive_until_ms)))

    async def leave(self, owner: int, now_ms: int) -> None:
        await self._run(lambda store: store.leave(owner, now_ms))

    async def take_over(self, owner: int, now_ms: int) -> int:
        return int(await self._run(lambda store: store.take_over(owner, now_ms)))

    async def admit(self, batch: Sequence[Accepted], now_ms: int, owner: int, decide: Decide) -> Admission:
        admitting = Admitting(batch, now_ms, owner, decide)
        result: Admission = await self._run(
            lambda store: store.admit(admitting), lambda store: store.prepare(admitting)
        )
        return result

    async def fence(self, alert_ids: Sequence[int], owner: int) -> list[int]:
        result: list[int] = await self._run(lambda store: store.fence(alert_ids, owner))
        return result

    async def record(self, steps: Sequence[Step], owner: int) -> list[Alert]:
        result: list[Alert] = await self._run(lambda store: store.record(steps, owner))
        return result

    async def due(self, channel: str, now_ms: int, owner: int, limit: int, lease_as: State) -> list[Alert]:
        result: list[Alert] = await self._run(lambda store: store.due(channel, now_ms, owner, limit, lease_as))
        return result

    async def receipts(self, receipts: Sequence[Receipt], now_ms: int, owner: int) -> list[tuple[Alert, Receipt]]:
        result: list[tuple[Alert, Receipt]] = await self._run(lambda store: store.receipts(receipts, now_ms, owner))
        return result

    async def new_doubles(self, receipts: Sequence[Receipt]) -> int:
        return int(await self._run(lambda store: store.new_doubles(receipts)))

    async def take_digests(self, now_ms: int, owner: int, limit: int) -> list[DueDigest]:
        result: list[DueDigest] = await self._run(lambda store: store.take_digests(now_ms, owner, limit))
        return result

    async def digests_sent(self, digests: Sequence[int]) -> int:
        return int(await self._run(lambda store: store.digests_sent(digests)))

    async def open_count(self, held_until: int | None = None) -> int:
        return int(await self._run(lambda store: store.open_count(held_until)))

    async def held(self, rule: str | None = None) -> HeldView:
        result: HeldView = await self._run(lambda store: store.held(rule))
        return result

    async def release_held(self, rule: str, now_ms: int, who: str, up_to: int) -> int:
        return int(await self._run(lambda store: store.release_held(rule, now_ms, who, up_to)))

    async def discard_held(self, rule: str, now_ms: int, who: str, up_to: int) -> int:
        return int(await self._run(lambda store: store.discard_held(rule, now_ms, who, up_to)))

    async def books(self) -> Books:
        result: Books = await self._run(lambda store: store.books())
        return result

    async def explain(self, event_id: str) -> EventStory | None:
        result: EventStory | None = await self._run(lambda store: store.explain(event_id))
        return result

    async def import_recipients(
        self, lines: Sequence[RecipientLine], now_ms: int | None = None, by: str = ""
    ) -> Imported:
        result: Imported = await self._run(lambda store: store.import_recipients(lines, now_ms, by))
        return result

    async def consent(self, changes: Sequence[ConsentChange], now_ms: int) -> Consented:
        result: Consented = await self._run(lambda store: store.consent(changes, now_ms))
        return result

    async def consents_of(self, account: str) -> list[ConsentEntry]:
        result: list[ConsentEntry] = await self._run(lambda store: store.consents_of(account))
        return result

    async def heard(self, facts: Sequence[Heard], now_ms: int | None = None) -> int:
        return int(await self._run(lambda store: store.heard(facts, now_ms)))

    async def ruleset(self, version: str, content: str, now_ms: int) -> None:
        await self._run(lambda store: store.ruleset(version, content, now_ms))

    async def rule_act(self, act: RuleAct) -> RuleChange:
        result: RuleChange = await self._run(lambda store: store.rule_act(act))
        return result

    async def rule_active(self, known: int) -> RuleChange | None:
        result: RuleChange | None = await self._run(lambda store: store.rule_active(known))
        return result

    async def rule_history(self, limit: int, version: str | None = None) -> list[RuleChange]:
        result: list[RuleChange] = await self._run(lambda store: store.rule_history(limit, version))
        return result

    async def templates_offered(self, versions: Sequence[Offered], now_ms: int) -> list[TemplateVersion]:
        result: list[TemplateVersion] = await self._run(lambda store: store.templates_offered(versions, now_ms))
        return result

    async def templates_in_use(self, known: int) -> TemplatesInUse | None:
        result: TemplatesInUse | None = await self._run(lambda store: store.templates_in_use(known))
        return result

    async def template_texts(self, names: Sequence[str]) -> dict[str, TemplateText]:
        result: dict[str, TemplateText] = await self._run(lambda store: store.template_texts(names))
        return result

    async def template_act(self, act: TemplateAct) -> TemplateVersion:
        result: TemplateVersion = await self._run(lambda store: store.template_act(act))
        return result

    async def template_history(
        self, limit: int, template: str | None = None, version: int | None = None
    ) -> TemplateHistory:
        result: TemplateHistory = await self._run(lambda store: store.template_history(limit, template, version))
        return result

    async def file_ids(self) -> bool:
        return bool(await self._run(lambda store: store.file_ids()))

    async def forget_counters(self, now_ms: int) -> int:
        return int(await self._run(lambda store: store.forget_counters(now_ms)))

    async def share_rates(self, asks: Sequence[RateAsk], owner: int, steady_ms: Callable[[], int]) -> list[RateShare]:
        result: list[RateShare] = await self._run(lambda store: store.share_rates(asks, owner, steady_ms))
        return result

    async def leave_rates(self, owner: int, steady_ms: Callable[[], int]) -> None:
        await self._run(lambda store: store.leave_rates(owner, steady_ms))

    async def token_ask(self, account: str, failed: int | None, now_ms: int) -> TokenAnswer:
        result: TokenAnswer = await self._run(lambda store: store.token_ask(account, failed, now_ms))
        return result

    async def token_fetched(
        self, account: str, lease: int, sealed: bytes | None, ends_at: int, renew_at: int, now_ms: int
    ) -> TokenRow:
        result: TokenRow = await self._run(
            lambda store: store.token_fetched(account, lease, sealed, ends_at, renew_at, now_ms)
        )
        return result

    async def token_failed(self, account: str, lease: int, retry_at: int, trouble: str, misconfigured: bool) -> None:
        await self._run(lambda store: store.token_failed(account, lease, retry_at, trouble, misconfigured))

    async def token_force(self, account: str, lease: int, now_ms: int) -> bool:
        return bool(await self._run(lambda store: store.token_force(account, lease, now_ms)))

    async def quota_take(self, account: str, report: Report, terms: QuotaTerms, now_ms: int) -> QuotaView:
        result: QuotaView = await self._run(lambda store: store.quota_take(account, report, terms, now_ms))
        return result

    async def quota_reading(self, account: str, now_ms: int, at_once: bool) -> int | None:
        result: int | None = await self._run(lambda store: store.quota_reading(account, now_ms, at_once))
        return result

    async def quota_told(self, account: str, counted: int, used: int, limit: int, now_ms: int) -> None:
        await self._run(lambda store: store.quota_told(account, counted, used, limit, now_ms))

    async def quota_spent(self, account: str, now_ms: int) -> None:
        await self._run(lambda store: store.quota_spent(account, now_ms))
