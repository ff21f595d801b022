"""What happens to an alert next: the states, the table of answers, and the step that follows each.

Pure: no clock, no network, no ledger. The same code serves the engine, ``explain`` and replay.

An alert is open in one of six states and ends in one of five::

    held ──▶ queued ──▶ sending ──▶ delivered
                          │  ▲  ├──▶ awaiting ──▶ delivered | failed | (next channel)
                          │  │  ├──▶ retrying ──▶ sending
                          │  │  └──▶ failed
                          ▼  │
                      interrupted        (the process died: its outcome is unknown)

    at admission also: suppressed(rule) · expired;  at any time while open: expired · cancelled(by)

``held`` is an alert that a send rule keeps until later: until its night is over, its window has room, or, held by a
storm rule, a person releases it or its age ends. It was never tried; when it comes due it is leased as a retry is, and
goes the way of any other. Only admission holds: nothing returns to ``held``.

The step to the next channel is a fence, passed once in the ledger. A success of the channel before that comes later
changes nothing that was sent, but it is a success (docs/decisions/0011-fallback-fence.md):

    known before the fence, or before the next channel rang    delivered, nothing more is sent
    while the next one rings, or after it has                  the end is the next one's; a known double
    known when the next one fails or expires                   delivered (late:wechat)
    after the alert had ended                                  the end stays

``sending`` is written before the first byte can leave, so that after a crash nothing that might have been sent looks
untouched. A channel whose provider recognises a resend (WeChat's ``client_msg_id``) is admitted straight as
``sending``; one without such a key is ``queued`` and fenced to ``sending`` in a commit of its own before it leaves.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from dispatcher.model.alert import Alert, State, Step
from ratelimit.retry import RetryPolicy, next_retry

ENDED: frozenset[State] = frozenset({"delivered", "suppressed", "failed", "expired", "cancelled"})
OPEN: frozenset[State] = frozenset({"held", "queued", "sending", "retrying", "awaiting", "interrupted"})


FIRST_PAUSE_MS = 2_000

LATE = "late:"
"""Begins the reason of an alert that was delivered by a channel it had left; the channel follows."""


class AnswerClass(StrEnum):
    """What a provider's answer means for the alert."""

    ACCEPTED = "accepted"
    REFRESH_TOKEN = "refresh_token"  # noqa: S105 - a class of answers, not a secret
    THROTTLE = "throttle"
    RETRY = "retry"
    RECIPIENT_GONE = "recipient_gone"
    OPTED_OUT = "opted_out"
    PERMANENT = "permanent"
    CONFIGURATION = "configuration"
    UNKNOWN = "unknown"
    QUOTA = "quota"


class Next(StrEnum):
    """The step that follows a class of answers."""

    END = "delivered, or awaiting its receipt"
    AT_ONCE = "again at once with a new token, the second time with backoff"
    LATER = "again with backoff and full jitter"
    NEXT_CHANNEL = "the next channel of its route, or failed"
    ELSEWHERE = "the next channel of its route, or again when the day's quota has room, until its age ends"
    POLICY = "again or left alone, as the channel is configured"


