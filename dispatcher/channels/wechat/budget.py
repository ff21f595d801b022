"""This process's part of the account's daily quota: which alerts of a batch may be handed to WeChat.

Permits come from the ledger by the hundred (`dispatcher.ledger.quotas`), so a batch costs a subtraction. A reserve is
left to urgent alerts; the brown-out ladder (`ratelimit.brownout`) says what ordinary ones give up when
the day's quota runs low. WeChat's own word (45009, ``quota/get``) goes before our count.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
import trio

from dispatcher.channels.base import ChannelPaused
from dispatcher.channels.wechat.quota_call import Quota, UnreadableQuota
from dispatcher.delivery import diverted, waiting
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger.quotas import PERMIT_LIFE_MS, QuotaTerms, QuotaView, Report, Standing
from dispatcher.logs import get_logger
from dispatcher.model.alert import Alert, Step
from dispatcher.rules_in_force import IsUrgent
from ratelimit.brownout import NAMES, SHIFT, BrownOutTerms, expected_need, next_level
from ratelimit.quota import next_midnight_ms

TICK_S = 5.0
"""How often a process reports and hears how the account stands: twelve times within the time after which the ledger
takes it for dead."""

FIRST_READING_POLL_S = 0.05
"""How often a process that waits for another's first reading looks."""

LEAST_PERMITS = 256
"""Asked for at a time: a full batch of a lane."""

MOST_PERMITS = 16_384
"""The most that a process holds: about a second at the highest rate. What a crash loses of it is found again at the
next reading."""

LOOK_AGAIN_MS = 5 * 60_000
"""An alert that waits for room looks again as often as the quota is read."""

AFTER_MIDNIGHT_MS = 60_000
"""Those that wait for the new day come back within its first minute, not in its first millisecond."""

WAITS_FOR_QUOTA = "quota"
"""The detour of an alert for which no permit was left."""

log = get_logger("quota")


class QuotaStore(Protocol):
    """Where the fleet counts: the ledger."""

    async def quota_take(self, account: str, report: Report, terms: QuotaTerms, now_ms: int) -> QuotaView:
        """See `Ledger.quota_take`."""

    async def quota_reading(self, account: str, now_ms: int, at_once: bool) -> int | None:
        """See `Ledger.quota_reading`."""

    async def quota_told(self, account: str, counted: int, used: int, limit: int, now_ms: int) -> None:
        """See `Ledger.quota_told`."""

    async def quota_spent(self, account: str, now_ms: int) -> None:
        """See `Ledger.quota_spent`."""


class QuotaWatch(Protocol):
    """Who counts what the quota does."""

    def quota(self, channel: str, *, used: int, limit: int, remaining: int, level: int) -> None:
        """How the account stands."""

    def browned_out(self, channel: str, step: str, count: int) -> None:
        """So many alerts were degraded by a step."""


class BudgetSettings(msgspec.Struct, frozen=True):
    """From the configuration: the limit while none can be read, the share kept for reserved alerts, and the ladder."""

    daily_quota: int
    reserve_percent: int
    rate_per_second: float
    brownout: BrownOutTerms


