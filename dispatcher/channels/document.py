"""Writes docs/channels.md from the answer tables: ``python -m dispatcher.channels.document [FILE]``."""

from __future__ import annotations

import sys
from pathlib import Path

from dispatcher.channels.table import NOT_IN_TABLE, AnswerTable, Row
from dispatcher.channels.tables import TABLES

FILE = Path("docs/channels.md")

_HEAD = """# What the providers answer, and what follows

Made from the answer tables in `dispatcher/channels/` by `python -m dispatcher.channels.document`; a test compares this
page with them.

- **class** is what the answer means for the alert; the **action** follows from it.
- **about** is what the answer is about: this `message`, this `recipient`, this `template` or the whole `channel`.
- **pause** is how long to wait at least before the next try. That of a recipient is kept as it is; a longer one of the
  channel begins at 2 seconds and doubles, because it may be over soon.
- A code that is not here is a failure with an alarm (`swipebell_unknown_codes_total`), never a success.

The same for every provider over HTTP, where no answer of its own can be read:

| code | class | action |
|---|---|---|
| `network-N`, nothing of the request had left | retry | again with backoff and full jitter |
| `network-N`, it may have arrived | unknown | again or left alone, as the channel is configured |
| `http-429` | throttle | again with backoff and full jitter, after Retry-After |
| `http-401`, `403`, `404`, `405`, `407` | configuration | the channel waits for a person, then again |
| another `http-4NN` (not 408) | permanent | the next channel of its route, or failed |
| another `http-NNN` | unknown | again or left alone, as the channel is configured |
| `unreadable`, `no-id`, `no-msgid`: HTTP 200 without the answer | unknown | again or left alone, as configured |
"""


def document() -> str:
    """The whole page."""
    parts = [_HEAD]
    for channel, tables in TABLES.items():
        parts += [_section(channel, table) for table in tables]
    return "\n".join(parts)


def _section(channel: str, table: AnswerTable) -> str:
    head = f"## {table.provider} (channel `{channel}`)\n\nSource: {table.source}.\n\n"
    lines = ["| code | class | about | again | pause | action | meaning |", "|---|---|---|---|---|---|---|"]
    lines += [_line(f"`{code}`", row) for code, row in table.rows.items()]
    lines.append(_line("any other", NOT_IN_TABLE))
    return head + "\n".join(lines) + "\n"


def _line(code: str, row: Row) -> str:
    again = "yes" if row.retryable else "no"
    return f"| {code} | {row.kind} | {row.scope} | {again} | {_pause(row.pause_ms)} | {row.action} | {row.note} |"


def _pause(milliseconds: int) -> str:
    if not milliseconds:
        return ""
    seconds, rest = divmod(milliseconds, 1000)
    if rest:
        return f"{milliseconds} ms"
    if seconds % 3600 == 0:
        return f"{seconds // 3600} h"
    return f"{seconds // 60} min" if seconds % 60 == 0 else f"{seconds} s"


if __name__ == "__main__":
    (Path(sys.argv[1]) if sys.argv[1:] else FILE).write_text(document(), "utf-8")
