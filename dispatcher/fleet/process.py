"""Starting a worker: a fresh interpreter (exec, not fork) that inherits sockets by descriptor."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Mapping

import trio

from dispatcher.config import Config
from dispatcher.fleet.frames import FromWorker, Start, SupervisorsEnd, ToWorker
from dispatcher.fleet.share import share_of

MODULE = "dispatcher.fleet.worker"


class Process:
    """A started worker; ``lines`` is the stream on which it takes events and gives acknowledgements, for ``send``."""

    def __init__(self, process: trio.Process, frames: SupervisorsEnd, lines: trio.SocketStream | None) -> None:
        self._process = process
        self._frames = frames
        self.lines = lines

    async def send(self, frame: ToWorker) -> bool:
        """See `Worker.send`."""
        return await self._frames.send(frame)

    async def receive(self) -> FromWorker | None:
        """See `Worker.receive`."""
        return await self._frames.receive()

    async def wait(self) -> int:
        """See `Worker.wait`."""
        return await self._process.wait()

    def kill(self) -> None:
        """See `Worker.kill`."""
        self._process.kill()

    async def aclose(self) -> None:
        """See `Worker.aclose`."""
        await self._frames.aclose()
        if self.lines is not None:
            await self.lines.aclose()


async def start_process(
    config: Config,
    index: int,
    processes: int,
    listeners: Mapping[str, socket.socket],
    *,
    feeds: bool,
    restamped: bool = False,
) -> Process:
    """Start worker ``index`` of ``processes`` on its share of ``config``. ``feeds``: events come on a socket pair.

    The worker stays out of the terminal's foreground group, so that Ctrl-C reaches the supervisor alone, and ends by
    itself when the supervisor is gone.
    """
    ours, theirs = socket.socketpair()
    pairs = [(ours, theirs)]
    if feeds:
        pairs.append(socket.socketpair())
    inherited = [pair[1].fileno() for pair in pairs] + [listener.fileno() for listener in listeners.values()]
    try:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-P", "-m", MODULE, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # it belongs to the supervisor's result
            pass_fds=inherited,
            process_group=0,
        )
        start = Start(
            index=index,
            processes=processes,
            config=share_of(config, index, processes),
            listeners={name: listener.fileno() for name, listener in listeners.items()},
            lines=pairs[1][1].fileno() if feeds else None,
            restamped=restamped,
        )
    except BaseException:
        for ours, _ in pairs:
            ours.close()
        raise
    finally:
        for _, theirs in pairs:
            theirs.close()
    streams = [trio.SocketStream(trio.socket.from_stdlib_socket(ours)) for ours, _ in pairs]
    started = Process(process, SupervisorsEnd(streams[0]), streams[1] if feeds else None)
    await started.send(start)
    return started
