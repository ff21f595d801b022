"""A real browser to open a page in: headless Chromium, spoken to over two pipes in its DevTools protocol."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    "--remote-debugging-pipe",
)


class Page:
    """One tab. ``trouble`` gathers what went wrong in it, ``requests`` what it asked the network for."""

    def __init__(self, writer: trio.lowlevel.FdStream, reader: trio.lowlevel.FdStream) -> None:
        self.trouble: list[str] = []
        self.requests: list[str] = []
        self.session: str | None = None
        self._writer, self._reader = writer, reader
        self._buffer = b""
        self._number = 0
        self._loaded = False

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command, and its result. Raises ``RuntimeError`` with the browser's words when it refuses."""
        self._number += 1
        sent = {"id": self._number, "method": method, "params": params}
        if self.session:
            sent["sessionId"] = self.session
        await self._writer.send_all(json.dumps(sent).encode() + b"\0")
        while (answer := await self._next()).get("id") != self._number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def open(self, path: Path, *, width: int, dark: bool = False, height: int = 900) -> None:
        """Load the file in a window of so many CSS pixels, and wait until it is loaded."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        await self.call("Page.navigate", url=path.as_uri())
        while not self._loaded:
            await self._next()

    async def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    async def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = await self._reader.receive_some()
            if not chunk:
                raise RuntimeError("the browser has gone")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        match message.get("method"), message.get("params"):
            case "Runtime.exceptionThrown", params:
                self.trouble.append(str(params))
            case "Runtime.consoleAPICalled", {"type": "error" | "warning" | "assert"} as params:
                self.trouble.append(str(params))
            case "Log.entryAdded", {"entry": {"level": "error" | "warning"} as entry}:
                self.trouble.append(str(entry))
            case "Network.requestWillBeSent", {"request": {"url": url}}:
                self.requests.append(str(url))
            case "Page.loadEventFired", _:
                self._loaded = True
        return message


LAUNCHER = """
import os, sys
from fcntl import F_DUPFD, fcntl
kept = [fcntl(int(fd), F_DUPFD, 10) for fd in sys.argv[1:3]]
os.dup2(kept[0], 3)
os.dup2(kept[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""The browser reads commands from descriptor 3 and writes to 4; only a process of its own can arrange that safely."""


@asynccontextmanager
async def browser(profile: Path) -> AsyncIterator[Page]:
    """A browser with one empty tab and a new profile in that folder, ended on leaving."""
    assert CHROMIUM, "ask for CHROMIUM first"
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    async with trio.lowlevel.FdStream(ours_out) as writer, trio.lowlevel.FdStream(ours_in) as reader:
        pipes = (theirs_in, theirs_out)
        process = await trio.lowlevel.open_process(
            [
                *(sys.executable, "-c", LAUNCHER, *map(str, pipes)),
                *(CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"),
            ],
            pass_fds=pipes,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for end in pipes:
            os.close(end)
        try:
            page = Page(writer, reader)
            target = await page.call("Target.createTarget", url="about:blank")
            attached = await page.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
            page.session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                await page.call(f"{domain}.enable")
            yield page
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # its own session: the browser and its helpers, nothing else
            with trio.CancelScope(shield=True):
                await process.wait()
