"""What the load test runs on, and what the engine's processes use of it, from /proc."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Final

import msgspec

from dispatcher import __version__

BYTES_PER_MIB: Final = 1024 * 1024
_TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

# Fields of /proc/PID/stat behind the name, which may hold blanks (proc_pid_stat(5)).
_PARENT, _USER, _SYSTEM, _RESIDENT = 1, 11, 12, 21


class Usage(msgspec.Struct, frozen=True):
    """``cores``: processor time over wall time since the last look; ``largest_mb``: of the largest process, MiB."""

    cores: float
    largest_mb: float
    processes: int


class ProcessTree:
    """A process and all that descend from it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ticks: dict[int, int] = {}
        self._at = time.monotonic()

    def workers(self) -> list[int]:
        """The processes that descend from it; where there are none, it itself."""
        pids = [pid for pid in _descendants(self.pid) if pid != self.pid]
        return pids or [self.pid]

    def usage(self) -> Usage | None:
        """Since the last call (or the making of this object); None when it has ended or there is no /proc."""
        now = time.monotonic()
        ticks: dict[int, int] = {}
        largest = 0
        for pid, fields in _descendants(self.pid).items():
            ticks[pid] = int(fields[_USER]) + int(fields[_SYSTEM])
            largest = max(largest, int(fields[_RESIDENT]) * _PAGE_BYTES)
        if not ticks:
            return None
        used = sum(count - self._ticks.get(pid, 0) for pid, count in ticks.items()) / _TICKS_A_SECOND
        seconds, self._at, self._ticks = now - self._at, now, ticks
        return Usage(
            cores=round(used / seconds, 3) if seconds > 0 else 0.0,
            largest_mb=round(largest / BYTES_PER_MIB, 1),
            processes=len(ticks),
        )


def _descendants(root: int) -> dict[int, list[str]]:
    """The tree's processes with their fields of ``stat``."""
    known: dict[int, list[str]] = {}
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if not entry.isdecimal():
            continue
        try:
            text = Path(f"/proc/{entry}/stat").read_text(errors="replace")
        except OSError:  # it has just ended
            continue
        fields = text.rpartition(")")[2].split()
        known[int(entry)] = fields
        children.setdefault(int(fields[_PARENT]), []).append(int(entry))
    found: dict[int, list[str]] = {}
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        if pid in known:
            found[pid] = known[pid]
            waiting += children.get(pid, ())
    return found


def machine() -> dict[str, str]:
    """What a reader of a result wants to know of it."""
    memory = os.sysconf("SC_PHYS_PAGES") * _PAGE_BYTES / 2**30
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "swipebell": __version__,
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()
