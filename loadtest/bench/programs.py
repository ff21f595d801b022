"""A program under measurement: its processor time, its memory, and its end, whatever happens."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from loadtest.bench.figures import Failed
from loadtest.load.machine import ProcessTree

LOOK_S: Final = 0.2
"""Between two looks at the processes. The kernel keeps the high-water mark of their memory; only what a process takes
after the last look before its end is missed."""
STOP_S: Final = 45.0
"""After SIGTERM an engine drains for up to 30 seconds."""
SHOWN_BYTES: Final = 4096
TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")


class Finished:
    """What a program came to: its output, and the processor seconds of it and all that it waited for.

    ``workers_cpu_seconds`` and ``workers_mib`` are about its descendants alone, as they were last seen.
    """

    def __init__(self, status: int, output: bytes, cpu_seconds: float, program: Program) -> None:
        self.status = status
        self.output = output
        self.cpu_seconds = cpu_seconds
        self.peak_mib = program.peak_mib
        self.workers_cpu_seconds = sum(program.workers_ticks.values()) / TICKS_A_SECOND
        self.workers_mib = program.workers_mib


class Program:
    """One of our modules as a process, in a group of its own that is ended on leaving.

    ``log`` gets its stderr. Entering starts it. ``peak_mib`` is the high-water mark of the largest process of its tree.
    """

    def __init__(self, module: str, *options: str, folder: Path, log: str = "log") -> None:
        self._command = [sys.executable, "-P", "-m", module, *options]
        self._folder = folder
        self._log = folder / log
        self._process: subprocess.Popen[bytes] | None = None
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._over = threading.Event()
        self.peak_mib = self.workers_mib = 0.0
        self.workers_ticks: dict[int, int] = {}

    def __enter__(self) -> Program:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own modules
                self._command,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                process_group=0,
            )
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        process = self.process
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # what a supervisor that had to be killed has left
        process.wait()
        self._over.set()
        self._watch.join()
        assert process.stdout is not None
        process.stdout.close()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process."""
        assert self._process is not None
        return self._process

    def first_line(self) -> str:
        """What it says first on stdout. Raises `Failed` when it ends instead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode(errors="replace")
        if not line:
            self.process.wait()
            raise Failed(f"did not start: {self.last_words()}")
        return line

    def finish(self, timeout_s: float) -> Finished:
        """Wait for its end. Raises `Failed` when it takes longer."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            output, _ = self.process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise Failed(f"was not ready after {timeout_s:,.0f} seconds") from None
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Finished(self.process.returncode, output, cpu, self)

    def cpu_seconds(self) -> float:
        """Processor seconds so far of the tree that runs now."""
        return sum(_cpu_ticks(pid) for pid in self.pids()) / TICKS_A_SECOND

    def resident_mib(self) -> float:
        """What its largest process holds now."""
        return max(_status_mib(pid, "VmRSS") for pid in self.pids())

    def check_alive(self) -> None:
        """Raises `Failed` with its last words when it has ended."""
        if self.process.poll() is not None:
            raise Failed(f"ended by itself with status {self.process.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        """The last line of its log."""
        said = self._log.read_text(errors="replace")[-SHOWN_BYTES:].strip()
        return said.rpartition("\n")[2] or "it said nothing"

    def pids(self) -> set[int]:
        """It and all that descend from it."""
        return {self.process.pid, *ProcessTree(self.process.pid).workers()}

    def _look(self) -> None:
        while not self._over.wait(LOOK_S):
            root = self.process.pid
            for pid in () if self.process.returncode is not None else self.pids():
                mib = _status_mib(pid, "VmHWM")
                self.peak_mib = max(self.peak_mib, mib)
                if pid != root:
                    self.workers_mib = max(self.workers_mib, mib)
                    self.workers_ticks[pid] = max(self.workers_ticks.get(pid, 0), _cpu_ticks(pid))


def _status_mib(pid: int, name: str) -> float:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
    except OSError:  # it has just ended
        pass
    return 0.0


def _cpu_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def free_port() -> int:
    """A port of the loopback interface that was free a moment ago."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for_port(port: int, check: Program, timeout_s: float) -> None:
    """Until somebody listens there. Raises `Failed`, also when ``check`` has ended."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        check.check_alive()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise Failed(f"does not listen after {timeout_s:.0f} seconds: {check.last_words()}")


def run_quietly(command: Sequence[str], folder: Path) -> None:
    """A tool that has to succeed. Raises `Failed` with its last words."""
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=False)  # noqa: S603 - our own words
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise Failed(f"{command[0]} failed: {words}")
