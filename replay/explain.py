"""The story of one event as a person would tell it, from what the ledger holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from dispatcher.cards import mask_text
from dispatcher.channels.tables import is_known
from dispatcher.delivery import CONSENT_WITHDRAWN
from dispatcher.ledger.held import DISCARDED, Hold
from dispatcher.ledger.stories import AlertStory, AttemptStory, Detour, EventStory
from dispatcher.model.consent import ConsentEntry
from dispatcher.model.event import Event
from ratelimit.explain import explain_decision
from replay.explain_digests import tell_digest, tell_folded, tell_members
from replay.explain_fallback import delivered_by, tell_fallback
from templates.money import format_money

_OUTCOMES = {
    "accepted": "accepted",
    "refresh_token": "refused: the access token was no longer good",
    "throttle": "refused for now: too many",
    "retry": "refused for now: the provider was busy, or no connection came about",
    "recipient_gone": "refused: this recipient cannot be reached there any more",
    "opted_out": "refused: the recipient has switched this kind of message off",
    "permanent": "refused for good",
    "configuration": "refused: the channel is not set up right",
    "quota": "refused: the account's quota of the day is used up",
    "unknown": "outcome unknown: it may have arrived",
}


def moment(epoch_ms: int) -> str:
    """An epoch in ms as UTC to the millisecond."""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(sep=" ", timespec="milliseconds")


def tell(story: EventStory) -> list[str]:
    """The story in lines of text. It shows the account's masked card and amount, no phone and no openid."""
    event = msgspec.json.decode(story.payload, type=Event)
    money = format_money(event.amount, event.currency, "en")
    swipe = f"{event.type} of {money}, card {event.pan or 'not given'}"
    lines = [
        f"event {story.id}",
        f"  {swipe if event.digest is None else tell_digest(event.digest)}",
        f"  swiped   {moment(story.swiped_at)}",
        f"  accepted {moment(story.accepted_at)}, {_span(story.accepted_at - story.swiped_at)} after the swipe",
    ]
    if event.refers_to is not None:
        lines.append(f"  belongs to event {event.refers_to}")
    for alert in story.alerts:
        lines += _tell_alert(alert, event)
    return lines + tell_members(story)


def _tell_alert(alert: AlertStory, event: Event) -> list[str]:
    who = "nobody to tell" if alert.role is None else f"for {alert.role}"
    lines = ["", f"alert {alert.id} {who}: {_ending(alert)}"]
    lines.append(f"  template {alert.template}{_why(alert)}, rules {alert.ruleset or 'not recorded'}")
    decided = alert.state if alert.state in ("suppressed",) or not alert.route else "sent"
    if alert.state == "expired" and alert.saw and "age_seconds" in alert.saw:
        decided = "expired"
    rule = alert.reason
    if alert.hold is not None:  # it was decided so, whatever became of it since
        decided, rule = "held", alert.hold.rule
    sentence = explain_decision(decided, rule, alert.saw, currency=event.currency, route=alert.route)
    lines.append(f"  decision: {sentence}")
    lines += [f"  {_consent(entry)}" for entry in alert.consents]
    if alert.digest is not None:
        lines.append(f"  {tell_folded(alert.digest)}")
    if alert.day_total is not None:
        lines.append(f"  balance of the day: {format_money(alert.day_total, event.currency, 'en')}")
    if alert.hold is not None and alert.hold.act is not None and alert.hold.at is not None:
        lines.append(f"  {alert.hold.act} {moment(alert.hold.at)} by {alert.hold.who}")
    lines += [f"  {_detour(detour)}" for detour in alert.detours]
    lines += [f"  {_attempt(attempt)}" for attempt in alert.attempts]
    for receipt in alert.receipts:
        times = "" if receipt["times"] == 1 else f" (said {receipt['times']} times)"
        lines.append(f"  receipt {moment(receipt['at'])} {receipt['channel']}: {receipt['status']}{times}")
    lines += [f"  {sentence}" for sentence in tell_fallback(alert)]
    if alert.ended_at is None and alert.due_at is not None:
        lines.append(f"  next look {moment(alert.due_at)}, expires {moment(alert.expires_at)}")
    return lines


