"""Why an alert went from one channel to the next, and what an earlier one still said of it, in plain sentences."""

from __future__ import annotations

from datetime import UTC, datetime

from dispatcher.delivery import LATE
from dispatcher.ledger.stories import AlertStory, AttemptStory

MAY_HAVE_RUNG = frozenset({"accepted", "unknown"})


def delivered_by(alert: AlertStory) -> str:
    """The channel that delivered it: the present one, unless one that it had left said so."""
    reason = alert.reason or ""
    return reason.removeprefix(LATE) if reason.startswith(LATE) else alert.channel


def tell_fallback(alert: AlertStory) -> list[str]:
    """One sentence for each channel that was left, and one for each that reported success afterwards."""
    sentences = []
    here = alert.route.index(alert.channel) if alert.channel in alert.route else 0
    for place in range(here):
        left, following = alert.route[place], alert.route[place + 1]
        sentences.append(f"fallback from {left} to {following}, decided once: {_why(alert, left)}")
    for channel in alert.route[:here]:
        at = next((one["at"] for one in alert.receipts if one["channel"] == channel and _good(one)), None)
        if at is not None:
            sentences.append(f"{_moment(at)} {channel} reported success after that: {_so(alert)}")
    return sentences


def _why(alert: AlertStory, channel: str) -> str:
    tries = [attempt for attempt in alert.attempts if attempt.channel == channel]
    if not tries:
        return f"{channel} could not be given it"
    last = tries[-1]
    if last.outcome == "accepted":
        # A success came later, or the alert would not have gone on.
        bad = next((one for one in alert.receipts if one["channel"] == channel and not _good(one)), None)
        return (
            f"{channel} had accepted it and gave no receipt by the deadline"
            if bad is None
            else f"{channel} had accepted it and then reported {bad['status']}"
        )
    if last.outcome == "unknown":
        return f"whether {channel} had it was unknown, and it would not have known it again"
    return f"{channel} refused it{_code(last)}"


def _so(alert: AlertStory) -> str:
    after = [attempt for attempt in alert.attempts if attempt.channel == alert.channel]
    failed = any(one["channel"] == alert.channel and not _good(one) for one in alert.receipts)
    rang = any(attempt.outcome in MAY_HAVE_RUNG for attempt in after) and not failed
    if rang:
        return f"a known double, for {alert.channel} rang or may have rung too; the end of the alert stays as it is"
    if alert.state in ("failed", "expired"):
        return f"the cardholder has seen it after all; it had ended as {alert.state} before that, and an end stays"
    if alert.state == "delivered":
        return f"so nothing more was sent by {alert.channel}"
    return f"so nothing more is sent by {alert.channel}"


def _good(receipt: dict[str, object]) -> bool:
    return receipt["status"] == "delivered"


def _code(attempt: AttemptStory) -> str:
    return f" [{attempt.code}]" if attempt.code else ""


def _moment(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(sep=" ", timespec="milliseconds")
