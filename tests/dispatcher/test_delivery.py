"""What happens to an alert after each answer, as a table and as properties. Pure."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.delivery import (
    AFTER,
    ENDED,
    OPEN,
    Answer,
    AnswerClass,
    ChannelPolicy,
    after_answer,
    after_deadline,
    after_expiry,
    after_interruption,
    after_no_words,
    after_receipt,
    after_refusal,
)
from dispatcher.ledger.worker import InlineLedger
from dispatcher.model.alert import Alert, Step
from ratelimit.retry import RetryPolicy
from tests.dispatcher.channel_kit import NOW, an_alert, shows_nothing_private
from tests.dispatcher.ledger_kit import Tell, accepted, alert_story, owner_of, recipient

A = AnswerClass
RETRY = RetryPolicy(base_seconds=1.0, cap_seconds=60.0, max_attempts=5)
RECEIPT_MS = 5_000
WINDOW_MS = 540_000


def policy(
    *, resend: bool = True, receipt: bool = False, window_ms: int | None = None, by_key: bool = False
) -> ChannelPolicy:
    return ChannelPolicy(RETRY, resend, RECEIPT_MS if receipt else None, window_ms, by_key)


def an_answer(kind: AnswerClass, code: str = "17", **fields: Any) -> Answer:
    given: dict[str, Any] = {"msgid": "m-1", "took_ms": 40}
    return Answer(kind, code, **(given | fields))


def well_formed(step: Step, alert: Alert) -> None:
    """What every step keeps."""
    assert step.alert is alert
    assert step.state in ENDED | OPEN
    assert step.ended == (step.state in ENDED)
    assert alert.position <= step.position <= alert.position + 1
    assert step.position < len(alert.route)
    if step.ended:
        assert step.due_ms is None
        assert not step.keep_lease
        assert step.state == "delivered" or step.reason is not None or step.state == "expired"
    else:
        # Open means that somebody will look at it again: its lane, or the clock at a known time
        assert step.keep_lease != (step.due_ms is not None)
        assert step.reason is None
    if step.due_ms is not None:
        assert step.due_ms >= step.at_ms
        if step.state != "awaiting":  # what was sent already may be confirmed after the alert's age
            assert step.due_ms <= max(alert.expires_ms, step.at_ms)
    shows_nothing_private(step)


# ---- the table ----------------------------------------------------------------------------------------------------


def test_every_class_of_answers_and_every_state_has_its_place() -> None:
    assert set(AFTER) == set(AnswerClass)
    assert not ENDED & OPEN
    assert len(ENDED | OPEN) == 11


def expected(kind: AnswerClass, *, last: bool, resend: bool, receipt: bool, refreshed: bool) -> dict[str, Any]:
    """The fields of the step, written down from design.md section 1 and the module's picture."""
    retrying = {"state": "retrying", "position": 0, "due_ms": NOW + 500, "reason": None}
    awaiting = {"state": "awaiting", "position": 0, "due_ms": NOW + RECEIPT_MS, "reason": None}
    next_channel = {"state": "retrying", "position": 1, "due_ms": NOW, "reason": None}
    if kind is A.ACCEPTED:
        return awaiting if receipt else {"state": "delivered", "position": 0, "due_ms": None, "reason": None}
    if kind is A.REFRESH_TOKEN and not refreshed:
        return {"state": "sending", "position": 0, "due_ms": None, "keep_lease": True, "reason": None}
    if kind is A.CONFIGURATION:
        return retrying | {"due_ms": NOW + 250}  # as after a first attempt
    if kind in (A.REFRESH_TOKEN, A.THROTTLE, A.RETRY):
        return retrying
    if kind is A.UNKNOWN:
        if resend:
            return retrying
        return awaiting if receipt else {"state": "failed", "position": 0, "reason": "unknown-outcome"}
    if kind is A.QUOTA and last:
        return retrying | {"due_ms": NOW + 2_500}  # at least two seconds, and the draw of as many on top
    refusal = {A.RECIPIENT_GONE: "wechat", A.OPTED_OUT: "wechat/swipe"}.get(kind)
    if last:
        return {"state": "failed", "position": 0, "reason": f"{kind}:17", "refusal": refusal, "due_ms": None}
    return next_channel | {"refusal": refusal}


