"""Status reports of all SMS vendors, as the receipts listener takes them.

``msgid`` is what `Answer.msgid` was at the send: our key behind the vendor's name (see `VendorChannel`), or the generic
gateway's own id. A report that names neither is passed over: no alert could be found by it.
"""

from __future__ import annotations

import re

import msgspec

from dispatcher.channels.base import MAX_MSGID_CHARS

_KEY = re.compile(r"[0-9a-f]{32}")


class UnreadableReports(Exception):
    """The body of a push is not what the vendor sends. Quotes nothing of it."""


class Report(msgspec.Struct, frozen=True, gc=False):
    """One message's last word. ``code`` is the vendor's, unchecked: it may be anything."""

    msgid: str
    delivered: bool
    code: str | int | None = None

    def __repr__(self) -> str:
        return "<Report ****>"


def report_id(ours: str | None, theirs: str) -> str | None:
    """Our key when it came back, otherwise the vendor's id; None when there is neither, or one too long to be one."""
    if ours is not None and _KEY.fullmatch(ours):
        return ours
    return theirs if 0 < len(theirs) <= MAX_MSGID_CHARS else None
