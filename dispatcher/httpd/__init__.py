"""A small HTTP/1.1 server for the hot path: one task serves all connections, and answers may come later by the batch.

Waking a trio task costs as much as a whole answer, so nothing here wakes a task per request: one task polls every
connection, calls the handler, and writes what it returns; a handler that must wait first (for a commit) returns a
`Deferred` and answers a whole batch of them with `answer_all`. Only what is rare gets a task of its own: a full
socket, an error that the client must have time to read. docs/decisions/0006-receipts-server.md has the figures.
"""

from dispatcher.httpd.api import (
    JSON,
    NDJSON,
    TEXT,
    Answer,
    Deferred,
    Handler,
    Limits,
    Refused,
    Request,
    answer_all,
)
from dispatcher.httpd.server import serve_http

__all__ = [
    "JSON",
    "NDJSON",
    "TEXT",
    "Answer",
    "Deferred",
    "Handler",
    "Limits",
    "Refused",
    "Request",
    "answer_all",
    "serve_http",
]