AFTER: dict[AnswerClass, Next] = {
    AnswerClass.ACCEPTED: Next.END,
    AnswerClass.REFRESH_TOKEN: Next.AT_ONCE,
    AnswerClass.THROTTLE: Next.LATER,
    AnswerClass.RETRY: Next.LATER,
    AnswerClass.CONFIGURATION: Next.LATER,
    AnswerClass.RECIPIENT_GONE: Next.NEXT_CHANNEL,
    AnswerClass.OPTED_OUT: Next.NEXT_CHANNEL,
    AnswerClass.PERMANENT: Next.NEXT_CHANNEL,
    AnswerClass.UNKNOWN: Next.POLICY,
    AnswerClass.QUOTA: Next.ELSEWHERE,
}


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A provider's answer, classified. ``pause_ms`` is how long it asked us to wait (0: it did not say).

    ``scope`` says what the answer is about: this recipient, this template, the whole channel, or this message alone.
    ``resends`` counts how often the network had already sent the request again by itself.
    """

    kind: AnswerClass
    code: str
    msgid: str | None = None
    pause_ms: int = 0
    scope: Literal["message", "recipient", "template", "channel"] = "message"
    took_ms: int = 0
    resends: int = 0

    def __repr__(self) -> str:  # without the provider's msgid: it is the provider's text
        return f"<Answer {self.kind} {self.code} ({self.scope})>"


class ChannelPolicy(msgspec.Struct, frozen=True):
    """What the delivery steps need to know of a channel.

    ``resend_unknown`` says whether an attempt of unknown outcome is made again, and ``resend_window_ms`` how long after
    the first attempt (None: for ever), because a provider recognises a resend only for so long. ``receipt_ms`` is how
    long a receipt is waited for after acceptance; None: acceptance is the provider's last word. ``receipts_by_key``:
    the provider's receipts carry the alert's key, so that one can be known although no acceptance was seen;
    ``key_prefix`` stands before it in their msgid.
    ``same_place`` are channels on which the cardholder would see the alert in the same place: after an unknown outcome
    they are passed over, and the next other channel follows. Empty: the alert is left alone instead.
    """

    retry: RetryPolicy
    resend_unknown: bool
    receipt_ms: int | None
    resend_window_ms: int | None = None
    receipts_by_key: bool = False
    key_prefix: str = ""
    same_place: frozenset[str] = frozenset()


def after_answer(alert: Alert, answer: Answer, policy: ChannelPolicy, now_ms: int, draw: float) -> Step:
    """The step after a provider's answer (or the network's, when none came). ``draw`` is in [0, 1), for the jitter."""
    follow = AFTER[answer.kind]
    if follow is Next.END:
        waits = policy.receipt_ms
        # Nearly every answer, so without the detour over `_step`.
        return Step(
            alert,
            "delivered" if waits is None else "awaiting",
            alert.position,
            None,
            None if waits is None else now_ms + waits,
            waits is None,
            now_ms,
            False,
            "accepted",
            answer.code,
            answer.msgid,
            answer.took_ms,
            answer.resends,
        )
    if follow is Next.NEXT_CHANNEL:
        refusal = None
        if answer.kind is AnswerClass.RECIPIENT_GONE:
            refusal = alert.channel
        elif answer.kind is AnswerClass.OPTED_OUT:
            refusal = f"{alert.channel}/{alert.template.partition('@')[0]}"
        return _next_channel(alert, answer, now_ms, refusal=refusal)
    attempts = alert.attempts + 1 + answer.resends
    if follow is Next.ELSEWHERE:
        if _has_next(alert):
            return _next_channel(alert, answer, now_ms)
        # Not counted against its attempts: the lane makes none while there is no room.
        pause_ms = max(_pause_ms(answer, attempts), FIRST_PAUSE_MS)
        due_ms = min(now_ms + pause_ms + int(draw * pause_ms), alert.expires_ms)
        return _step(alert, answer, now_ms, "retrying", due_ms=due_ms)
    if follow is Next.AT_ONCE and not alert.token_refreshed and attempts < policy.retry.max_attempts:
        return _step(alert, answer, now_ms, "sending", keep_lease=True)
    if follow is Next.POLICY and not policy.resend_unknown:
        return _left_alone(alert, answer, policy, now_ms)
    misconfigured = answer.kind is AnswerClass.CONFIGURATION
    due = next_retry(
        policy.retry,
        # A channel that is not set up right refuses everything: its lane waits, and it must not use up the attempts.
        attempt=1 if misconfigured else attempts,
        now_ms=now_ms,
        expires_at_ms=alert.expires_ms,
        pause_ms=0 if misconfigured else _pause_ms(answer, attempts),
        draw=draw,
    )
    if due is None:
        return _next_channel(alert, answer, now_ms, reason="retries-exhausted")
    if follow is Next.POLICY and _has_next(alert) and not _recognised(alert, policy, due, now_ms - answer.took_ms):
        # The provider would ring a second time, and the next channel rings at least at once. Without a next one it is
        # tried further: after hours of 502s a late alert is worth more than none.
        return _next_channel(alert, answer, now_ms)
    return _step(alert, answer, now_ms, "retrying", due_ms=due)


def _pause_ms(answer: Answer, attempts: int) -> int:
    """How long to wait at least. Of a long pause of ours (a spent quota) the first waits are short: it may be over
    soon, or have been one wrong answer. A Retry-After is the provider's own word and is kept as it is, and so is the
    window of one recipient, who has had the others' alerts: nothing is lost by waiting."""
    if answer.code.startswith("http-") or answer.scope == "recipient":
        return answer.pause_ms
    return min(answer.pause_ms, FIRST_PAUSE_MS << min(attempts - 1, 20))


