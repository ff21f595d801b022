"""Structured logs: one JSON object a line, without a personal datum.

The first line of defence is not to log what is personal, and the ``Private`` types, which print as a mask.
The second is here: every key and value passes ``mask``, and so do exceptions and what libraries log.
"""

from __future__ import annotations

import enum
import logging
import math
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import date, datetime
from itertools import islice
from pathlib import PurePath
from typing import Any, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from dispatcher.errors import SwipebellError
from dispatcher.model.private import Private

MASK = "****"
MAX_TEXT_CHARS = 2000
"""Of one value as written: a line stays below the 16 KiB at which log shippers split."""
MAX_READ_CHARS = 16 * 1024
"""Of one value as given: masking comes before cutting, and longer texts are not searched but left out."""
MAX_ITEMS = 64
"""Of one list or table, so that a batch logged by mistake stays one line."""
MAX_DEPTH = 6
"""Of nested values; the rest is left out, so that a value that holds itself ends."""
MAX_FRAMES = 16
"""Of a traceback, the innermost: the outer ones are the nursery's and the same every time."""
MAX_CAUSES = 8
"""Exceptions of one log line: causes and members of a group."""
LIBRARY_LEVEL = logging.WARNING
"""Below it httpx logs every URL, with the access token in it."""

_JSON_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_SUBCLASS

_NAMED = re.compile(
    r"(?i)((?:secret|token|password|passwd|api_?key|openid|touser)[\"']?\s*[=:]\s*[\"']?|bearer\s+)"
    r"[^\s\"'&,;}]+"
)
# Begins only where a run of characters begins, so that a long run without an @ is read once.
_EMAIL = re.compile(r"(?<![^\s\"'<>(),;:=@])[^\s\"'<>(),;:=@]+(?:@|%40)[^\s\"'<>(),;:=]+")
# A version of a template, as operators have to type it, perhaps at the end of a sentence or with its part behind it. No
# address looks like that: the domain of one that is reached from outside ends in letters.
_VERSION = re.compile(
    r"[a-z][a-z0-9-]{0,63}@[0-9]{1,10}(?:[.!?]?|/(?:wechat|sms|email|card)\.[A-Za-z0-9/-]+)"
).fullmatch
_TOKEN = re.compile(r"[A-Za-z0-9_-]{24,}")
_PHONE = re.compile(r"(?i)(?:\+|%2B)\d(?:[ ().-]{0,2}\d){4,}")
# Phones without their plus, and card numbers; a UUID is seen first, because its dashes join digits by chance.
_DIGITS = re.compile(r"(?<![\w-])([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?![\w-])|\d(?:[ -]?\d){10,}")
_PHONE_DIGITS = re.compile(r"\d{11}")
# An apostrophe inside a word opens nothing; an unclosed quotation reaches to the end, which keeps it linear.
_QUOTED = re.compile(r"(?<!\w)[bru]?'(?:[^'\\]|\\.?)*'?|\"(?:[^\"\\]|\\.?)*\"?", re.DOTALL)

OPENID_CHARS = 28
"""Length of a WeChat openid: ``o`` and 27 of A-Z a-z 0-9 _ -."""


def mask_text(text: str) -> str:
    """``text`` with what looks like a phone, card number, e-mail address, openid or token masked."""
    if len(text) > MAX_READ_CHARS:
        return f"<text of {len(text)} characters>"
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()  # lone surrogates, which JSON cannot hold
    text = _EMAIL.sub(_mask_email, _NAMED.sub(rf"\g<1>{MASK}", text))
    # Tokens before digits: digits within an openid must not break it into pieces too short to be seen.
    text = _TOKEN.sub(_mask_token, text)
    return _DIGITS.sub(_mask_digits, _PHONE.sub(MASK, text))[:MAX_TEXT_CHARS]


def _mask_email(found: re.Match[str]) -> str:
    return found[0] if _VERSION(found[0]) else MASK


def _mask_digits(found: re.Match[str]) -> str:
    return found[1] if found[1] and not _PHONE_DIGITS.search(found[1]) else MASK


def _mask_token(found: re.Match[str]) -> str:
    """Keeps words_with_underscores and lower-case digests, masks what mixes cases as random tokens do."""
    word = found[0]
    mixed = any(c.isupper() for c in word) and any(c.islower() for c in word)
    openid = len(word) == OPENID_CHARS and (word.startswith("o") or any(c.isdigit() for c in word))
    return MASK if mixed or openid else word


