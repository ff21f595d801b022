"""Tencent's status reports (providers.md section 6.2): an array of at most 100 in one push."""

from __future__ import annotations

import msgspec

from dispatcher.channels.sms.pushes import Report, UnreadableReports, report_id

TAKEN = b'{"result":0,"errmsg":"OK"}'
"""What says that we have them; after anything else they come twice more."""


class _Report(msgspec.Struct, gc=False):
    report_status: str
    sid: str = ""
    ext: str | None = None
    errmsg: str | None = None


_decode = msgspec.json.Decoder(list[_Report]).decode


def read_reports(body: bytes) -> list[Report]:
    """The reports of one push, known by our ``SessionContext``. Raises `UnreadableReports`."""
    try:
        reports = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnreadableReports from None
    return [
        Report("tencent:" + key, one.report_status == "SUCCESS", one.errmsg)
        for one in reports
        if (key := report_id(one.ext, one.sid)) is not None
    ]
