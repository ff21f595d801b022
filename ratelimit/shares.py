"""One rate for many processes: how much of it each may use, agreed through a table that all of them read and write.

Pure: time is an argument, and the table is whoever calls this inside a transaction. Each process has one `Claim` on a
rate. The guarantee: in any stretch of one second, the largest shares that the processes used in it add up to no more
than the rate. A pacer that keeps its own share in every second then keeps the rate for all of them together.

It rests on three rules. A share grows only into what no other claim occupies. A process lowers its share first and says
so afterwards, and what it has given up stays occupied for ``GAP_MS``, so that no second sees the old share here and the
new one there. And a process whose claim has run out uses nothing, but its share too stays occupied for ``GAP_MS``.

Shares are whole numbers: a second holds whole messages, and 0.7 of one would be lost with each process.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

TERM_MS = 3_000
"""How long a claim holds without being renewed: a dead process's part is free after this and ``GAP_MS``, and a ledger
that answers nobody for longer stops the sending, as it has to."""

RENEW_MS = 1_500
"""A claim is written again when less than this is left of it, even if nothing has changed: two tries before it ends."""

GAP_MS = 1_250
"""Between the end of a share's use here and the beginning there: a second, in which the provider counts, and a quarter
of one for requests that are granted and not yet on the wire."""

SURE_OF_A_SHARE = 100
"""An idle process keeps one permit a second, for a lone swipe, where the rate has so many for each process: all idle
ones together then keep back one percent of it at most."""

_Owner = int


class Claim(msgspec.Struct, frozen=True, gc=False):
    """What one process may use of a rate, in permits a second, and what it would like to.

    ``share`` holds until ``until_ms``. ``was`` is a larger share that it used before, occupied until ``was_until_ms``.
    Times are of a clock that all processes share and that never jumps (milliseconds).
    """

    want: int
    share: int
    until_ms: int
    was: int = 0
    was_until_ms: int = 0


def occupied(claim: Claim, now_ms: int) -> int:
    """How much of the rate nobody else may have at ``now_ms``.

    A claim that ends later than any that could have been made by now was made before the machine was started anew,
    when that clock began again: its process is gone.
    """
    if claim.until_ms > now_ms + TERM_MS:
        return 0
    share = claim.share if now_ms < claim.until_ms + GAP_MS else 0
    was = claim.was if now_ms < claim.was_until_ms <= now_ms + GAP_MS else 0
    return max(share, was)


def living(claim: Claim, now_ms: int) -> bool:
    """Whether its process may be using it."""
    return now_ms < claim.until_ms <= now_ms + TERM_MS


def over(claim: Claim, now_ms: int) -> bool:
    """Whether it can be forgotten."""
    return not living(claim, now_ms) and occupied(claim, now_ms) == 0


def least(rate: int, processes: int) -> int:
    """What an idle process keeps, so that a lone swipe there leaves at once: one permit a second, or none where the
    rate is too low to keep some back in every process."""
    return 1 if rate >= SURE_OF_A_SHARE * processes else 0


def fair_parts(wants: Mapping[_Owner, int], rate: int) -> dict[_Owner, int]:
    """The rate divided by what each wants: who wants less than an equal part gets it, the others share the rest.

    What nobody wants is divided equally on top, so that a burst finds a share that is already there. The parts add up
    to the rate.
    """
    parts: dict[_Owner, int] = {}
    left = rate
    for place, owner in enumerate(sorted(wants, key=lambda owner: (wants[owner], owner))):
        parts[owner] = min(wants[owner], left // (len(wants) - place))
        left -= parts[owner]
    for place, owner in enumerate(sorted(wants)):
        parts[owner] += left // len(wants) + (place < left % len(wants))
    return parts


def renewed(
    claims: Mapping[_Owner, Claim], owner: _Owner, rate: int, want: int, using: int, now_ms: int, expected: int = 1
) -> tuple[Claim, int]:
    """The new claim of ``owner``, and its fair part, which may be less: then it has to lower its share and call again.

    ``claims`` are everybody's as they stand in the table, ``using`` is what the caller has confined itself to since
    before this call (its share or less). ``expected`` processes will be there soon: the others' part is left to them.
    """
    others = {one: claim for one, claim in claims.items() if one != owner}
    mine = claims.get(owner)
    held = min(mine.share, using) if mine is not None and living(mine, now_ms) else 0
    wants = {one: min(claim.want, rate) for one, claim in others.items() if living(claim, now_ms)}
    wants[owner] = min(want, rate)
    for missing in range(expected - len(wants)):
        wants[-1 - missing] = rate  # processes are numbered from 1
    floor = least(rate, len(wants))
    part = fair_parts({one: max(one_wants, floor) for one, one_wants in wants.items()}, rate)[owner]
    free = max(rate - sum(occupied(claim, now_ms) for claim in others.values()), 0)
    share = max(held, min(part, free))
    was = was_until_ms = 0
    if mine is not None:
        before = occupied(mine, now_ms)
        if before > share:
            was = before
            was_until_ms = now_ms + GAP_MS if mine.share > share else mine.was_until_ms
    return Claim(min(want, rate), share, now_ms + TERM_MS, was, was_until_ms), part


def worth_writing(before: Claim | None, after: Claim, now_ms: int) -> bool:
    """Whether the table has to know: a commit costs a write to the disk."""
    return (
        before is None
        or (before.want, before.share) != (after.want, after.share)
        or before.until_ms - now_ms < RENEW_MS
    )
