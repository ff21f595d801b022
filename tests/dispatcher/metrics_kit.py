"""Steps for counting, and what /metrics shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prometheus_client import generate_latest

from dispatcher.delivery import ENDED
from dispatcher.exposition import registry_of
from dispatcher.model.alert import Alert, State, Step
from dispatcher.model.event import Event
from dispatcher.model.recipient import Recipient
from dispatcher.totals import Totals

AT = datetime(2026, 11, 22, 4, 0, tzinfo=UTC)
AT_MS = int(AT.timestamp() * 1000)


def a_step(
    *,
    outcome: str | None,
    state: State = "delivered",
    channel: str = "wechat",
    waited_ms: int = 1,
    swipe_age_ms: int = 1,
    resends: int = 0,
) -> Step:
    """What became of an alert that was accepted ``waited_ms`` and swiped ``swipe_age_ms`` before."""
    event = Event(id="e", account="a", amount=1, currency="CNY", time=AT - timedelta(milliseconds=swipe_age_ms))
    alert = Alert(
        id=16,
        event=event,
        recipient=Recipient(1, "a"),
        route=(channel,),
        accepted_ms=AT_MS - waited_ms,
        expires_ms=AT_MS,
        template="swipe@1",
        day_total=None,
    )
    reason = "gone" if state == "failed" else None
    return Step(alert, state, 0, reason, None, state in ENDED, AT_MS, outcome=outcome, code=outcome, resends=resends)


def shown(totals: Totals) -> str:
    """What /metrics would show, in an order of its own for each metric."""
    return generate_latest(registry_of(lambda: totals)).decode()
