"""What supervisor and worker say to each other: msgpack frames, each after its length, over one socket pair.

    supervisor → worker   Start (once, first), Ask, Stop
    worker → supervisor   Ready (once), Report (every second, when asked, and last), Failed (before it ends by an error)

A closed socket is a word too: the other side is gone.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import msgspec
import trio

from dispatcher.config import Config
from dispatcher.errors import SwipebellError
from dispatcher.totals import Totals, decode_hook, encode_hook

MAX_FRAME_BYTES = 1024 * 1024
"""A report with two full histograms has 40 KiB; whatever is larger was not written by us."""

SEND_S = 10.0
"""So long may a frame take to be sent: a peer that does not read for longer hangs."""

_LENGTH = struct.Struct(">I")


class Start(msgspec.Struct, tag=True, frozen=True, kw_only=True):
    """What a worker is to do. ``listeners`` maps a configuration section to the descriptor of its listening socket;
    ``lines`` is the descriptor on which events come (``send``), None where they come through listeners (``run``)."""

    index: int
    processes: int
    config: Config
    listeners: dict[str, int] = {}
    lines: int | None = None
    restamped: bool = False


class Ask(msgspec.Struct, tag=True, frozen=True):
    """Report now."""


class Stop(msgspec.Struct, tag=True, frozen=True):
    """Take nothing more in, drain, report and end."""


class Ready(msgspec.Struct, tag=True, frozen=True):
    """The worker can admit events."""


class Report(msgspec.Struct, tag=True, frozen=True):
    """Counts since the worker's start. ``trouble``: why it cannot write just now."""

    totals: Totals
    trouble: str | None = None


class Failed(msgspec.Struct, tag=True, frozen=True):
    """The worker ends by this error: the name of its class, and its one line."""

    kind: str
    message: str


ToWorker = Start | Ask | Stop
FromWorker = Ready | Report | Failed


def _encode_hook(value: object) -> Any:
    return str(value) if isinstance(value, Path) else encode_hook(value)


def _decode_hook(kind: type, value: Any) -> Any:
    return Path(value) if kind is Path else decode_hook(kind, value)


_encode = msgspec.msgpack.Encoder(enc_hook=_encode_hook).encode
_decode_to_worker = msgspec.msgpack.Decoder(ToWorker, dec_hook=_decode_hook).decode
_decode_from_worker = msgspec.msgpack.Decoder(FromWorker, dec_hook=_decode_hook).decode


class FramesBroken(SwipebellError):
    """The other side's fault: what came is no frame of ours."""


class _Frames:
    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._sending = trio.Lock()
        self._buffer = bytearray()

    async def send(self, frame: ToWorker | FromWorker) -> bool:
        """Send a frame; False when the other side is gone. Cancelled while it waits for its turn, it sends nothing;
        later it is seen through, because half a frame would spoil all that follow."""
        payload = _encode(frame)
        async with self._sending:
            with trio.CancelScope(shield=True), trio.move_on_after(SEND_S) as patience:
                try:
                    await self._stream.send_all(_LENGTH.pack(len(payload)) + payload)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return False
            if patience.cancelled_caught:
                await trio.aclose_forcefully(self._stream)
        return not patience.cancelled_caught

    async def _receive(self) -> bytes | None:
        """The next frame's bytes; None when the other side is gone. Cancelled, nothing is lost."""
        size = None
        while True:
            if size is None and len(self._buffer) >= _LENGTH.size:
                size = _LENGTH.unpack_from(self._buffer)[0] + _LENGTH.size
                if size > MAX_FRAME_BYTES:
                    raise FramesBroken(f"a frame of {size:,} bytes was announced; the other side is not a Swipebell")
            if size is not None and len(self._buffer) >= size:
                frame = bytes(self._buffer[_LENGTH.size : size])
                del self._buffer[:size]
                return frame
            try:
                chunk = await self._stream.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
            if not chunk:
                return None
            self._buffer += chunk

    async def aclose(self) -> None:
        """Close the socket."""
        await self._stream.aclose()


class SupervisorsEnd(_Frames):
    """The end that the supervisor holds."""

    async def receive(self) -> FromWorker | None:
        """The next frame; None when the worker is gone. Raises `FramesBroken`."""
        payload = await self._receive()
        try:
            return None if payload is None else _decode_from_worker(payload)
        except msgspec.MsgspecError as error:
            raise FramesBroken(f"a frame cannot be read ({type(error).__name__})") from None


class WorkersEnd(_Frames):
    """The end that a worker holds."""

    async def receive(self) -> ToWorker | None:
        """The next frame; None when the supervisor is gone. Raises `FramesBroken`."""
        payload = await self._receive()
        try:
            return None if payload is None else _decode_to_worker(payload)
        except msgspec.MsgspecError as error:
            raise FramesBroken(f"a frame cannot be read ({type(error).__name__})") from None
