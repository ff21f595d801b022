"""A dict that keeps what was put last."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

MAX_INDEXED: Final = 1_000_000
"""Keys that are remembered: so many of the latest at least, twice as many at most. More messages than any provider
takes within the ten minutes for which one is recognised again."""

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Latest(Generic[_Key, _Value]):
    """Forgets its oldest half when it is full: two generations, for popping the front is slow."""

    def __init__(self) -> None:
        self._young: dict[_Key, _Value] = {}
        self._old: dict[_Key, _Value] = {}

    def get(self, key: _Key) -> _Value | None:
        """The value that was put last, or None."""
        found = self._young.get(key)
        return self._old.get(key) if found is None else found

    def put(self, key: _Key, value: _Value) -> None:
        """Remember a value."""
        if len(self._young) >= MAX_INDEXED:
            self._young, self._old = {}, self._young
        self._young[key] = value