def after_refusal(alert: Alert, code: str, now_ms: int) -> Step:
    """The step when the alert cannot be sent on this channel, which has nothing to do with the alert itself."""
    return _next_channel(alert, None, now_ms, reason=code)


def after_no_words(alert: Alert, code: str, now_ms: int) -> Step:
    """The step when the alert could not even be put into words for this channel: nothing was sent. When it goes on to
    the next one, the code is kept as a detour."""
    return _next_channel(alert, None, now_ms, reason=code, detour=code)


def diverted(alert: Alert, why: str, now_ms: int) -> Step:
    """The step when its channel may not be used for it now: the next one at once. Only for an alert that has one."""
    return _step(alert, None, now_ms, "retrying", position=alert.position + 1, due_ms=now_ms, detour=why)


def waiting(alert: Alert, why: str, now_ms: int, due_ms: int) -> Step:
    """The step when its channel may not be used for it now and there is no other: again at ``due_ms``, or expired."""
    return _step(alert, None, now_ms, "retrying", due_ms=min(due_ms, alert.expires_ms), detour=why)


def after_expiry(alert: Alert, now_ms: int) -> Step:
    """The step when an open alert has passed its category's age."""
    return _step(alert, None, now_ms, "expired")


def after_deadline(alert: Alert, now_ms: int) -> Step:
    """The step when no receipt came in time: the next channel, or an honest failure."""
    return _next_channel(alert, None, now_ms, reason="no-receipt")


def after_receipt(alert: Alert, status: str, now_ms: int) -> Step:
    """The step after the provider's last word; ``status`` is ``delivered`` or ``failed:<why>``.

    ``delivered:<channel>`` is the success of a channel that the alert has left already: it was seen, whatever becomes
    of the channel it is on now, so nothing more is sent for it.
    """
    if status == "delivered":
        return _step(alert, None, now_ms, "delivered")
    if status.startswith("delivered:"):
        return _step(alert, None, now_ms, "delivered", reason=LATE + status.removeprefix("delivered:"))
    return _next_channel(alert, None, now_ms, reason=status)


def held_back(step: Step) -> Step:
    """What becomes of a step that would ring again, or end without success, an alert whose success is known by now: it
    waits for its receipt, which is there, and is due at once. The attempt, if there was one, stays."""
    return msgspec.structs.replace(
        step, state="awaiting", position=step.alert.position, reason=None, due_ms=step.at_ms, ended=False
    )


def after_interruption(alert: Alert, policy: ChannelPolicy, now_ms: int) -> Step:
    """The step for an alert whose process died while it may have been on the wire (attempt already marked unknown)."""
    if not policy.resend_unknown:
        return _left_alone(alert, None, policy, now_ms)
    if alert.attempts >= policy.retry.max_attempts:  # it may be what kills the process
        return _next_channel(alert, None, now_ms, reason="retries-exhausted")
    # However long the process was dead: most of what it held had only waited in its lane and never left.
    return _step(alert, None, now_ms, "retrying", due_ms=now_ms)