@pytest.mark.parametrize("kind", AnswerClass)
@pytest.mark.parametrize(("last", "resend", "receipt", "refreshed"), list(product((False, True), repeat=4)))
def test_the_step_after_every_answer(
    kind: AnswerClass, last: bool, resend: bool, receipt: bool, refreshed: bool
) -> None:
    # Given an alert on its last channel or not, a channel's policy, and a token that was replaced already or not
    alert = an_alert(route=("wechat",) if last else ("wechat", "sms"), token_refreshed=refreshed)
    # When this answer comes
    step = after_answer(alert, an_answer(kind, resends=1), policy(resend=resend, receipt=receipt), NOW, 0.25)
    # Then the step is the table's
    found = msgspec.structs.asdict(step)
    wanted = {"refusal": None, "keep_lease": False} | expected(
        kind, last=last, resend=resend, receipt=receipt, refreshed=refreshed
    )
    assert {name: found[name] for name in wanted} == wanted
    well_formed(step, alert)
    # And the attempt is written down with it
    assert (step.outcome, step.code, step.msgid, step.took_ms, step.resends) == (str(kind), "17", "m-1", 40, 1)


def test_a_switch_to_the_next_channel_goes_through_the_ledger_and_keeps_its_order() -> None:
    alert = an_alert(route=("wechat", "sms", "email"), position=1)
    step = after_answer(alert, an_answer(A.RECIPIENT_GONE), policy(), NOW, 0.0)
    assert (step.state, step.position, step.due_ms, step.keep_lease) == ("retrying", 2, NOW, False)
    assert step.refusal == "sms"


@pytest.mark.parametrize(
    ("step", "state", "reason"),
    [
        (lambda alert: after_refusal(alert, "channel-down", NOW), "failed", "channel-down"),
        (lambda alert: after_no_words(alert, "template-field:thing5", NOW), "failed", "template-field:thing5"),
        (lambda alert: after_deadline(alert, NOW), "failed", "no-receipt"),
        (lambda alert: after_receipt(alert, "failed:user-block", NOW), "failed", "failed:user-block"),
        (lambda alert: after_receipt(alert, "delivered", NOW), "delivered", None),
        (lambda alert: after_expiry(alert, NOW), "expired", None),
    ],
)
def test_the_steps_that_follow_no_answer(step: Any, state: str, reason: str | None) -> None:
    alone, fallback = an_alert(route=("wechat",)), an_alert()
    # On the last channel it ends
    ended = step(alone)
    assert (ended.state, ended.reason, ended.outcome, ended.code) == (state, reason, None, None)
    well_formed(ended, alone)
    # Otherwise what failed goes on with the next channel, and what did not ends all the same
    other = step(fallback)
    wanted = ("retrying", 1, NOW) if state == "failed" else (state, 0, None)
    assert (other.state, other.position, other.due_ms) == wanted
    well_formed(other, fallback)


# ---- attempts, age and unknown outcomes ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [A.RETRY, A.THROTTLE, A.UNKNOWN, A.REFRESH_TOKEN])
@pytest.mark.parametrize(
    ("attempts", "resends", "goes_on"), [(3, 0, True), (4, 0, False), (3, 1, False), (0, 4, False)]
)
def test_what_libcurl_sent_by_itself_counts_as_attempts(
    kind: AnswerClass, attempts: int, resends: int, goes_on: bool
) -> None:
    # Given five attempts at most, when an answer comes after so many and some more by libcurl
    alert = an_alert(route=("wechat",), attempts=attempts)
    step = after_answer(alert, an_answer(kind, resends=resends), policy(), NOW, 0.5)
    # Then the fifth is the last
    assert (step.state in OPEN) == goes_on
    if not goes_on:
        assert (step.state, step.reason) == ("failed", "retries-exhausted")


