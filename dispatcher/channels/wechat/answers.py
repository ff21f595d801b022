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


_TOKEN = Row(AnswerClass.REFRESH_TOKEN, "channel")
_GONE = Row(AnswerClass.RECIPIENT_GONE, "recipient")
_TEMPLATE = Row(AnswerClass.PERMANENT, "template")
_MESSAGE = Row(AnswerClass.PERMANENT, "message")
_CONFIG = Row(AnswerClass.CONFIGURATION, "channel", CONFIGURATION_PAUSE_MS)

_ROWS: dict[int, Row] = {
    0: Row(AnswerClass.ACCEPTED, "message"),
    -1: Row(AnswerClass.RETRY, "channel"),
    40001: _TOKEN,
    40014: _TOKEN,
    42001: _TOKEN,
    41001: _TOKEN,
    40003: _GONE,
    43004: _GONE,
    50005: _GONE,
    43019: _GONE,
    48002: _GONE,
    43101: Row(AnswerClass.OPTED_OUT, "template"),
    50002: Row(AnswerClass.THROTTLE, "recipient", RECIPIENT_PAUSE_MS),
    43117: Row(AnswerClass.THROTTLE, "recipient", RECIPIENT_PAUSE_MS),
    43108: Row(AnswerClass.THROTTLE, "recipient", THROTTLE_PAUSE_MS),
    45011: Row(AnswerClass.THROTTLE, "channel", THROTTLE_PAUSE_MS),
    45009: Row(AnswerClass.QUOTA, "channel", UNTIL_QUOTA_MS),
    # "message is duplicate in 60 seconds": WeChat has it already. Counting it as accepted cannot repeat it; the
    # receipt, where one is waited for, has the last word.
    40241: Row(AnswerClass.ACCEPTED, "message"),
    # Held for review; if it passes WeChat sends it itself, so a resend would be a second message.
    40252: Row(AnswerClass.ACCEPTED, "message"),
    40249: _MESSAGE,
    45168: _MESSAGE,
    40036: _TEMPLATE,
    40037: _TEMPLATE,
    43116: _TEMPLATE,
    43100: _TEMPLATE,
    47003: _MESSAGE,
    44002: _MESSAGE,
    47001: _MESSAGE,
    40013: _CONFIG,
    40125: _CONFIG,
    40164: _CONFIG,
    40165: _TEMPLATE,
    41030: _TEMPLATE,
    40243: _CONFIG,
    43107: _CONFIG,
    48001: _CONFIG,
    48004: _CONFIG,
    48008: _CONFIG,
    61007: _CONFIG,
    45103: _CONFIG,
    45109: _CONFIG,
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
