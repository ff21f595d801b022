"""From the bytes of a template.toml to its structure, with place and remedy of all that is wrong with its shape."""

from __future__ import annotations

import errno
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any, Protocol

import msgspec

from templates.places import Places
from templates.template import TemplateFile

MAX_FILE_BYTES = 65_536
"""Of one template.toml: all parts of a template in ten locales take a tenth of it."""

_LIKE = "see library/swipe of the shipped templates"
# What a terminal that shows it would obey, or show in another order: C0 and C1, line breaks, directions of writing.
_obeyed = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]").search
_toml_line = re.compile(r"at line ([0-9]+)")


class Wrong(Protocol):
    """Is told a mistake: where, what and the remedy. It may raise, and then the reading ends."""

    def __call__(self, where: str, problem: str, remedy: str, line: int | None = None) -> None: ...


class NotRegular(OSError):
    """A folder, a pipe or a device: whoever waits for its end may wait for ever."""


def read_bytes(path: Path, most: int) -> bytes:
    """A regular file; of one that is longer the first ``most`` + 1 bytes. Raises ``OSError``, and `NotRegular` for what
    is no such file.

    It never waits: neither for somebody who writes into a pipe, nor for a file of the system that has nothing to say
    yet. What is looked at is what is read, whatever takes the place of the file meanwhile.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotRegular(errno.EINVAL, "Not a regular file", str(path))
        read = bytearray()
        while len(read) <= most and (piece := os.read(descriptor, most + 1 - len(read))):
            read += piece
        return bytes(read)
    finally:
        os.close(descriptor)


def read_text(path: Path, wrong: Wrong, what: str = "template", most: int = MAX_FILE_BYTES) -> str | None:
    """The text of a file of at most so many bytes, that of a ``what``; None when it has none, which ``wrong`` is
    told."""
    try:
        read = read_bytes(path, most)
        if len(read) <= most:
            # As a text file is read, which editors of other systems may have saved with a mark and their line breaks.
            return read.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        wrong("the file", f"is over {most} bytes", "shorten it")
    except NotRegular:
        wrong("the file", "is not a regular file", f"put the {what} there")
    except FileNotFoundError:
        wrong("the file", "is not there", f"put the {what} there, or remove what stands for it")
    except OSError as error:
        wrong("the file", f"cannot be read ({error.strerror})", "check its rights")
    except UnicodeDecodeError:
        wrong("the file", "is not UTF-8", "save it as UTF-8")
    return None


def decode(text: str, places: Places, wrong: Wrong) -> TemplateFile | None:
    """What the text says; None when it cannot be, which ``wrong`` is told key by key."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _toml_line.search(str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        wrong("the file", f"is not TOML: {error}", "correct that line", line)
        return None
    except RecursionError:
        wrong("the file", "is nested too deep", "write tables and texts only", 1)
        return None
    except ValueError:  # an integer of thousands of digits
        wrong("the file", "holds a number of thousands of digits", "shorten it", 1)
        return None
    try:
        file = msgspec.convert(raw, TemplateFile)
    except msgspec.ValidationError as error:
        if not _told_by_key(raw, places, wrong):
            wrong("the file", str(error), _LIKE)
        return None
    for key, value in (("owner", file.owner), ("title", file.title)):
        if _obeyed(value):
            wrong(key, "holds a control character", "remove it", places.key("", key))
            return None
    return file


def _told_by_key(raw: dict[str, Any], places: Places, wrong: Wrong) -> bool:
    """True if something was found."""
    found = False
    fields = msgspec.structs.fields(TemplateFile)
    for field in fields:
        if field.name not in raw:
            if field.required:
                found = True
                wrong("the file", f"missing required field `{field.name}`", "add it at the top", 1)
            continue
        try:
            msgspec.convert(raw[field.name], field.type)
        except msgspec.ValidationError as error:
            found = True
            _tell_key(field.name, str(error), places, wrong)
    known = [field.name for field in fields]
    for key in raw.keys() - set(known):
        found = True
        line = places.key("", key) or places.first_table(key)
        wrong("the file", f"unknown field `{key}`", f"known are {', '.join(known)}", line)
    return found


def _tell_key(key: str, message: str, places: Places, wrong: Wrong) -> None:
    problem, _, at = message.partition(" - at ")
    # `$[1].type` below "fields" is fields[1].type; a key of a table is written `key` in `$`.
    where = key + at.strip("`").removeprefix("key` in `").removeprefix("$")
    table, _, last = where.rpartition(".")
    line = places.key(table, last) or places.table(table or where) or places.key("", key) or places.first_table(key)
    wrong(where, problem, _LIKE, line)