def _why(alert: AlertStory) -> str:
    """Why this version of its template, where there were two, or a person had said which."""
    act, version = alert.told, alert.template.rpartition("@")[2]
    if act is None or version not in (str(act.active), str(act.rolling)):
        return ""
    by = f"{act.act} by {act.who} {moment(act.at)}"
    if act.rolling is None:
        return "" if act.act == "load" else f" ({by})"
    new = f"{act.id}@{act.rolling}"
    if version == str(act.rolling):
        return f" (rolled out to {act.percent} % of the accounts, this one among them: {by})"
    return f" ({new} was rolled out to {act.percent} % of the accounts, this one not among them: {by})"


def _ending(alert: AlertStory) -> str:
    if alert.ended_at is None:
        if alert.state == "held" and alert.hold is not None:
            return _held_until(alert.hold, alert)
        return {
            "queued": "waiting in its lane",
            "sending": f"on its way by {alert.channel}",
            "retrying": f"waiting for its next attempt by {alert.channel}",
            "awaiting": f"accepted by {alert.channel}, waiting for the receipt",
            "interrupted": "interrupted by the end of its process, to be taken up",
        }.get(alert.state, alert.state)
    how = f"delivered by {delivered_by(alert)}" if alert.state == "delivered" else alert.state
    why = f" ({alert.reason})" if alert.reason else ""
    if alert.state == "cancelled" and alert.reason and alert.reason.startswith(DISCARDED):
        why = f" by a person, who discarded what rule {alert.reason.removeprefix(DISCARDED)} held,"
    elif alert.state == "cancelled" and alert.reason == CONSENT_WITHDRAWN:
        why = " because its recipient no longer consented when it was to leave,"
    elif alert.state == "cancelled" and alert.reason:
        why = f" by event {alert.reason}, which took it back before it was sent,"
    return f"{how}{why} {moment(alert.ended_at)}"


def _consent(entry: ConsentEntry) -> str:
    by = f" by {entry.by}" if entry.by else ""
    word = "given" if entry.given else "withdrawn"
    told = f"consent {entry.key}: {word} {moment(entry.at)}, source {entry.source}"
    return f"{told}; written down{by} {moment(entry.written_at)}"


def _held_until(hold: Hold, alert: AlertStory) -> str:
    if hold.act is not None:  # released, and not yet taken up
        return "released, on its way to its lane"
    if hold.until < alert.expires_at:
        return f"held by rule {hold.rule} until {moment(hold.until)}"
    expiry = f"otherwise it expires {moment(alert.expires_at)}"
    return f"held by rule {hold.rule} until somebody releases or discards it; {expiry}"


def _detour(detour: Detour) -> str:
    if detour.why == "quota":
        why = "no room in the quota of the day"
    elif detour.why.startswith("brown-out:"):
        why = f"the quota of the day ran low ({detour.why})"
    else:
        why = f"the alert could not be put into words for it ({detour.why})"
    return f"not tried {moment(detour.at)} {detour.channel}: {why}"


def _attempt(attempt: AttemptStory) -> str:
    words = _OUTCOMES.get(attempt.outcome, attempt.outcome)
    code = f" [{attempt.code}]" if attempt.code and attempt.code != "0" else ""
    if attempt.code == "process-died":
        words = "the process died while it may have been on the wire"
    elif attempt.code == "resent":
        words = "the connection died before an answer; sent again on a new one"
    msgid = f", message {attempt.msgid}" if attempt.msgid else ""
    known = attempt.outcome != "permanent" or attempt.code is None or is_known(attempt.channel, attempt.code)
    alarm = "" if known else " (a code that no table knows)"
    took = f" after {attempt.took} ms" if attempt.took else ""
    return f"attempt {attempt.n} {moment(attempt.at)} {attempt.channel}: {words}{code}{alarm}{took}{msgid}"


def _span(milliseconds: int) -> str:
    seconds = milliseconds / 1000
    if abs(seconds) < 120:
        return f"{seconds:.1f} s"
    if abs(seconds) < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 86400:.1f} days" if abs(seconds) > 172_800 else f"{seconds / 3600:.1f} h"


def as_data(story: EventStory) -> dict[str, Any]:
    """The story for ``--json``. Of the stored payload it shows the fields that an event has; of the others, which may
    hold anything about the cardholder, only the names."""
    data: dict[str, Any] = msgspec.to_builtins(story)
    payload = msgspec.json.decode(story.payload, type=dict[str, Any])
    known = set(Event.__struct_encode_fields__)
    data["payload"] = {name: value for name, value in payload.items() if name in known}
    data["other_fields"] = sorted(mask_text(name) for name in payload if name not in known)
    return data
