"""What the caller of the simulated providers may have got wrong."""

from __future__ import annotations


class SettingsTextError(ValueError):
    """A text such as ``busy=0.01`` has an unknown name or a bad number; the message says what is allowed."""
