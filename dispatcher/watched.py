"""Files that are watched while the service runs: how to tell that one has changed, and when it is read.

A process looks once a second at what it watches, and at the ledger, which is the common word about what is in force. A
file is taken when two looks in a row find it the same: one that somebody is in the middle of writing may well be
understood, without what is still to come.
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import trio

from dispatcher.errors import LedgerUnavailable

LOOK_S = 1.0
"""How often file and ledger are looked at: a look costs a stat and a tenth of a millisecond of the ledger."""

Seen = tuple[object, ...]
"""What tells one state of a file from another: device, inode, size, and the times of its content and of its mode; or
that of several files by their names."""


def look(path: Path | None) -> Seen:
    """The state of the file; a file that cannot be looked at has a state, too. ``None``: there is none to look at."""
    if path is None:
        return ()
    try:
        return seen(path.stat())
    except OSError as error:
        return (error.errno or -1,)


def seen(found: os.stat_result) -> Seen:
    """The state of a file of which this is the ``stat``."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def name_of(account: int) -> str:
    """The name of an account of the operating system."""
    try:
        return pwd.getpwuid(account).pw_name
    except KeyError:
        return f"uid {account}"


class Watch:
    """Looks every second, for ever; the base of what watches something in particular."""

    def __init__(self) -> None:
        self._done: Seen | None = None
        """The state that was dealt with; another one is news."""
        self._noticed: Seen | None = None
        self._asked = trio.Event()

    async def watching(self) -> None:
        """Look every second. A ledger that cannot be used just now is asked again at the next look; `LedgerFailed`
        ends it."""
        while True:
            with trio.move_on_after(LOOK_S):
                await self._asked.wait()
            settled = self._asked.is_set()
            self._asked = trio.Event()
            try:
                await self.look(settled=settled)
            except LedgerUnavailable:
                continue  # the engine says so

    def look_now(self) -> None:
        """Somebody says that everything is written (SIGHUP): look now, and read it even if nothing seems new."""
        self._asked.set()

    async def look(self, *, settled: bool = False) -> None:
        """One look at the ledger and at what is watched. ``settled``: it is known to be written to its end."""
        await self._follow()
        now = self._look()
        if settled or (now != self._done and now == self._noticed):
            await self._take(now)
        self._noticed = now

    def _look(self) -> Seen:
        raise NotImplementedError  # pragma: no cover - who watches something says what

    async def _take(self, seen: Seen) -> None:
        """Deal with what is there now; sets ``_done`` when that is done with."""
        raise NotImplementedError  # pragma: no cover - as above

    async def _follow(self) -> None:
        """Put the ledger's word in force, if it is news."""
        raise NotImplementedError  # pragma: no cover - as above
