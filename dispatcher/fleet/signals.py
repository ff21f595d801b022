"""Running until told to stop, by the first signal in good order and by the second at once."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from dispatcher.logs import get_logger

Result = TypeVar("Result")

log = get_logger("supervisor")


async def until_signal(work: Callable[[], Awaitable[Result]], kill: Callable[[], None]) -> Result | None:
    """Run ``work`` to its end; SIGTERM or SIGINT cancels it (then None is returned), a second one calls ``kill``.

    ``work`` is expected to shield its orderly end, which is what ``kill`` cuts short.
    """
    result: Result | None = None

    async def listen(signals: object, scope: trio.CancelScope) -> None:
        async for number in signals:  # type: ignore[attr-defined]
            name = signal.Signals(number).name
            if scope.cancel_called:
                log.warning("killing", signal=name)
                kill()
            else:
                log.info("stopping", signal=name)
                scope.cancel()

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(listen, signals, scope)
                result = await work()
            nursery.cancel_scope.cancel()
    return result