def test_a_channel_that_is_not_set_up_right_costs_an_alert_no_attempts() -> None:
    # Given a provider that refuses everything until a person acts, when it does so for the ninth time
    alert = an_alert(attempts=8)
    step = after_answer(alert, an_answer(A.CONFIGURATION, pause_ms=60_000), policy(), NOW, 0.5)
    # Then the alert stays: its lane does the waiting
    assert (step.state, step.position, step.due_ms) == ("retrying", 0, NOW + 500)
    # And only its age sends it to the next channel
    old = an_alert(expires_ms=NOW + 500)
    assert after_answer(old, an_answer(A.CONFIGURATION), policy(), NOW, 0.5).position == 1


def test_a_retry_waits_as_long_as_it_was_asked_to_and_ends_with_the_alerts_age() -> None:
    paused = an_answer(A.THROTTLE, "http-429", pause_ms=20_000)
    step = after_answer(an_alert(expires_ms=NOW + 20_501), paused, policy(), NOW, 0.5)
    assert step.due_ms == NOW + 20_500
    # When it would come too late, the next channel is tried at once
    step = after_answer(an_alert(expires_ms=NOW + 20_500), paused, policy(), NOW, 0.5)
    assert (step.state, step.position, step.due_ms) == ("retrying", 1, NOW)


def test_a_long_pause_of_ours_begins_short_and_grows() -> None:
    # Given a spent quota, whose pause is a quarter of an hour
    spent = an_answer(A.THROTTLE, "45009", pause_ms=900_000)
    patient = ChannelPolicy(RetryPolicy(max_attempts=100), resend_unknown=True, receipt_ms=None)
    dues = [
        after_answer(an_alert(attempts=attempts, expires_ms=NOW + 10**9), spent, patient, NOW, 0.0).due_ms
        for attempts in (0, 1, 2, 8, 9, 50)
    ]
    # Then the first looks come soon, the later ones after the whole pause
    assert [due - NOW for due in dues if due is not None] == [2_000, 4_000, 8_000, 512_000, 900_000, 900_000]


@pytest.mark.parametrize(
    ("first_ms", "due_in_ms", "resent"),
    [
        (None, 500, True),
        (NOW - WINDOW_MS + 501, 500, True),
        (NOW - WINDOW_MS + 500, 500, False),
        (NOW - 3_600_000, 0, False),
    ],
)
def test_an_unknown_outcome_is_resent_only_while_the_provider_knows_it(
    first_ms: int | None, due_in_ms: int, resent: bool
) -> None:
    # Given a provider that recognises a resend for nine minutes after the first attempt
    alert = an_alert(attempts=1, first_attempt_ms=first_ms, expires_ms=NOW + 86_400_000)
    within = policy(window_ms=WINDOW_MS)
    step = after_answer(alert, an_answer(A.UNKNOWN, msgid=None), within, NOW, due_in_ms / 2_000)
    well_formed(step, alert)
    # Then later than that it would be a second message, and the next channel's turn
    assert (step.state, step.position) == ("retrying", 0 if resent else 1)
    alone = msgspec.structs.replace(alert, route=("wechat",))
    last = after_answer(alone, an_answer(A.UNKNOWN), within, NOW, due_in_ms / 2_000)
    # And where there is no next channel it is tried further: a late alert, perhaps twice, rather than none
    assert (last.state, last.position) == ("retrying", 0)
    # And what never left, or was refused, is tried as long as it likes
    for kind in (A.RETRY, A.THROTTLE, A.CONFIGURATION):
        assert after_answer(alert, an_answer(kind), within, NOW, 0.5).position == 0


def test_the_window_begins_with_the_attempt_and_not_with_its_answer() -> None:
    # Given a first attempt that took longer than the window, when its outcome is unknown, then it is too late
    slow = an_answer(A.UNKNOWN, took_ms=WINDOW_MS)
    assert after_answer(an_alert(), slow, policy(window_ms=WINDOW_MS), NOW, 0.0).position == 1