class QuotaBudget:
    """See the module. All of it runs in one trio loop, but for ``level`` and ``took_away``, which admission uses from
    the ledger's thread."""

    def __init__(
        self,
        account: str,
        settings: BudgetSettings,
        store: QuotaStore,
        ask: Callable[[], Awaitable[Quota]],
        *,
        now_ms: Callable[[], int],
        watch: QuotaWatch | None = None,
    ) -> None:
        self.terms = settings.brownout
        self.level = 0
        self._account = account
        self._settings = settings
        self._quota_terms = QuotaTerms(settings.daily_quota, settings.reserve_percent, _judge)
        self._store = store
        self._ask = ask
        self._now_ms = now_ms
        self._watch = watch
        self._holder = secrets.token_hex(8)
        self._ordinary = 0
        self._reserved = 0
        self._dropped = 0
        self._no_ordinary = False
        self._no_reserved = False
        self._wants_reserved = 0
        self._answered = 0
        self._want = LEAST_PERMITS
        self._sent = self._sent_at_tick = 0
        self._diverted = 0
        self._kept_away: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._refused = False
        self._read_soon = trio.Event()
        self._looked = False
        self._heard_ms = 0
        self._pending = False
        self._rate_said = False
        self._lock = trio.Lock()

    # ---- the lane's side --------------------------------------------------------------------------------------

    async def ready(self) -> None:
        """Fetch permits when there may not be enough for a batch; the first time ask the provider how the day stands.
        Cheap when there are enough. Which alerts may leave, `screen` says. Raises `ChannelPaused`."""
        try:
            if not self._looked:
                await self._read(at_once=False)
                self._looked = True
            short = self._ordinary < LEAST_PERMITS and not self._no_ordinary
            if short or self._refused or (self._wants_reserved and not self._no_reserved):
                await self._exchange(asking=True)
                while self._pending:  # ends when the reading does, or is given up
                    await trio.sleep(FIRST_READING_POLL_S)
                    await self._exchange(asking=True)
        except LedgerUnavailable as error:
            raise ChannelPaused(f"no quota can be taken: {error}", retry_after_s=1.0) from None

    def screen(
        self, batch: list[Alert], now_ms: int, is_urgent: IsUrgent | None = None
    ) -> tuple[list[Alert], list[Alert], list[Step]]:
        """(to hand over now, to put back into the queue, steps of those that go elsewhere or wait for room).

        ``is_urgent`` is what the rules say about the reserve; None: they have no such rule, and the terms say it."""
        if now_ms - self._heard_ms > PERMIT_LIFE_MS:
            self._drop()
        if not self.level and len(batch) <= self._ordinary:  # nearly always
            self._ordinary -= len(batch)
            self._sent += len(batch)
            return batch, [], []
        send: list[Alert] = []
        back: list[Alert] = []
        steps: list[Step] = []
        for alert in batch:
            event = alert.event
            urgent = None if is_urgent is None else is_urgent(event, alert.recipient)
            reserved = self.terms.is_reserved(event.amount, event.currency, event.category, urgent)
            if not reserved and self._gives_way(alert):
                steps.append(self._elsewhere(alert, f"brown-out:{NAMES[self.level]}", NAMES[self.level], now_ms))
            elif self._permit(reserved):
                send.append(alert)
            elif reserved and not self._no_reserved:
                self._wants_reserved += 1
                back.append(alert)
            elif not reserved and not self._no_ordinary:
                back.append(alert)
            else:
                steps.append(self._elsewhere(alert, WAITS_FOR_QUOTA, WAITS_FOR_QUOTA, now_ms))
        return send, back, steps

    def unused(self, count: int) -> None:
        """So many alerts of those that `screen` let go were not handed over after all."""
        self._ordinary += count
        self._sent -= count

    def answered(self, count: int) -> None:
        """So many attempts have their answer, or never will."""
        self._answered += count

    def refused(self) -> None:
        """WeChat has said 45009: whatever we counted, nothing more goes until it says otherwise or the day is over."""
        if not self._refused:
            self._refused = True
            self._read_soon.set()
        # WeChat says that they are worth nothing; the ledger hears of it with the next report.
        self._drop()

    def _drop(self) -> None:
        self._dropped += self._ordinary + self._reserved
        self._ordinary = self._reserved = 0

    def _gives_way(self, alert: Alert) -> bool:
        """Whether an ordinary alert goes to its next channel at this level. One that was tried here stays while there
        is room: elsewhere it might ring a second time."""
        if not self.level or alert.first_attempt_ms is not None or alert.position + 1 >= len(alert.route):
            return False
        event = alert.event
        return self.level >= SHIFT or abs(event.amount) < self.terms.small_below(self.level, event.currency)

    def _permit(self, reserved: bool) -> bool:
        if self._ordinary > 0:
            self._ordinary -= 1
        elif reserved and self._reserved > 0:
            self._reserved -= 1
        else:
            return False
        self._sent += 1
        return True

    def _elsewhere(self, alert: Alert, why: str, step: str, now_ms: int) -> Step:
        """When no permit is left, also one that was tried before goes to its next channel: it may ring twice then, as
        with any attempt of unknown outcome, and tomorrow would not be the better end."""
        if alert.state != "retrying":  # one that has waited was counted then
            self._diverted += 1
            if self._watch is not None:
                self._watch.browned_out("wechat", step, 1)
        if alert.position + 1 < len(alert.route):
            return diverted(alert, why, now_ms)
        return waiting(alert, why, now_ms, look_again_ms(alert.id, now_ms))

    # ---- admission's side (in the ledger's thread) ------------------------------------------------------------

    def took_away(self, step: str) -> None:
        """Admission has kept an alert from WeChat. Counted when the process next reports."""
        self._kept_away[step] = self._kept_away.get(step, 0) + 1

    # ---- the ledger's and the provider's side -----------------------------------------------------------------

    async def run(self) -> None:
        """Report and read, for ever. When cancelled, gives back what it holds."""
        try:
            while True:
                with trio.move_on_after(TICK_S):
                    await self._read_soon.wait()
                at_once = self._read_soon.is_set()
                self._read_soon = trio.Event()
                try:
                    if at_once:
                        await self._exchange()  # that it is spent is known before anybody asks WeChat
                    await self._read(at_once=at_once)
                    await self._tick()
                except LedgerUnavailable as error:
                    log.warning("quota_not_counted", channel="wechat", error=str(error))
        finally:
            with trio.CancelScope(shield=True):
                try:
                    await self._exchange(give_back=True)
                except LedgerUnavailable as error:  # what is left behind counts as used, until the next reading
                    log.warning("quota_not_given_back", channel="wechat", error=str(error))

    async def _tick(self) -> None:
        sent = self._sent - self._sent_at_tick
        self._sent_at_tick = self._sent
        self._want = min(max(2 * sent // int(TICK_S), LEAST_PERMITS), MOST_PERMITS)
        self._no_ordinary = self._no_reserved = False  # there may be room again: the next batch asks
        await self._exchange(give_back=sent == 0)

    async def _exchange(self, *, asking: bool = False, give_back: bool = False) -> None:
        async with self._lock:
            if self._refused:
                log.error("quota_spent", channel="wechat", hint="WeChat says 45009: today's quota is used up")
                await self._store.quota_spent(self._account, self._now_ms())
                self._refused = False
            if give_back:
                self._drop()
            answered, dropped, gone, kept_away = self._answered, self._dropped, self._diverted, dict(self._kept_away)
            news = {step: count - self._told.get(step, 0) for step, count in kept_away.items()}
            report = Report(
                holder=self._holder,
                used=answered,
                back=dropped,
                diverted=gone + sum(news.values()),
                ordinary=max(self._want - self._ordinary, 0) if asking and not self._no_ordinary else 0,
                # No more than there are alerts for: the last ones are not to lie idle here while another needs them.
                reserved=max(self._wants_reserved - self._reserved, 0) if asking else 0,
            )
            asked_ms = self._now_ms()
            if asked_ms - self._heard_ms > PERMIT_LIFE_MS:
                self._drop()
            view = await self._store.quota_take(self._account, report, self._quota_terms, asked_ms)
            self._heard_ms = asked_ms
            self._answered -= answered
            self._dropped -= dropped
            self._diverted -= gone
            self._told = kept_away
            self._pending = view.pending
            if report.ordinary and not view.pending:
                self._no_ordinary = self._ordinary + view.ordinary == 0
            if report.reserved and not view.pending:
                self._no_reserved = view.reserved == 0
            if asking:
                self._wants_reserved = 0  # those that still wait say so again
            if self._refused:  # while we asked: what came is worth nothing, either
                self._dropped += view.ordinary + view.reserved
            else:
                self._ordinary += view.ordinary
                self._reserved += view.reserved
            self._show(view, news)

    def _show(self, view: QuotaView, kept_away: dict[str, int]) -> None:
        if view.level != self.level:
            say = log.warning if view.level > self.level else log.info
            say(
                "brownout_level",
                channel="wechat",
                level=view.level,
                step=NAMES[view.level],
                before=NAMES[self.level],
                remaining=view.remaining,
                limit=view.limit,
            )
            self.level = view.level
        if self._watch is None:
            return
        self._watch.quota("wechat", used=view.used, limit=view.limit, remaining=view.remaining, level=view.level)
        for step, count in kept_away.items():
            self._watch.browned_out("wechat", step, count)

    async def _read(self, *, at_once: bool) -> None:
        counted = await self._store.quota_reading(self._account, self._now_ms(), at_once)
        if counted is None:
            return
        try:
            quota = await self._ask()
        except UnreadableQuota as error:
            log.warning("quota_unreadable", channel="wechat", reason=str(error))
            await self._store.quota_told(self._account, counted, 0, 0, self._now_ms())
            return
        await self._store.quota_told(self._account, counted, quota.used, quota.limit, self._now_ms())
        self._no_ordinary = self._no_reserved = False
        allowed = quota.rate_per_second
        if allowed is not None and allowed < self._settings.rate_per_second and not self._rate_said:
            self._rate_said = True
            hint = "WeChat allows fewer calls a second than channels.wechat.rate_per_second; lower it"
            log.warning("rate_above_quota", channel="wechat", allowed=round(allowed, 1), hint=hint)


def look_again_ms(spread: int, now_ms: int) -> int:
    """When an alert that waits for room is looked at again: in some minutes, or after midnight in China if that comes
    before. ``spread`` (any number) keeps many from coming back in one millisecond."""
    soon = now_ms + LOOK_AGAIN_MS + spread % AFTER_MIDNIGHT_MS
    return min(soon, next_midnight_ms(now_ms) + 1 + spread % AFTER_MIDNIGHT_MS)


def _judge(standing: Standing) -> int:
    need = expected_need(standing.demand, standing.yesterday, standing.now_ms)
    return next_level(standing.remaining, need, standing.level)
