"""What the HTTP status of a webhook's receiver means. Its body is never looked at."""

from __future__ import annotations

from dispatcher.channels.base import (
    CONFIGURATION_PAUSE_MS,
    MAX_PAUSE_MS,
    THROTTLE_PAUSE_MS,
    classify_failure,
)
from dispatcher.channels.table import NOT_IN_TABLE, AnswerTable, Row
from dispatcher.delivery import Answer, AnswerClass
from dispatcher.network.api import Response

_A = AnswerClass


def _ours(note: str, pause_ms: int = CONFIGURATION_PAUSE_MS) -> Row:
    return Row(AnswerClass.CONFIGURATION, "channel", pause_ms, note)


TABLE = AnswerTable(
    "webhook",
    "Standard Webhooks, section on delivery; RFC 9110 section 15",
    {
        "http-2xx": Row(_A.ACCEPTED, note="received"),
        # Following it would take our data wherever the answer points.
        "http-3xx": _ours("a redirect, which is not followed: correct the url"),
        "http-4xx": Row(_A.PERMANENT, "message", 0, "refused"),
        "http-401": _ours("signature or credentials refused"),
        "http-403": _ours("signature or credentials refused"),
        "http-404": _ours("nothing at this url"),
        "http-405": _ours("no POST at this url"),
        "http-407": _ours("a proxy wants credentials"),
        "http-408": Row(_A.UNKNOWN, "channel", 0, "receiver waited too long for the request"),
        "http-410": _ours("the receiver wants no more: take the section out of the configuration", MAX_PAUSE_MS),
        "http-421": _ours("another host than the one asked answers at this url"),
        "http-425": Row(_A.RETRY, "channel", 0, "too early"),
        "http-429": Row(_A.THROTTLE, "channel", THROTTLE_PAUSE_MS, "too many"),
        # A proxy may have failed after the receiver had the request. It knows a resend by its id.
        "http-5xx": Row(_A.UNKNOWN, "channel", 0, "receiver failed"),
    },
)
"""A row with xx stands for every status of its class that has no row of its own: the classes are HTTP's own."""


def classify(response: Response) -> Answer:
    """What the status, or its absence, means."""
    if response.failure is not None:
        return classify_failure(response)
    code = f"http-{response.status}"
    row = _row(code) or NOT_IN_TABLE
    pause_ms = max(row.pause_ms, min(response.retry_after_s * 1000, MAX_PAUSE_MS))
    took_ms = round(response.seconds * 1000)
    return Answer(row.kind, code, None, pause_ms, row.scope, took_ms, response.resends)


def knows(code: str) -> bool:
    """Whether an answer's code is in the table or is ours."""
    return code.startswith("network-") or _row(code) is not None


def _row(code: str) -> Row | None:
    if len(code) != len("http-200"):
        return None
    return TABLE.rows.get(code) or TABLE.rows.get(f"{code[:-2]}xx")
