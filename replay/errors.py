"""What can go wrong in this package, and whose fault it is."""

from __future__ import annotations


class ScenarioError(ValueError):
    """The fault of a scenario file's author: it is not understood completely, so nothing of it is run.

    One line that names the file, and as far as known the scenario, the place and the key. Not for a scenario that
    fails.
    """

    def __init__(self, source: str, message: str, *, where: str = "", key: str | None = None) -> None:
        parts = [part for part in (source, where, key, message) if part]
        super().__init__(": ".join(parts))


class PeriodError(ValueError):
    """The operator's fault: a time or a period that is not one. The message says what is allowed."""
