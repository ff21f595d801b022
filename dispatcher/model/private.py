"""Personal data that must not reach a log, a metric, an error text or a traceback.

Each is a plain ``str`` for the code that must send it (a provider's body, a ledger column) and a mask for everything
that prints: ``repr``, ``str`` inside an f-string's ``!r``, ``%r`` and structlog's renderers all show the mask.
"""

from __future__ import annotations


class Private(str):
    """A string that prints as a mask. ``str.__str__(value)`` or ``value.reveal()`` gives the text itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} ****>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def reveal(self) -> str:
        """The text itself; call it only where the value leaves for the ledger or a provider."""
        return str.__str__(self)


class OpenId(Private):
    """A WeChat user id: per account, about 28 characters, case-sensitive."""

    __slots__ = ()


class Phone(Private):
    """A phone number in E.164, with its plus sign."""

    __slots__ = ()


class Email(Private):
    """A mail address."""

    __slots__ = ()


class Secret(Private):
    """A provider secret or a token."""

    __slots__ = ()
