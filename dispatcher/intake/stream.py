"""Stream intake: a connection that stays open, NDJSON in, cumulative acknowledgements out after each commit.

The peer writes a line when it has one and reads ``{"ack":LINE,…}``: every line up to LINE, counted from 1 on this
connection and blank lines included, is durable or refused. After a broken connection it goes on behind the last LINE
it has read; what was accepted beyond that is recognised as duplicate. docs/stream.md tells the peer's side.

An idle connection is one task that waits for bytes. Whoever finishes a batch writes the acknowledgement, unless a
write is under way, which then takes the new ones with it: a lone line is answered at once, a slow reader gets few and
large acknowledgements, and when it reads none, nothing more is read from it.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from enum import Enum
from math import inf

import msgspec
import trio

from dispatcher.engine import Engine
from dispatcher.errors import LeaseLost, LedgerFailed, LedgerUnavailable
from dispatcher.intake.acks import ACK_REJECTIONS, Acknowledgements, Batch
from dispatcher.intake.door import Taken, take
from dispatcher.intake.ndjson import READ_BYTES, LineSplitter
from dispatcher.model.private import Secret
from dispatcher.strictjson import BOM

ACK_WAIT_S = 60.0
"""So long a write may stand still; a peer that takes none of its acknowledgements for a minute is stuck."""

WRITE_BYTES = 16 * 1024
"""Written at once: the step by which ``ACK_WAIT_S`` sees progress, however long an acknowledgement is."""

OPENING_S = 10.0
"""A TLS handshake, and then the token, have so long each: who has not said who it is must not hold a place."""

TOKEN_LINE_BYTES = 8 * 1024
"""Longest first line with a token; token files are 4 KiB at most (``config_load.MAX_SECRET_BYTES``)."""

WRONG_TOKEN_S = 1.0
"""The same wait after every wrong token, whatever is wrong with it: guessing costs time."""

LINGER_S = 2.0
"""After an error line what still comes is thrown away for so long; closing at once would reset the connection, and
the peer might lose the very line that tells it why."""


class Ending(Enum):
    """Why a connection came to its end."""

    FINISHED = "finished"
    BROKEN = "broken"
    HANDSHAKE = "handshake"
    IDLE = "idle"
    SLOW = "slow"
    TOKEN = "token"  # noqa: S105 - the word, not a token
    FOREIGN = "foreign"
    LEDGER = "ledger"
    STOPPED = "stopped"


async def take_stream(
    engine: Engine,
    stream: trio.abc.Stream,
    *,
    restamped: bool = False,
    idle_seconds: float | None,
    token: Secret | None = None,
) -> None:
    """Serve one connection until the peer ends it or it cannot go on; closes ``stream``.

    ``restamped`` gives each event the present time. ``idle_seconds`` without a byte and with nothing outstanding
    close the connection (None: never). With ``token`` the first line has to be ``{"token":"…"}``; it is not counted.
    The peer's faults, a broken connection and a ledger that cannot write end in a last line ``{"error":…,"ack":…}``
    where it can still be said, and raise nothing. Cancelled, lines without acknowledgement may have been admitted;
    sent again, they are recognised.
    """
    await Connection(engine, stream, restamped=restamped, idle_seconds=idle_seconds, token=token).run()


class _TokenLine(msgspec.Struct):
    token: str


_decode_token = msgspec.json.Decoder(_TokenLine).decode


class Connection:
    """One connection, for whoever wants to stop it from outside; `take_stream` otherwise.

    ``read_bytes`` says how much to read at once: a listener with many connections gives each of them less.
    ``own_lines``: they come from a process of ours, so a first line that is no event is refused like any other.
    """

    def __init__(
        self,
        engine: Engine,
        stream: trio.abc.Stream,
        *,
        restamped: bool = False,
        idle_seconds: float | None,
        token: Secret | None = None,
        read_bytes: Callable[[], int] = lambda: READ_BYTES,
        own_lines: bool = False,
    ) -> None:
        self._engine = engine
        self._stream = stream
        self._restamped = restamped
        self._idle_seconds = inf if idle_seconds is None else idle_seconds
        self._token = token
        self._read_bytes = read_bytes
        self._own_lines = own_lines
        self._batch_lines = min(engine.config.batch_events, ACK_REJECTIONS)
        self._acks = Acknowledgements()
        self._heard = 0
        self._told = trio.Event()
        self._reading = trio.CancelScope()
        self._writing = False
        # Before the handshake is over nothing can be said, and after a failure nothing any more.
        self._mute = isinstance(stream, trio.SSLStream)
        self._ending = Ending.FINISHED
        self._error: str | None = None

    async def run(self) -> Ending:
        """Serve it to its end, see `take_stream`; returns why it ended."""
        try:
            async with trio.open_nursery() as nursery:
                with self._reading:
                    await self._read(nursery)
            if self._error is not None and not self._mute:
                await self._write(self._acks.error(self._error))
                await self._linger()
            if not self._mute:
                with trio.move_on_after(LINGER_S):  # under TLS it says farewell, which a deaf peer holds up
                    await self._stream.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # it broke while we closed it
        finally:
            await trio.aclose_forcefully(self._stream)
        return self._ending

    def end(self, ending: Ending, error: str | None) -> None:
        """Read no further, let the batches under way finish, acknowledge them, say ``error`` and close.

        The first reason stays. Returns at once; `run` returns when it is done.
        """
        if self._ending is Ending.FINISHED:
            self._ending, self._error = ending, error
        self._reading.cancel()

    def _lose(self, ending: Ending = Ending.BROKEN) -> None:
        """Nothing can be said any more; batches under way still finish."""
        self._mute = True
        self.end(ending, None)

    # ---- in ---------------------------------------------------------------------------------------------------

    async def _read(self, nursery: trio.Nursery) -> None:
        chunk = await self._open()
        splitter = LineSplitter()
        opening: bytes | None = None if self._own_lines else b""
        while chunk is not None:
            if opening is not None:
                opening = (opening + chunk).lstrip()
                if (error := _foreign(opening)) is not None:
                    self.end(Ending.FOREIGN, error)
                    return
                opening = None if opening.removeprefix(BOM).lstrip() else opening[: len(BOM)]
            lines = splitter.feed(chunk)
            del chunk  # up to 256 KiB, while we may wait for room
            await self._hand_over(lines, splitter.line, nursery)
            del lines
            chunk = await self._receive()
        if self._ending is Ending.FINISHED:
            await self._hand_over(splitter.finish(), splitter.line, nursery)

    async def _receive(self) -> bytes | None:
        """The next bytes; None at the end, whoever made it."""
        while True:
            with trio.move_on_after(self._idle_seconds):
                try:
                    return bytes(await self._stream.receive_some(self._read_bytes())) or None
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._lose()
                    return None
            if not self._acks.outstanding:
                seconds = f"{self._idle_seconds:g} seconds"
                self.end(Ending.IDLE, f"nothing came for {seconds}; connect again, or send a blank line now and then")
                return None

    async def _hand_over(self, lines: list[tuple[int, bytes]], upto: int, nursery: trio.Nursery) -> None:
        """Start the lines' way through the door, and wait as long as lanes, ledger or the peer's ear are full."""
        for start in range(0, len(lines), self._batch_lines):
            batch = lines[start : start + self._batch_lines]
            last = start + self._batch_lines >= len(lines)
            while self._acks.full:
                self._told = trio.Event()
                await self._told.wait()
            await self._engine.reserve(len(batch), None if self._restamped else batch[-1][1])
            nursery.start_soon(self._take, batch, self._acks.expect(upto if last else batch[-1][0]))
        if not lines and upto > self._heard:
            while self._acks.full:
                self._told = trio.Event()
                await self._told.wait()
            self._acks.settle(self._acks.expect(upto), Taken())
            nursery.start_soon(self._write_acks)
        self._heard = upto

    async def _take(self, lines: list[tuple[int, bytes]], batch: Batch) -> None:
        try:
            taken = await take(self._engine, lines, restamped=self._restamped)
        except (LedgerUnavailable, LedgerFailed, LeaseLost) as error:
            # After the latter two the engine's own tasks meet the same failure and end the process.
            self.end(Ending.LEDGER, str(error))
            return
        finally:
            self._engine.release(len(lines))
        self._acks.settle(batch, taken)
        await self._write_acks()

    # ---- out --------------------------------------------------------------------------------------------------

    async def _write_acks(self) -> None:
        if self._writing:
            return
        self._writing = True
        while not self._mute and (line := self._acks.take()) is not None:
            self._told.set()
            await self._write(line)
        self._writing = False

    async def _write(self, line: bytes) -> None:
        for start in range(0, len(line), WRITE_BYTES):
            with trio.move_on_after(ACK_WAIT_S) as waiting:
                try:
                    await self._stream.send_all(line[start : start + WRITE_BYTES])
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._lose()
                    return
            if waiting.cancelled_caught:
                self._lose(Ending.SLOW)
                return

    async def _linger(self) -> None:
        if self._mute:
            return
        with trio.move_on_after(LINGER_S):
            if isinstance(self._stream, trio.abc.HalfCloseableStream):
                await self._stream.send_eof()
            while await self._stream.receive_some(WRITE_BYTES):
                pass

    # ---- the opening ------------------------------------------------------------------------------------------

    async def _open(self) -> bytes | None:
        """Handshake and token, where they are wanted; returns the first bytes of the events, None at the end."""
        if isinstance(self._stream, trio.SSLStream) and not await self._shake_hands(self._stream):
            return None
        if self._token is None:
            return await self._receive()
        start = b""
        with trio.move_on_after(OPENING_S) as waiting:
            while b"\n" not in start and len(start) <= TOKEN_LINE_BYTES:
                try:
                    chunk = bytes(await self._stream.receive_some(TOKEN_LINE_BYTES))
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._lose()
                    return None
                if not chunk:
                    break
                start += chunk
        first, _, rest = start.partition(b"\n")
        if waiting.cancelled_caught:
            self.end(Ending.TOKEN, f'the first line did not come within {OPENING_S:g} seconds; send {{"token":"…"}}')
        elif (error := _foreign(first.lstrip())) is not None:
            self.end(Ending.FOREIGN, error)
        elif not _is_token(first, self._token):
            await trio.sleep(WRONG_TOKEN_S)
            self.end(Ending.TOKEN, 'the first line is not {"token":"…"} with the token of intake.stream.token_file')
        else:
            return rest or await self._receive()
        return None

    async def _shake_hands(self, stream: trio.SSLStream[trio.abc.Stream]) -> bool:
        with trio.move_on_after(OPENING_S):
            try:
                await stream.do_handshake()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            else:
                self._mute = False
                return True
        self._lose(Ending.HANDSHAKE)
        return False


def _is_token(line: bytes, token: Secret) -> bool:
    try:
        given = _decode_token(line.strip().removeprefix(BOM)).token.encode()
    except (msgspec.DecodeError, UnicodeError):
        given = b""
    return hmac.compare_digest(given, token.reveal().encode())


def _foreign(start: bytes) -> str | None:
    """What is wrong with a stream that begins so (blanks taken off); None if nothing is, or not yet."""
    start = start.removeprefix(BOM).lstrip()
    if not start or start.startswith(b"{") or BOM.startswith(start):
        return None
    here = "this is the stream intake; it reads NDJSON, one event a line"
    if start.startswith(b"\x16"):
        return f"{here}, without TLS: connect without it, or configure intake.stream.tls_cert_file"
    if start.startswith(b"\x1f"):
        return f"{here}, and no gzip; send the lines as they are"
    if start.startswith(b"["):
        return f"{here}, and no JSON array; send each event on a line of its own"
    if b" HTTP/" in start.partition(b"\n")[0]:
        return f"{here}, and no HTTP: POST /v1/events goes to the address of intake.http.listen"
    return f"{here}, and the first one does not begin with a brace"
