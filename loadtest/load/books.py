"""The two books at the end: what the engine's ledger says, and what the providers show, compared event by event."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

import msgspec

from dispatcher.ledger.api import OPEN_STATES, Books
from dispatcher.ledger.stories import EventStory
from dispatcher.ledger.worker import ThreadedLedger
from dispatcher.summary import ENDS
from loadtest.load.generator import Source
from loadtest.load.tally import Tally

MAX_EXPLAINED: Final = 50_000
"""Events that no provider showed and that are looked up in the ledger one by one, 0.2 ms each. Of more the totals alone
are compared."""


class Comparison(msgspec.Struct, kw_only=True):
    """What became of acknowledged events that no provider was seen to show.

    ``lost``: the ledger does not know the event, or calls its alert delivered. ``ended``: the ledger knows another end
    of it (suppressed, failed …). ``open``: it is still held. ``exact``: looked up one by one.
    """

    lost: int = 0
    ended: int = 0
    open: int = 0
    exact: bool = True


class Stories(Protocol):
    """What is asked of a ledger here."""

    async def explain(self, event_id: str) -> EventStory | None:
        """See `Ledger.explain`."""


async def compare(ledger: Stories, books: Books, tally: Tally, source: Source) -> Comparison:
    """Look for every acknowledged event that is in no provider's book."""
    missing = [number for number in tally.pending.values() if tally.acked[number]]
    if len(missing) > MAX_EXPLAINED:
        return _by_totals(books, len(missing))
    found = Comparison()
    for number in missing:
        story = await ledger.explain(source.event_id(number))
        states = set() if story is None else {alert.state for alert in story.alerts}
        if not states or "delivered" in states:
            found.lost += 1
        elif states & OPEN_STATES:
            found.open += 1
        else:
            found.ended += 1
    return found


def _by_totals(books: Books, missing: int) -> Comparison:
    ended = sum(books.states.get(state, 0) for state in ENDS if state != "delivered")  # type: ignore[call-overload]
    left = max(0, missing - ended)
    still_open = min(left, books.open)
    return Comparison(lost=left - still_open, ended=missing - left, open=still_open, exact=False)


async def read_books(path: Path, tally: Tally, source: Source) -> tuple[Books, Comparison]:
    """Open the ledger of an engine that has ended, and compare."""
    ledger = ThreadedLedger(str(path))
    try:
        books = await ledger.books()
        return books, await compare(ledger, books, tally, source)
    finally:
        await ledger.aclose()
