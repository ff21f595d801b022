"""Where things stand in a template.toml, for messages: tables, keys, and what is written inside of a long text.

It reads TOML as far as a template is written plainly (tables and keys on lines of their own); of what is written
otherwise it knows no line and says None.
"""

from __future__ import annotations

import re

_header = re.compile(r"[ \t]*(\[{1,2})([^\[\]\n]+)\]{1,2}[ \t]*(?:#.*)?$", re.MULTILINE)
_assignment = re.compile(r"[ \t]*(\"[^\"\n]*\"|'[^'\n]*'|[A-Za-z0-9_-]+)[ \t]*=[ \t]*")
_LONG = ('"""', "'''")
_ESCAPES = {"u": 6, "U": 10}
_to_quotes = re.compile(r'(?:[^"\\]|\\.|"(?!""))*+', re.DOTALL)
_broken_line = re.compile(r"\\[ \t]*\n\s*")


class Places:
    """The lines of one file, which count from 1."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tables: dict[str, int] = {}
        self._values: dict[tuple[str, str], int] = {}
        self._scan()

    def table(self, table: str) -> int | None:
        """The line of ``[wechat.en]``, asked for as ``wechat.en``, or of the third ``[[fields]]`` as ``fields[2]``."""
        offset = self._tables.get(table)
        return None if offset is None else self._line(offset)

    def first_table(self, prefix: str) -> int | None:
        """The line of the first table whose name is ``prefix`` or lies below it."""
        for name, offset in self._tables.items():
            if name == prefix or name.startswith((f"{prefix}.", f"{prefix}[")):
                return self._line(offset)
        return None

    def key(self, table: str, key: str) -> int | None:
        """The line on which ``key`` of ``table`` stands; of the file's own keys (table ``""``), too."""
        offset = self._values.get((table, key))
        return None if offset is None else self._line(offset)

    def inside(self, table: str, key: str, position: int) -> int | None:
        """The line of the character at ``position`` of this key's text as TOML reads it: escaped line ends are not
        in the text and yet are lines of the file."""
        start = self._values.get((table, key))
        if start is None:
            return None
        if not self._text.startswith(_LONG, start):
            return self._line(start)
        return self._line(self._offset(start, position))

    def start_of(self, table: str, key: str, line: int) -> int | None:
        """As ``inside``, for the beginning of a line (from 1) of the text."""
        if (start := self._values.get((table, key))) is None:
            return None
        if not self._text.startswith(_LONG, start):
            return self._line(start)
        return self._line(self._offset(start, position=None, line=line))

    def _line(self, offset: int) -> int:
        return self._text.count("\n", 0, offset) + 1

    def _scan(self) -> None:
        text, at, table = self._text, 0, ""
        counts: dict[str, int] = {}
        while at < len(text):
            if header := _header.match(text, at):
                table = header[2].replace('"', "").replace("'", "").replace(" ", "").replace("\t", "")
                if header[1] == "[[":
                    counts[table] = counts.get(table, -1) + 1
                    table = f"{table}[{counts[table]}]"
                self._tables.setdefault(table, header.start(2))
                at = header.end()
            elif assignment := _assignment.match(text, at):
                at = assignment.end()
                self._values.setdefault((table, assignment[1].strip("\"'")), at)
                if text.startswith(_LONG, at):
                    at = self._end_of_long(at)
            following = text.find("\n", at)
            at = len(text) if following < 0 else following + 1

    def _end_of_long(self, start: int) -> int:
        if self._text.startswith('"""', start):
            found = _to_quotes.match(self._text, start + 3)
            return len(self._text) if found is None else found.end()
        end = self._text.find("'''", start + 3)
        return len(self._text) if end < 0 else end

    def _offset(self, start: int, position: int | None, line: int = 0) -> int:
        """Walks a long string from its quotes on, until so many of its characters, or lines, are behind it."""
        text, quotes, at = self._text, self._text[start : start + 3], start + 3
        at += text.startswith("\n", at)
        read, lines = 0, 1
        while at < len(text) and not text.startswith(quotes, at):
            if quotes == '"""' and (broken := _broken_line.match(text, at)):
                at = broken.end()
                continue
            if read == position or lines == line:
                break
            lines += text[at] == "\n"
            read += 1
            at += _ESCAPES.get(text[at + 1 : at + 2], 2) if quotes == '"""' and text[at] == "\\" else 1
        return at