@pytest.mark.parametrize("by_key", [False, True])
def test_an_outcome_left_to_its_receipt_can_be_known_by_it(by_key: bool) -> None:
    # Given a gateway whose reports carry our key, when no answer was seen or the process died
    alert = an_alert(route=("sms",))
    left = policy(resend=False, receipt=True, by_key=by_key)
    unseen = an_answer(A.UNKNOWN, msgid=None)
    for step in (after_answer(alert, unseen, left, NOW, 0.5), after_interruption(alert, left, NOW)):
        # Then the alert waits for the report of that key
        assert (step.state, step.due_ms) == ("awaiting", NOW + RECEIPT_MS)
        assert step.msgid == (alert.key if by_key else None)
        well_formed(step, alert)


def test_an_interrupted_alert_is_resent_or_left_as_configured() -> None:
    alert = an_alert(route=("wechat",), attempts=1, first_attempt_ms=NOW - 1_000, state="interrupted")
    again = after_interruption(alert, policy(window_ms=WINDOW_MS), NOW)
    assert (again.state, again.due_ms, again.outcome) == ("retrying", NOW, None)
    left = after_interruption(alert, policy(resend=False), NOW)
    assert (left.state, left.reason) == ("failed", "unknown-outcome")
    # And however long its process was dead, since most of what it held never left; but not for ever when it may be
    # what kills the process
    old = msgspec.structs.replace(alert, first_attempt_ms=NOW - WINDOW_MS)
    assert after_interruption(old, policy(window_ms=WINDOW_MS), NOW).state == "retrying"
    tired = msgspec.structs.replace(alert, attempts=RETRY.max_attempts)
    assert after_interruption(tired, policy(), NOW).reason == "retries-exhausted"
    for step in (again, left):
        well_formed(step, alert)


# ---- any sequence of answers --------------------------------------------------------------------------------------

answers = st.builds(
    Answer,
    kind=st.sampled_from(AnswerClass),
    code=st.just("17"),
    msgid=st.none() | st.just("m-1"),
    pause_ms=st.sampled_from([0, 0, 1_000, 10**9]),
    took_ms=st.integers(0, 20_000),
    resends=st.sampled_from([0, 0, 0, 1, 5]),
)
policies = st.builds(
    ChannelPolicy,
    retry=st.builds(RetryPolicy, max_attempts=st.integers(1, 12)),
    resend_unknown=st.booleans(),
    receipt_ms=st.none() | st.integers(1, 10**6),
    resend_window_ms=st.none() | st.just(WINDOW_MS),
    receipts_by_key=st.booleans(),
)


def recorded(step: Step) -> Alert:
    """The alert as the ledger would give it out again, or the engine put it back."""
    alert = step.alert
    same = step.position == alert.position
    tried = step.outcome is not None
    return msgspec.structs.replace(
        alert,
        position=step.position,
        attempts=alert.attempts + (1 + step.resends if tried else 0),
        first_attempt_ms=(alert.first_attempt_ms or step.at_ms - step.took_ms if tried else alert.first_attempt_ms)
        if same
        else None,
        state=step.state,
        token_refreshed=step.keep_lease,
    )


