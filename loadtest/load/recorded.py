"""Recorded events as load: played at their own pace or at a rate, each with the time at which it is due.

The file is read twice: once to know its times, its accounts and its broken lines, once for the lines as they are sent.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

import msgspec

from dispatcher.errors import ConfigurationError, InputError
from dispatcher.events import Rejected, decode_event
from dispatcher.intake.ndjson import open_input, read_batches
from loadtest.load.lines import Stamps, alert_key
from loadtest.load.tally import SHOWN_REJECTIONS

REMEMBERED_IDS: Final = 200_000
"""Ids of the latest lines: one that comes again among them keeps the time of the first, as a core system's repetition
would, so that it is a duplicate and not another event with the same id. About 30 MB."""

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class _Head(msgspec.Struct):
    id: str
    account: str


_decode_head = msgspec.json.Decoder(_Head).decode


class Recording(msgspec.Struct):
    """What a file holds. ``times`` are epoch seconds of its good events, sorted; ``lines`` their line numbers, in the
    order of the file; ``broken`` counts lines that are no events, ``shown`` names the first of them."""

    path: str
    times: array[float]
    lines: array[int]
    accounts: dict[str, None]
    broken: int = 0
    shown: list[Rejected] = []

    def offsets(self, speedup: float) -> Iterator[float]:
        """When each event is due, in seconds after the first one.

        A file that is not in the order of its times keeps the order of its lines and the rhythm of its times.
        """
        begin = self.times[0]
        return ((at - begin) / speedup for at in self.times)


def scan(path: str, most: int) -> Recording:
    """Read a file once, up to ``most`` good events. Blocks.

    Raises ``InputError`` when it cannot be read or holds no event, ``ConfigurationError`` when it is not a file.
    """
    found = Recording(path, array("d"), array("L"), {})
    with _open(path) as stream:
        for batch in read_batches(stream):
            for number, line in batch:
                event = decode_event(line, number)
                if isinstance(event, Rejected):
                    found.broken += 1
                    if len(found.shown) < SHOWN_REJECTIONS:
                        found.shown.append(event)
                    continue
                found.times.append(event.event.time.timestamp())
                found.lines.append(number)
                found.accounts[event.event.account] = None
            if len(found.times) >= most:
                del found.times[most:], found.lines[most:]
                break
    if not found.times:
        why = "; it is empty"
        if found.broken:
            first = found.shown[0]
            why = f"; {found.broken:,} lines are broken, the first is line {first.line:,}: {first.error}"
        raise InputError(f"--events {path}: holds no event{why}")
    found.times = array("d", sorted(found.times))
    return found


def _open(path: str) -> BinaryIO:
    if path == "-":
        raise ConfigurationError("--events -: standard input cannot be read twice; name a file")
    try:
        return open_input(path)
    except InputError as error:
        raise InputError(f"--events {error}") from None


class RecordedLines:
    """Builds the lines of a recording, strictly one after the other; see `Source`. Reading blocks for a moment."""

    def __init__(self, recording: Recording) -> None:
        self._good = recording.lines
        self._ids: list[str] = []
        self._stream = open_input(recording.path)
        self._batches = read_batches(self._stream)
        self._read: Iterator[tuple[int, bytes]] = iter(())
        self._stamps = Stamps()
        self._latest: dict[str, float] = {}
        self._older: dict[str, float] = {}

    def build(self, first: int, times: Sequence[float], epoch: float) -> tuple[bytes, list[str]]:
        """See `Source`."""
        lines, keys = [], []
        for number, at in enumerate(times, first):
            line = self._line(self._good[number])
            head = _decode_head(line)
            before = self._latest.get(head.id, self._older.get(head.id))
            if before is None:
                self._remember(head.id, at)
                keys.append(alert_key(head.account.encode(), head.id.encode()))
            else:
                at = before
                keys.append("")  # its alert is the first one's
            self._ids.append(head.id)
            fields = _decode_fields(line)
            fields["time"] = msgspec.Raw(b'"%b"' % self._stamps.text(epoch + at))
            lines.append(_encode(fields) + b"\n")
        return b"".join(lines), keys

    def event_id(self, number: int) -> str:
        """See `Source`."""
        return self._ids[number]

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _line(self, wanted: int) -> bytes:
        while True:
            for number, line in self._read:
                if number == wanted:
                    return line
            batch = next(self._batches, None)
            if batch is None:
                raise InputError("the file of --events has become shorter while it was played")
            self._read = iter(batch)

    def _remember(self, event_id: str, at: float) -> None:
        if len(self._latest) >= REMEMBERED_IDS:
            self._latest, self._older = {}, self._latest
        self._latest[event_id] = at
