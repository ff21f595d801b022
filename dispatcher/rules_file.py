"""The rule file on disk: read whole, with who owns it, and how to tell that it has changed."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path

import msgspec

from dispatcher.ledger.rule_changes import Person
from ratelimit.errors import RulesError
from ratelimit.rules import Rules, default_rules_text, load_rules

MAX_RULES_BYTES = 1024 * 1024
"""256 rules with a comment each are 100 KiB; whatever is larger is another file, named by mistake. Each change keeps
its text in the ledger."""

SHIPPED = "the shipped rules"

Seen = tuple[int, ...]
"""What tells one state of a file from another: device, inode, size, and the times of its content and of its mode."""


class RulesFile(msgspec.Struct, frozen=True):
    """A rule file as it was read: its text, the rules in it, and who owns it."""

    text: str
    rules: Rules
    owner: Person


def look(path: Path | None) -> Seen:
    """The state of the file; a file that cannot be looked at has a state, too. ``None``: the shipped rules."""
    if path is None:
        return ()
    try:
        found = path.stat()
    except OSError as error:
        return (error.errno or -1,)
    return _seen(found)


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


def name_of(account: int) -> str:
    """The name of an account of the operating system."""
    try:
        return pwd.getpwuid(account).pw_name
    except KeyError:
        return f"uid {account}"


def _seen(found: os.stat_result) -> Seen:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
