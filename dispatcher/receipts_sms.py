"""Where the SMS vendors push their status reports to, and how each is read and thanked.

``/sms`` is the generic gateway's, ``/sms/second`` that of a generic gateway which is the second vendor, ``/sms/aliyun``
and ``/sms/tencent`` are the vendors'. Each path gives ids that no other can give (see `pushes`), so a report of one
vendor cannot end an alert that is with the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from dispatcher.channels.base import MAX_MSGID_CHARS
from dispatcher.channels.sms.aliyun import reports as aliyun
from dispatcher.channels.sms.generic import SECOND_PREFIX
from dispatcher.channels.sms.pushes import Report, UnreadableReports
from dispatcher.channels.sms.tencent import reports as tencent
from dispatcher.httpd import Answer


class SmsPush(msgspec.Struct, frozen=True):
    """``read`` raises `UnreadableReports`; ``taken`` is the answer once the reports are durable."""

    read: Callable[[bytes], list[Report]]
    taken: Answer


class _GenericReport(msgspec.Struct, gc=False):
    id: str
    status: str
    code: str | int | None = None


_decode = msgspec.json.Decoder(_GenericReport | list[_GenericReport]).decode

_OTHERS = ("aliyun:", "tencent:", SECOND_PREFIX)


def _read_generic(prefix: str, body: bytes) -> list[Report]:
    """One report or an array (design.md section 4)."""
    try:
        reports = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnreadableReports from None
    several = reports if isinstance(reports, list) else [reports]
    # A send with a longer id was not taken for accepted; cut, it might be another's.
    return [
        Report(prefix + one.id, one.status == "delivered", one.code)
        for one in several
        if 0 < len(one.id) <= MAX_MSGID_CHARS and not one.id.startswith(_OTHERS)
    ]


_TAKEN = Answer(b'{"code":0}')

SMS_PUSHES = {
    "/sms": SmsPush(partial(_read_generic, ""), _TAKEN),
    "/sms/second": SmsPush(partial(_read_generic, SECOND_PREFIX), _TAKEN),
    "/sms/aliyun": SmsPush(aliyun.read_reports, Answer(aliyun.TAKEN)),
    "/sms/tencent": SmsPush(tencent.read_reports, Answer(tencent.TAKEN)),
}
