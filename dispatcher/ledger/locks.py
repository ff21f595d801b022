"""Locks between the processes of one ledger: who is alive, and whose turn it is to write.

Both are bytes of one small file beside the ledger, locked through the open file (F_OFD_SETLK) and not through the
process, so that two engines in one process do not see through each other. The kernel lets go of a lock when its process
dies in whatever way.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable

from dispatcher.errors import LedgerUnavailable

BUSY_SECONDS = 5.0
"""How long SQLite waits for another process's commit. A commit takes milliseconds; five seconds mean that one hangs.
With the wait for the turn it stays below a lease, so that nobody is taken over for waiting."""

TURN_SECONDS = 0.5
"""How long a process waits for its turn, and before that to be the next one. The turn is for fairness only, SQLite
guards the file: a process that was stopped while it waited must not keep all others from writing."""

NEXT_BYTE, TURN_BYTE = 1 << 40, (1 << 40) + 1
"""Far above every owner's number."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.00005, 0.0003
"""Between two looks at a byte that another process holds: a commit is 5 to 20 ms, a look 1 µs. Not a wait in the
kernel, because that has no time-out and a process that was stopped would hold up all others for ever."""


def open_locks(path: str) -> int:
    """The file of locks beside the ledger at ``path``. Raises `LedgerUnavailable`."""
    try:
        return os.open(path + ".owners", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LedgerUnavailable(
            f"ledger {path}: the file {path}.owners beside it cannot be opened ({error.strerror}); "
            "check the owner and permissions of file and folder"
        ) from error


def lock_byte(file: int, byte: int, kind: int) -> bool:
    """Lock or unlock a byte at once; False when somebody else holds it."""
    # struct flock: l_type, l_whence, l_start, l_len, l_pid (0, as OFD locks want it)
    request = struct.pack("hhqqi4x", kind, os.SEEK_SET, byte, 1, 0)
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, request)
    except OSError:
        return False
    return True


class WriterTurn:
    """Whose turn it is to write. SQLite's own waiting sleeps ever longer and serves whoever happens to look first: of
    two busy processes one then starves.

    There are two bytes: who holds *turn* may write, who holds *next* is the one that waits for it. A process that has
    just written and wants to write again has to get *next* first, and so comes after the one that was waiting.
    """

    def __init__(self, path: str) -> None:
        self.patience_seconds = TURN_SECONDS
        self._file: int | None = None
        if path != ":memory:" and hasattr(fcntl, "F_OFD_SETLK"):
            self._file = open_locks(path)

    def take(self, meanwhile: Callable[[], bool] = lambda: False) -> None:
        """Wait for the turn; go on without it after twice ``patience_seconds``. Blocks the thread.

        ``meanwhile`` is called again and again while it waits: it does a small piece of work, and says whether it did.
        Each of the two waits may be longer by one such piece. What it raises comes out, and the turn is not taken.
        """
        if self._file is None:
            return
        is_next = False
        try:
            is_next = self._wait(NEXT_BYTE, meanwhile)
            self._wait(TURN_BYTE, meanwhile)
        finally:
            if is_next:
                lock_byte(self._file, NEXT_BYTE, fcntl.F_UNLCK)

    def give(self) -> None:
        """Let the next one write. Harmless without the turn."""
        if self._file is not None:
            lock_byte(self._file, TURN_BYTE, fcntl.F_UNLCK)

    def close(self) -> None:
        """Close the file; the turn is given up."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _wait(self, byte: int, meanwhile: Callable[[], bool]) -> bool:
        """False when somebody else has held the byte for too long."""
        assert self._file is not None
        give_up_at = time.monotonic() + self.patience_seconds
        pause = FIRST_PAUSE_SECONDS
        while not lock_byte(self._file, byte, fcntl.F_WRLCK):
            if time.monotonic() >= give_up_at:
                return False
            if not meanwhile():
                time.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
        return True


def busy(path: str) -> str:
    """What an operator is told when another process does not let go of the ledger."""
    return f"ledger {path}: another process has held it for {BUSY_SECONDS:.0f} seconds; see which one uses the file"


class OwnerLocks:
    """One byte of a file beside the ledger per owner, locked for as long as that process lives.

    The kernel lets go of the lock when the process dies in whatever way, so its leases can be taken over at once
    instead of after their time; a pid would not do, since two containers may share the file but not the pids. The
    locks belong to the open file (F_OFD_SETLK), so that two engines in one process do not see through each other.
    Where the platform has none, leases run out by time alone.
    """

    def __init__(self, path: str) -> None:
        self._file: int | None = None
        # The kernel asks whose open file a lock is, not whose owner: our own bytes would look free to us.
        self._held: set[int] = set()
        if path != ":memory:" and hasattr(fcntl, "F_OFD_SETLK"):
            self._file = open_locks(path)

    def hold(self, owner: int) -> None:
        """Lock this owner's byte for the life of the process."""
        if self._lock(owner, fcntl.F_WRLCK):
            self._held.add(owner)

    def release(self, owner: int) -> None:
        """Unlock it again."""
        if owner in self._held:
            self._held.discard(owner)
            self._lock(owner, fcntl.F_UNLCK)

    def is_dead(self, owner: int) -> bool | None:
        """True when nobody holds it, False when somebody does, None when it cannot be known."""
        if self._file is None:
            return None
        if owner in self._held or not self._lock(owner, fcntl.F_WRLCK):
            return False
        self._lock(owner, fcntl.F_UNLCK)
        return True

    def close(self) -> None:
        """Close the file; what is held is released."""
        self._held.clear()
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _lock(self, owner: int, kind: int) -> bool:
        return self._file is not None and lock_byte(self._file, owner, kind)