def mask(value: object, depth: int = 0) -> Any:
    """``value`` as plain JSON types with everything personal masked.

    Numbers stay: they are counts, codes and alert ids, and a phone or card number is always text here.
    Objects of other types are shown as their type only, because their repr could say anything.
    """
    match value:
        case None | bool():
            return value
        case enum.Enum():
            return mask(value.value, depth + 1)
        case int():
            return int(value) if -(2**63) <= value < 2**63 else MASK
        case float():
            return float(value) if math.isfinite(value) else str(float(value))
        case Private():
            return MASK
        case str():
            return mask_text(value)
        case datetime() | date():
            return value.isoformat()
        case PurePath():
            return mask_text(str(value))
        case BaseException():
            return describe_exception(value) if depth < MAX_DEPTH else type(value).__name__
        case Mapping() | list() | tuple() | set() | frozenset() if depth >= MAX_DEPTH:
            return "..."
        case Mapping():
            pairs = islice(value.items(), MAX_ITEMS)
            return {mask_text(str(key)): mask(inner, depth + 1) for key, inner in pairs}
        case list() | tuple() | set() | frozenset():
            return [mask(inner, depth + 1) for inner in islice(value, MAX_ITEMS)]
        case _:
            return f"<{type(value).__name__}>"


def describe_exception(error: BaseException) -> dict[str, Any]:
    """Type, message without its values, and the places it passed; causes and group members below it."""
    return _describe(error, [MAX_CAUSES])


def _describe(error: BaseException, left: list[int]) -> dict[str, Any]:
    left[0] -= 1
    told: dict[str, Any] = {
        "type": type(error).__name__,
        "message": _exception_text(error),
        "at": [
            f"{frame.f_globals.get('__name__', '?')}:{line} {frame.f_code.co_name}"
            for frame, line in list(traceback.walk_tb(error.__traceback__))[-MAX_FRAMES:]
        ],
    }
    inner = list(error.exceptions) if isinstance(error, BaseExceptionGroup) else []
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and left[0] > 0:
        told["cause"] = _describe(cause, left)
    members = []
    for member in inner:
        if left[0] <= 0:
            break
        members.append(_describe(member, left))
    if members:
        told["members"] = members
    return told


def _exception_text(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  a broken __str__ must not cost the line that reports it
        return MASK
    if isinstance(error, SwipebellError):
        return mask_text(text)
    # Others quote what they stumbled over, which can be a name, and no pattern knows names.
    return MASK if isinstance(error, KeyError) else _mask_foreign(text)


def _mask_foreign(text: str) -> str:
    return mask_text(_QUOTED.sub(MASK, text) if len(text) <= MAX_READ_CHARS else text)


def _mask_event(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    error = event.pop("exc_info", None)
    masked = cast(EventDict, mask(event))
    if error is not None and error is not False:
        found = error if isinstance(error, BaseException) else None
        if isinstance(error, tuple) and len(error) == 3:
            found = error[1]
        elif found is None:
            found = sys.exc_info()[1]
        if found is not None:
            masked["exception"] = describe_exception(found)
    return masked


def _render(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    return orjson.dumps(event, option=_JSON_OPTIONS).decode()


class _Output:
    """The stream as structlog's last step. A log that cannot be written must not stop the alerts."""

    def __init__(self, name: str, stream: TextIO | None) -> None:
        self.name = name
        self._stream = stream

    def msg(self, line: str) -> None:
        stream = self._stream if self._stream is not None else sys.stderr
        try:
            stream.write(line)
            stream.flush()
        except (OSError, ValueError):  # the reader of a pipe has gone, or the stream is closed
            return

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


class _LibraryHandler(logging.Handler):
    """What libraries say through ``logging``, masked like our own lines, warnings and worse only."""

    def __init__(self) -> None:
        super().__init__(LIBRARY_LEVEL)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001  arguments that do not fit their format are the library's mistake
            text = "a message whose arguments do not fit"
        level = "warning" if record.levelno < logging.ERROR else "error"
        logger = get_logger(record.name)
        getattr(logger, level)(_mask_foreign(text), exc_info=record.exc_info)


def configure_logs(level: str, stream: TextIO | None = None) -> None:
    """Writes log lines of ``level`` (debug, info, warning, error) and above to ``stream``.

    A ``stream`` of None is whatever ``sys.stderr`` is at the time of writing. Can be called again; the last
    call counts. Libraries' ``logging`` goes the same way at ``LIBRARY_LEVEL`` and above, whatever they set
    for themselves.
    """
    _configure_structlog(level, stream)
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _LibraryHandler)]:
        root.removeHandler(handler)
    root.addHandler(_LibraryHandler())
    root.setLevel(LIBRARY_LEVEL)
    for name in ("httpx", "httpcore", "hypercorn"):
        logging.getLogger(name).setLevel(LIBRARY_LEVEL)


def _configure_structlog(level: str, stream: TextIO | None) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            _mask_event,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            _render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        context_class=dict,
        logger_factory=lambda name="": _Output(name, stream),
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger whose lines carry ``"logger": name``: ``log.info("batch admitted", accepted=256)``.

    The event is a fixed phrase; what varies goes into keyword arguments. Before ``configure_logs`` warnings
    and worse go to stderr, masked all the same.
    """
    if not structlog.is_configured():
        _configure_structlog("warning", None)
    return cast(FilteringBoundLogger, structlog.get_logger(name))
