"""What the simulated providers received, kept apart from the ledger so that the two can be compared."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import msgspec

from loadtest.providers.latest import Latest

MAX_MESSAGES: Final = 2_000_000
"""Messages of a channel that are listed, at about 0.4 KiB each; later ones are counted (``unlisted``)."""
MAX_BUFFER_BYTES: Final = 256 * 1024
"""Lines that wait in memory before they are written to the book's file, besides the flush every second."""
FLUSH_SECONDS: Final = 1.0

_encoder = msgspec.json.Encoder()


class _Row(msgspec.Struct, gc=False):
    """A row holds a phone or an openid, so it prints as its class only."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} ****>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []


class WechatMessage(_Row, gc=False):
    """One message that reached the cardholder. ``at`` is epoch seconds of its first acceptance.

    ``times_seen`` counts the requests that were accepted with its ``client_msg_id``; ``status`` is what the
    delivery report says, None while there is none; ``report_lost``: and nobody will hear it.
    """

    openid: str
    client_msg_id: str | None
    msgid: int
    at: float
    times_seen: int = 1
    data: dict[str, str] | None = None
    status: str | None = None
    report_lost: bool = False


class SmsMessage(_Row, gc=False):
    """One text message. ``times_seen`` is 1 for the first with its ``id``, 2 for the next: each was sent."""

    id: str
    to: str
    at: float
    times_seen: int = 1
    text: str | None = None
    status: str | None = None
    report_lost: bool = False


class ReceiptCounts(msgspec.Struct):
    """Delivery reports: ``posted`` were taken by the receiver, ``given_up`` were not after the last try.

    ``lost`` were never sent (on purpose, or because too many waited); ``duplicated`` were sent twice.
    """

    planned: int = 0
    posted: int = 0
    retried: int = 0
    given_up: int = 0
    lost: int = 0
    duplicated: int = 0


class Counts(msgspec.Struct):
    """One channel's counters. ``requests`` are sends, and each is in ``accepted`` or in ``refused``.

    ``accepted`` = ``delivered`` + ``deduplicated``; ``resets`` are accepted ones whose answer was a reset. ``down`` are
    calls of any kind that were cut off while the provider was down, ``crowded`` sends that were refused for the crowd.
    A client that fetches each token once has as many ``token_requests`` as ``tokens_issued``, and one that only fetches
    when it must has one more than ``tokens_refused``, the different tokens of ours that a send was refused with.
    """

    requests: int = 0
    accepted: int = 0
    delivered: int = 0
    deduplicated: int = 0
    resets: int = 0
    unlisted: int = 0
    token_requests: int = 0
    tokens_issued: int = 0
    tokens_refused: int = 0
    down: int = 0
    crowded: int = 0
    forced_refreshes: int = 0
    refused: dict[str, int] = {}
    receipts: ReceiptCounts = msgspec.field(default_factory=ReceiptCounts)

    def refuse(self, code: int | str) -> None:
        """Count one refusal under its code (``"43004"``, ``"http502"``)."""
        key = str(code)
        self.refused[key] = self.refused.get(key, 0) + 1


class Book:
    """The record of both channels.

    With a file, each acceptance is appended to it as one line, buffered; ``flush`` writes what is buffered.
    Raises ``OSError`` from the constructor, ``flush`` and the recording methods when the file cannot be
    written.
    """

    def __init__(self, *, keep_bodies: int, file: Path | None = None) -> None:
        self._keep_bodies = keep_bodies
        # Simulated or not, the lines carry openids and phones: for the owner's eyes only.
        self._file = None if file is None else os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._buffer: list[bytes] = []
        self._buffered_bytes = 0
        self.clear()

    def clear(self) -> None:
        """Forget every message and counter; lines already in the file stay."""
        self.wechat = Counts()
        self.sms = Counts()
        self.wechat_messages: list[WechatMessage] = []
        self.sms_messages: list[SmsMessage] = []
        self._by_client_id: Latest[tuple[str, str], WechatMessage] = Latest()
        self._by_sms_id: Latest[str, SmsMessage] = Latest()

    def same_message(self, openid: str, client_msg_id: str, since: float) -> WechatMessage | None:
        """This user's message with this ``client_msg_id``, if it was first accepted after ``since``."""
        message = self._by_client_id.get((openid, client_msg_id))
        return None if message is None or message.at <= since else message

    def deliver_wechat(
        self, *, openid: str, client_msg_id: str | None, msgid: int, data: dict[str, str], now: float
    ) -> WechatMessage:
        """Record an accepted message that reaches the cardholder."""
        kept = data if self.wechat.delivered < self._keep_bodies else None
        message = WechatMessage(openid, client_msg_id, msgid, now, 1, kept)
        self.wechat.accepted += 1
        self.wechat.delivered += 1
        if client_msg_id is not None:
            self._by_client_id.put((openid, client_msg_id), message)
        self._list(self.wechat, self.wechat_messages, message)
        if self._file is not None:
            self._write_wechat(message, now, delivered=True)
        return message

    def repeat_wechat(self, message: WechatMessage, now: float) -> None:
        """Record an accepted request that WeChat deduplicates: the cardholder sees nothing new."""
        message.times_seen += 1
        self.wechat.accepted += 1
        self.wechat.deduplicated += 1
        if self._file is not None:
            self._write_wechat(message, now, delivered=False)

    def deliver_sms(self, *, message_id: str, to: str, text: str, now: float) -> SmsMessage:
        """Record an accepted text message."""
        before = self._by_sms_id.get(message_id)
        kept = text if self.sms.delivered < self._keep_bodies else None
        message = SmsMessage(message_id, to, now, 1 if before is None else before.times_seen + 1, kept)
        self._by_sms_id.put(message_id, message)
        self.sms.accepted += 1
        self.sms.delivered += 1
        self._list(self.sms, self.sms_messages, message)
        if self._file is not None:
            line = {"channel": "sms", "at": now, "id": message_id, "to": to, "delivered": True, "text": kept}
            self._write(_encoder.encode(line))
        return message

    def flush(self) -> None:
        """Write the buffered lines to the file (to the system, not to the disk)."""
        if self._file is None or not self._buffer:
            return
        rest = memoryview(b"".join(self._buffer))
        self._buffer.clear()
        self._buffered_bytes = 0
        while rest:
            rest = rest[os.write(self._file, rest) :]

    def close(self) -> None:
        """Flush and close the file; recording goes on without it."""
        try:
            self.flush()
        finally:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _list(self, counts: Counts, messages: list[Any], message: WechatMessage | SmsMessage) -> None:
        if len(messages) < MAX_MESSAGES:
            messages.append(message)
        else:
            counts.unlisted += 1

    def _write_wechat(self, message: WechatMessage, now: float, *, delivered: bool) -> None:
        line = {
            "channel": "wechat",
            "at": now,
            "openid": message.openid,
            "client_msg_id": message.client_msg_id,
            "msgid": message.msgid,
            "delivered": delivered,
            "data": message.data if delivered else None,
        }
        self._write(_encoder.encode(line))

    def _write(self, line: bytes) -> None:
        self._buffer += (line, b"\n")
        self._buffered_bytes += len(line) + 1
        if self._buffered_bytes >= MAX_BUFFER_BYTES:
            self.flush()
