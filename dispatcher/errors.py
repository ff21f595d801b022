"""What can go wrong, by whose fault it is. Each error's text is one line: what is wrong, and what to do."""

from __future__ import annotations

from typing import ClassVar


class SwipebellError(Exception):
    """Base of the errors that the command line shows as one line, without a traceback.

    ``exit_status`` is what the process ends with. The text names no recipient and no secret: it goes to
    terminals and logs. Not for defects of our own: those keep their traceback.
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        # Messages quote keys and file names; a line break inside one must not forge a second line of log.
        super().__init__(" ".join("".join(c if c.isprintable() else " " for c in message).split()))


class ConfigurationError(SwipebellError):
    """The operator's fault: a file, a key or an option says what is not allowed. Nothing has been started."""

    exit_status = 2


class InputError(SwipebellError):
    """The feeder's fault: the input as a whole cannot be read. Not for a single rejected line."""


class LedgerUnavailable(SwipebellError):
    """The machine's fault, and it may pass: disk full, file unreadable, locked by another process.

    Nothing that it concerns was acknowledged.
    """


class LedgerFailed(SwipebellError):
    """The machine's fault, and it does not pass: a failed fsync or an I/O error.

    The process must stop. Trying again on the same file could acknowledge what the disk has already
    dropped.
    """


class LeaseLost(SwipebellError):
    """The machine's fault: this process did not answer for so long that another took over its alerts.

    Not a crash: what it had recorded stands. It must stop sending, because the other sends now.
    """


class PortInUse(SwipebellError):
    """Another process listens where we were told to."""


class ChannelMisconfigured(SwipebellError):
    """The operator's fault, but only the provider could tell: a wrong secret, an address that is not allowed.

    ``channel`` is the channel's name. Not for a refused recipient or a provider that is down.
    """

    exit_status = 2

    def __init__(self, channel: str, message: str) -> None:
        super().__init__(f"channel {channel}: {message}")
        self.channel = channel


class Interrupted(SwipebellError):
    """Nobody's fault: the operator stopped the command. What was accepted stays in the ledger."""

    exit_status = 130

    def __init__(self, message: str = "interrupted; what was accepted is in the ledger, start again to go on") -> None:
        super().__init__(message)


def known_error(error: BaseException) -> SwipebellError | None:
    """The error to be told in one line: ``error`` itself, or the first one in a group of none but ours (one cause
    cancels the rest of a nursery, so the others only echo it). None: a defect of ours is in it."""
    while isinstance(error, BaseExceptionGroup):
        known, rest = error.split(SwipebellError)
        if rest is not None or known is None:
            return None
        error = known.exceptions[0]
    return error if isinstance(error, SwipebellError) else None
