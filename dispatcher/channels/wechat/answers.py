"""WeChat's answers to a template message, as a table.

Source: ../shared/providers.md section 2.4, which gives the grade of evidence of each code. A code that is not here is
a permanent failure with an alarm, never a success.
"""

from __future__ import annotations

import msgspec

from dispatcher.channels.base import (
    CONFIGURATION_PAUSE_MS,
    THROTTLE_PAUSE_MS,
    classify_failure,
    classify_status,
)
from dispatcher.channels.table import AnswerTable, Row
from dispatcher.delivery import Answer, AnswerClass
from dispatcher.model.event import Int64
from dispatcher.network.api import Response

RECIPIENT_PAUSE_MS = 60_000
"""For a recipient who is limited: long after a burst of one card's swipes."""

UNTIL_QUOTA_MS = 5 * 60_000
"""45009 holds until midnight in China or until someone clears the quota. An alert without another channel looks again
after a while; whether it is then handed over, the budget says (`dispatcher.channels.wechat.budget`)."""


def _token(note: str) -> Row:
    return Row(AnswerClass.REFRESH_TOKEN, "channel", 0, note)


def _gone(note: str) -> Row:
    return Row(AnswerClass.RECIPIENT_GONE, "recipient", 0, note)


def _template(note: str) -> Row:
    return Row(AnswerClass.PERMANENT, "template", 0, note)


def _message(note: str) -> Row:
    return Row(AnswerClass.PERMANENT, "message", 0, note)


def _config(note: str) -> Row:
    return Row(AnswerClass.CONFIGURATION, "channel", CONFIGURATION_PAUSE_MS, note)


_ROWS: dict[int, Row] = {
    0: Row(AnswerClass.ACCEPTED, "message", 0, "taken; the receipt has the last word"),
    -1: Row(AnswerClass.RETRY, "channel", 0, "system busy"),
    40001: _token("the token is not the newest"),
    40014: _token("no such token"),
    42001: _token("the token has expired"),
    41001: _token("the token is missing"),
    40003: _gone("no such openid for this account"),
    43004: _gone("no longer follows the account"),
    50005: _gone("has unsubscribed"),
    43019: _gone("on the account's blacklist"),
    48002: _gone("has switched messages of the account off"),
    43101: Row(AnswerClass.OPTED_OUT, "template", 0, "has switched this template off"),
    50002: Row(AnswerClass.THROTTLE, "recipient", RECIPIENT_PAUSE_MS, "the user is limited"),
    43117: Row(AnswerClass.THROTTLE, "recipient", RECIPIENT_PAUSE_MS, "too many to this user"),
    43108: Row(AnswerClass.THROTTLE, "recipient", THROTTLE_PAUSE_MS, "two at a time to one user"),
    45011: Row(AnswerClass.THROTTLE, "channel", THROTTLE_PAUSE_MS, "too many calls a minute"),
    45009: Row(AnswerClass.QUOTA, "channel", UNTIL_QUOTA_MS, "the daily quota is used up"),
    # "message is duplicate in 60 seconds": WeChat has it already. Counting it as accepted cannot repeat it; the
    # receipt, where one is waited for, has the last word.
    40241: Row(AnswerClass.ACCEPTED, "message", 0, "a duplicate within 60 seconds: it was sent already"),
    # Held for review; if it passes WeChat sends it itself, so a resend would be a second message.
    40252: Row(AnswerClass.ACCEPTED, "message", 0, "held for review (up to 30 minutes); WeChat sends it if it passes"),
    40249: _message("illegal content"),
    45168: _message("sensitive words"),
    40036: _template("the template_id has a wrong length"),
    40037: _template("no such template_id"),
    43116: _template("the template is banned"),
    43100: _template("the template was changed too often (old)"),
    47003: _message("a field breaks its type's rule"),
    44002: _message("the body is empty"),
    47001: _message("the body is not WeChat's JSON"),
    40013: _config("no such appid, or a mini-program that is not linked"),
    40125: _config("the secret is wrong"),
    40164: _config("our address is not on the allow-list"),
    40165: _template("the mini-program's path is wrong"),
    41030: _template("the page is not in the released mini-program"),
    40243: _config("the secret is frozen"),
    43107: _config("template messages are banned for the account"),
    48001: _config("the interface is not authorised"),
    48004: _config("the interface is banned"),
    48008: _config("no permission for this kind of message"),
    61007: _config("not authorised to the third-party platform"),
    45103: _config("the interface was withdrawn"),
    45109: _config("the interface was withdrawn"),
}


TABLE = AnswerTable(
    "wechat", "providers.md section 2.4, with the grade of evidence of each code", {str(c): r for c, r in _ROWS.items()}
)


class _Body(msgspec.Struct, gc=False):
    errcode: Int64 = 0
    msgid: Int64 | None = None


_decode = msgspec.json.Decoder(_Body).decode


def classify(response: Response) -> Answer:
    """What WeChat's answer means. HTTP 200 says nothing yet: ``errcode`` inside the body does."""
    if response.failure is not None:
        return classify_failure(response)
    answer = classify_status(response)
    if answer is not None:
        return answer
    took_ms = round(response.seconds * 1000)
    try:
        body = _decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # A page of some proxy, or an answer cut short: WeChat may have accepted before that.
        return Answer(AnswerClass.UNKNOWN, "unreadable", scope="channel", took_ms=took_ms, resends=response.resends)
    if body.errcode == 0 and body.msgid is None:
        # Another 200 from somewhere that is not WeChat's endpoint; nothing proves acceptance.
        return Answer(AnswerClass.UNKNOWN, "no-msgid", scope="channel", took_ms=took_ms, resends=response.resends)
    if body.errcode == 0:
        return Answer(AnswerClass.ACCEPTED, "0", str(body.msgid), 0, "message", took_ms, response.resends)
    row = TABLE.row(str(body.errcode))
    return Answer(
        row.kind,
        str(body.errcode),
        msgid=None if body.msgid is None else str(body.msgid),
        pause_ms=row.pause_ms,
        scope=row.scope,
        took_ms=took_ms,
        resends=response.resends,
    )


def is_known(code: str) -> bool:
    """Whether the table knows a code of an `Answer`; a code it does not know raises an alarm."""
    return not code.lstrip("-").isdigit() or TABLE.knows(code)