def given_back(alert: Alert, now_ms: int) -> Step:
    """The step for an alert that its process never handed to the network: as untouched as it came."""
    return _step(alert, None, now_ms, "retrying", due_ms=now_ms)


def put_off(alert: Alert, now_ms: int, due_ms: int) -> Step:
    """The step for an alert that did not leave because something of ours holds it (a recipient's pause, the rate of
    its template, the retry budget, a breaker). No attempt is counted; at its age it is looked at in any case."""
    return _step(alert, None, now_ms, "retrying", due_ms=min(due_ms, alert.expires_ms))


def tried_again(step: Step) -> Alert:
    """The alert of a step that keeps its lease, as it goes back to its lane with a new token."""
    alert = step.alert
    return msgspec.structs.replace(
        alert,
        attempts=alert.attempts + 1 + step.resends,
        first_attempt_ms=alert.first_attempt_ms or step.at_ms - step.took_ms,
        token_refreshed=True,
    )


def _has_next(alert: Alert) -> bool:
    return alert.position + 1 < len(alert.route)


def _recognised(alert: Alert, policy: ChannelPolicy, due_ms: int, first_ms: int) -> bool:
    """Whether the provider will still know a resend at ``due_ms``; ``first_ms`` is when the first attempt was, if it is
    the one that just ended."""
    if policy.resend_window_ms is None:
        return True
    if alert.first_attempt_ms is not None:
        first_ms = alert.first_attempt_ms
    return due_ms < first_ms + policy.resend_window_ms


def _left_alone(alert: Alert, answer: Answer | None, policy: ChannelPolicy, now_ms: int) -> Step:
    """An unknown outcome that must not be repeated: wait for the receipt where there is one, else say so."""
    if policy.receipt_ms is not None:
        msgid = policy.key_prefix + alert.key if policy.receipts_by_key else None
        return _step(alert, answer, now_ms, "awaiting", due_ms=now_ms + policy.receipt_ms, msgid=msgid)
    if policy.same_place:
        for position in range(alert.position + 1, len(alert.route)):
            if alert.route[position] not in policy.same_place:
                return _step(alert, answer, now_ms, "retrying", position=position, due_ms=now_ms)
    return _step(alert, answer, now_ms, "failed", reason="unknown-outcome")


def _next_channel(
    alert: Alert,
    answer: Answer | None,
    now_ms: int,
    *,
    reason: str | None = None,
    refusal: str | None = None,
    detour: str | None = None,
) -> Step:
    if _has_next(alert):
        # Through the ledger and not straight into the other lane: lanes never push into each other, so they
        # cannot block each other.
        position = alert.position + 1
        return _step(
            alert, answer, now_ms, "retrying", position=position, due_ms=now_ms, refusal=refusal, detour=detour
        )
    why = reason or (f"{answer.kind}:{answer.code}" if answer else "unknown")
    return _step(alert, answer, now_ms, "failed", reason=why, refusal=refusal)


def _step(
    alert: Alert,
    answer: Answer | None,
    now_ms: int,
    state: State,
    *,
    reason: str | None = None,
    due_ms: int | None = None,
    position: int | None = None,
    keep_lease: bool = False,
    refusal: str | None = None,
    msgid: str | None = None,
    detour: str | None = None,
) -> Step:
    return Step(
        alert=alert,
        state=state,
        position=alert.position if position is None else position,
        reason=reason,
        due_ms=due_ms,
        ended=state in ENDED,
        at_ms=now_ms,
        keep_lease=keep_lease,
        outcome=None if answer is None else str(answer.kind),
        code=None if answer is None else answer.code,
        msgid=msgid if answer is None else answer.msgid or msgid,
        took_ms=0 if answer is None else answer.took_ms,
        resends=0 if answer is None else answer.resends,
        refusal=refusal,
        detour=detour,
    )
