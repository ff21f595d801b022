"""Aliyun's status reports, the push ``SmsReport`` (providers.md section 6.1)."""

from __future__ import annotations

import msgspec

from dispatcher.channels.sms.pushes import Report, UnreadableReports, report_id

TAKEN = b'{"code":0,"msg":"ok"}'
"""What says that we have them; after anything else they come again in 1, 5 and 10 minutes."""


class _Report(msgspec.Struct, gc=False):
    success: bool
    biz_id: str = ""
    out_id: str | None = None
    err_code: str | None = None


_decode = msgspec.json.Decoder(list[_Report]).decode


def read_reports(body: bytes) -> list[Report]:
    """The reports of one push, known by our ``OutId``. Raises `UnreadableReports`."""
    try:
        reports = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UnreadableReports from None
    return [
        Report("aliyun:" + key, one.success, one.err_code)
        for one in reports
        if (key := report_id(one.out_id, one.biz_id)) is not None
    ]
