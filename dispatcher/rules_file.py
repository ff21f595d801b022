"""The rule file on disk: read whole, with who owns it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec

from dispatcher.ledger.people import Person
from dispatcher.watched import name_of
from ratelimit.errors import RulesError
from ratelimit.rules import Rules, default_rules_text, load_rules

MAX_RULES_BYTES = 1024 * 1024
"""256 rules with a comment each are 100 KiB; whatever is larger is another file, named by mistake. Each change keeps
its text in the ledger."""

SHIPPED = "the shipped rules"


class RulesFile(msgspec.Struct, frozen=True):
    """A rule file as it was read: its text, the rules in it, and who owns it."""

    text: str
    rules: Rules
    owner: Person


def read(path: Path | None) -> RulesFile:
    """Read and decode the file. ``None``: the shipped rules.

    Raises `RulesError`, one line that names the file, and the rule and the key where it is about them.
    """
    if path is None:
        text = default_rules_text()
        return RulesFile(text, load_rules(text, SHIPPED), Person(SHIPPED))
    content, owner = _content(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RulesError(str(path), f"line {line} is not UTF-8 text") from None
    return RulesFile(text, load_rules(text, str(path)), Person(owner, owner))


def _content(path: Path) -> tuple[bytes, str]:
    try:
        # Not blocking: a pipe of that name would hold up everything until somebody writes into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise RulesError(str(path), "is not a file; name a rule file, such as rules.toml")
            content = file.read(MAX_RULES_BYTES + 1)
    except FileNotFoundError:
        raise RulesError(str(path), "no such file; `swipebell init DIR` writes one") from None
    except IsADirectoryError:
        raise RulesError(str(path), f"is a folder; name the file, such as {path / 'rules.toml'}") from None
    except OSError as error:
        raise RulesError(str(path), f"cannot be read: {error.strerror}") from None
    if len(content) > MAX_RULES_BYTES:
        raise RulesError(str(path), f"is over {MAX_RULES_BYTES:,} bytes; that is not a rule file")
    return content, name_of(found.st_uid)
