"""Programs that a run starts as processes of its own, and ends whatever happens; the simulated providers first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final

import trio

from dispatcher.errors import SwipebellError

START_S: Final = 30.0
STOP_S: Final = 5.0
"""How long the providers may take to start (an interpreter and its imports on a busy machine) and to stop."""
FIRST_LINE_BYTES: Final = 1024
SHOWN_LOG_BYTES: Final = 4096


async def start_child(module: str, options: Sequence[str], log: BinaryIO, *, with_output: bool = False) -> trio.Process:
    """Start a module of ours. In a process group of its own: Ctrl-C is for us, and we end it when it is time."""
    return await trio.lowlevel.open_process(
        [sys.executable, "-P", "-m", module, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if with_output else subprocess.DEVNULL,
        stderr=log,
        process_group=0,
    )


async def end_child(process: trio.Process, patience_s: float) -> None:
    """SIGTERM, and SIGKILL when it has not ended after ``patience_s``. Not stopped by a cancellation."""
    with trio.CancelScope(shield=True):
        if process.poll() is None:
            process.terminate()
            with trio.move_on_after(patience_s):
                await process.wait()
        if process.poll() is None:
            process.kill()
        await process.wait()
        if process.stdout is not None:
            await process.stdout.aclose()


@asynccontextmanager
async def running_providers(log: BinaryIO, log_path: Path, options: Sequence[str]) -> AsyncIterator[str]:
    """The simulated providers as a process; gives their URL. ``log`` is where they write what goes wrong.

    They are stopped on leaving, whatever happens. Raises ``SwipebellError`` with their last words when they do not
    start, and when they end by themselves (the body is cancelled then: it would only try again and again).
    """
    process = await start_child("loadtest.providers", ["--listen", "127.0.0.1:0", *options], log, with_output=True)

    async def watch() -> None:
        await process.wait()
        raise SwipebellError(f"the simulated providers ended: {last_words(log_path)}")

    try:
        url = await _address(process)
        if url is None:
            raise SwipebellError(f"the simulated providers did not start: {last_words(log_path)}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            yield url
            nursery.cancel_scope.cancel()
    finally:
        await end_child(process, STOP_S)


async def _address(process: trio.Process) -> str | None:
    assert process.stdout is not None
    said = b""
    with trio.move_on_after(START_S):
        while b"\n" not in said and len(said) < FIRST_LINE_BYTES:
            more = await process.stdout.receive_some(FIRST_LINE_BYTES)
            if not more:
                break
            said += more
    first, newline, _ = said.decode(errors="replace").partition("\n")
    before, _, url = first.partition("listening on ")
    return url if newline and not before and url else None


def last_words(log: Path) -> str:
    """The last line of a child's log."""
    try:
        said = log.read_text(errors="replace")[-SHOWN_LOG_BYTES:].strip()
    except OSError:
        said = ""
    return said.rpartition("\n")[2] or "nothing was said"
