"""Shares of the providers' rates on SQLite: one small row a process and rate, written when it changes or runs out."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from dispatcher.ledger.api import RateAsk, RateShare
from ratelimit.shares import Claim, over, renewed, worth_writing

READ = "SELECT owner, want, share, until, was, was_until FROM rate_claims WHERE rate=?"
WRITE = (
    "INSERT INTO rate_claims (rate, owner, want, share, until, was, was_until) VALUES (?,?,?,?,?,?,?)"
    " ON CONFLICT (rate, owner) DO UPDATE SET want=excluded.want, share=excluded.share, until=excluded.until,"
    " was=excluded.was, was_until=excluded.was_until"
)
FORGET = "DELETE FROM rate_claims WHERE rate=? AND owner=?"
END = "UPDATE rate_claims SET want=0, until=min(until, ?) WHERE owner=?"


def share_rates(
    connection: sqlite3.Connection, asks: Sequence[RateAsk], owner: int, steady_ms: Callable[[], int]
) -> list[RateShare]:
    """See `Ledger.share_rates`."""
    # Read here, where nobody else can write: a time from before the wait for our turn would be older than the rows.
    now_ms = steady_ms()
    shares = []
    for ask in asks:
        claims = {row[0]: Claim(*row[1:]) for row in connection.execute(READ, (ask.name,)).fetchall()}
        for gone in [other for other, claim in claims.items() if over(claim, now_ms)]:
            connection.execute(FORGET, (ask.name, gone))
            del claims[gone]
        mine = claims.get(owner)
        claim, part = renewed(claims, owner, ask.rate, ask.want, ask.using, now_ms, ask.expected)
        if worth_writing(mine, claim, now_ms):
            values = (claim.want, claim.share, claim.until_ms, claim.was, claim.was_until_ms)
            connection.execute(WRITE, (ask.name, owner, *values))
        else:
            assert mine is not None
            claim = mine
        shares.append(RateShare(claim.share, claim.until_ms, part))
    return shares


def leave_rates(connection: sqlite3.Connection, owner: int, steady_ms: Callable[[], int]) -> None:
    """See `Ledger.leave_rates`."""
    connection.execute(END, (steady_ms(), owner))