@given(
    channels=st.integers(1, 4),
    draws=st.lists(st.tuples(answers, st.floats(0, 1, exclude_max=True)), min_size=20, max_size=20),
    rule=policies,
    left_ms=st.integers(1, 10**7),
    always=st.none() | st.sampled_from(AnswerClass),
)
def test_any_sequence_of_answers_comes_to_an_end(
    channels: int,
    draws: list[tuple[Answer, float]],
    rule: ChannelPolicy,
    left_ms: int,
    always: AnswerClass | None,
) -> None:
    # Given any open alert and any policy
    alert = an_alert(route=("wechat", "sms", "email", "webhook")[:channels], expires_ms=NOW + left_ms)
    now_ms, sent, paused = NOW, 0, 0
    while True:
        # When any answer comes (or always the same class), and the clock goes on to what is due
        assert sent < rule.retry.max_attempts + channels
        answer, draw = draws[(sent + paused) % len(draws)]
        if always is not None:
            answer = msgspec.structs.replace(answer, kind=always)
        step = after_answer(alert, answer, rule, now_ms, draw)
        well_formed(step, alert)
        if answer.kind is A.CONFIGURATION:
            now_ms, paused = now_ms + 60_000, paused + 1  # the lane's pause; the alert's age is what ends this
        else:
            sent += 1
        if step.state == "awaiting":
            assert step.due_ms is not None
            now_ms = step.due_ms
            alert = recorded(step)
            step = after_deadline(alert, now_ms)
            well_formed(step, alert)
        # Then it ends after its attempts and one more for each channel, at the latest
        if step.ended:
            break
        now_ms = max(now_ms, step.due_ms or 0)
        alert = recorded(step)
        if now_ms >= alert.expires_ms:
            assert after_expiry(alert, now_ms).state == "expired"
            break


@given(
    attempts=st.integers(0, 30), rule=policies, ago_ms=st.none() | st.integers(0, 10**7), left_ms=st.integers(-9, 10**6)
)
def test_an_interruption_always_has_a_step(
    attempts: int, rule: ChannelPolicy, ago_ms: int | None, left_ms: int
) -> None:
    first_ms = None if ago_ms is None else NOW - ago_ms
    alert = an_alert(attempts=attempts, first_attempt_ms=first_ms, expires_ms=NOW + left_ms, state="interrupted")
    well_formed(after_interruption(alert, rule, NOW), alert)


# ---- as the ledger writes it down -----------------------------------------------------------------------------------


async def test_attempts_and_the_window_are_what_the_ledger_keeps() -> None:
    # Given an alert in a ledger
    ledger = InlineLedger(":memory:")
    owner = await owner_of(ledger)
    await ledger.import_recipients([recipient()])
    (alert,) = (await ledger.admit([accepted("e-1")], NOW, owner, Tell())).alerts
    assert (alert.attempts, alert.first_attempt_ms, alert.channel) == (0, None, "wechat")

    async def step_and_lease(alert: Alert, answer: Answer, now_ms: int) -> Alert:
        step = after_answer(alert, answer, policy(window_ms=WINDOW_MS), now_ms, 0.0)
        assert step.due_ms is not None
        await ledger.record([step], owner)
        (leased,) = await ledger.due(alert.route[step.position], step.due_ms, owner, 10, "sending")
        assert leased == msgspec.structs.replace(recorded(step), event=leased.event, recipient=leased.recipient)
        return leased

    # When an answer comes that libcurl had asked for twice, then both count, from the start of the attempt
    alert = await step_and_lease(alert, an_answer(A.RETRY, resends=1, took_ms=40), NOW + 100)
    assert (alert.attempts, alert.first_attempt_ms) == (2, NOW + 60)
    # When there is a second answer, then the first attempt stays the first
    alert = await step_and_lease(alert, an_answer(A.UNKNOWN, msgid=None), NOW + 5_000)
    assert (alert.attempts, alert.first_attempt_ms) == (3, NOW + 60)
    # When the next channel's turn comes, then its window has not begun, and attempts count on
    alert = await step_and_lease(alert, an_answer(A.PERMANENT), NOW + 6_000)
    assert (alert.channel, alert.attempts, alert.first_attempt_ms) == ("sms", 4, None)
    # And the fifth attempt is the last of five
    step = after_answer(alert, an_answer(A.RETRY), policy(), NOW + 7_000, 0.0)
    assert (step.state, step.reason) == ("failed", "retries-exhausted")
    await ledger.record([step], owner)
    story = await alert_story(ledger, "e-1")
    assert [(one.n, one.channel, one.outcome) for one in story.attempts] == [
        (1, "wechat", "unknown"),
        (2, "wechat", "retry"),
        (3, "wechat", "unknown"),
        (4, "wechat", "permanent"),
        (5, "sms", "retry"),
    ]
    await ledger.aclose()
