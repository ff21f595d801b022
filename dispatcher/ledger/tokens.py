"""The access token that a fleet shares: who may fetch the next one, and what the others do meanwhile.

Pure: a row and a question in, a row and an answer out. A backend runs each in one transaction, so that of any number
of processes one at a time holds the lease to fetch. Times are epoch ms.

A token is known by its generation, which goes up with each new one. Whoever was refused names the generation that
failed; is it no longer the current one, there is nothing to fetch: that is how five hundred refusals of one token,
in any number of processes, lead to one refresh.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ratelimit.quota import china_day

FETCH_LEASE_MS = 25_000
"""How long a fetch may take before another process fetches instead: two of the default time-outs of a call (a normal
one, and a forced one behind it) and some. A process that dies in it delays the fleet's token by as much."""

FORCED_SPACING_MS = 30_000
FORCED_PER_DAY = 20
"""Of ``force_refresh``, by WeChat's own rules (providers.md section 1): two calls within 30 s do not refresh, and the
day has 20. They are counted in China's days."""

STORM_WINDOW_MS = 10 * 60_000
STORM_REFRESHES = 5
"""More new tokens than this in ten minutes are a storm; a token lives two hours, so somebody else must be refreshing
(another system with the same account, say), or the provider refuses tokens that are good."""

MAX_RETRY_MS = 2 * 60_000
"""No failed fetch is repeated later than this (the longest wait is a minute): a time further ahead was written by a
clock that has since been set back, and must not stop the fleet."""


class TokenRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the ledger keeps of one credential. ``sealed`` is the token, enciphered by its steward.

    ``refused``: the provider has refused this generation. ``lease`` is the number of the last lease given out,
    ``lease_until`` when it runs out (0: given back). ``retry_at`` is when a failed fetch may be repeated, and
    ``trouble`` what it met (``misconfigured``: a person has to act). The rest counts.
    """

    generation: int = 0
    sealed: bytes = b""
    ends_at: int = 0
    renew_at: int = 0
    refused: bool = False
    lease: int = 0
    lease_until: int = 0
    retry_at: int = 0
    trouble: str = ""
    misconfigured: bool = False
    forced_at: int = -FORCED_SPACING_MS
    forced_day: int = 0
    forced: int = 0
    window_from: int = 0
    window: int = 0

    def __repr__(self) -> str:  # not the token, sealed or not
        return f"<TokenRow {self.generation}>"

    def usable(self, now_ms: int) -> bool:
        """Whether requests may be sent with it."""
        return self.generation > 0 and not self.refused and now_ms < self.ends_at


class TokenAnswer(msgspec.Struct, frozen=True):
    """What a process is to do: ``use`` the row's token, ``fetch`` under the lease ``row.lease``, ``wait`` for the one
    who fetches, or stop for now because of the row's ``trouble``."""

    what: Literal["use", "fetch", "wait", "trouble"]
    row: TokenRow


def ask(row: TokenRow, failed: int | None, now_ms: int) -> tuple[TokenRow, TokenAnswer]:
    """A process needs a token; ``failed`` is the generation that it was refused with (None: none)."""
    if failed is not None and failed == row.generation:
        row = msgspec.structs.replace(row, refused=True)
    usable = row.usable(now_ms)
    if usable and now_ms < row.renew_at:
        return row, TokenAnswer("use", row)
    # While one renews a token that is still good, the others go on with it. A process reads its clock before it waits
    # for its turn to write, so a lease may have been given "later" than it is asked about; but one that lies further
    # ahead than that was given by a clock that has since been set back.
    if now_ms < row.lease_until <= now_ms + 2 * FETCH_LEASE_MS:
        return row, TokenAnswer("use" if usable else "wait", row)
    if now_ms < row.retry_at <= now_ms + MAX_RETRY_MS:
        return row, TokenAnswer("use" if usable and not row.misconfigured else "trouble", row)
    row = msgspec.structs.replace(row, lease=row.lease + 1, lease_until=now_ms + FETCH_LEASE_MS)
    return row, TokenAnswer("fetch", row)


def holds(row: TokenRow, lease: int) -> bool:
    """Whether the lease is still its holder's: nobody has taken over, and it was not given back."""
    return row.lease == lease and row.lease_until > 0


def fetched(row: TokenRow, lease: int, sealed: bytes | None, ends_at: int, renew_at: int, now_ms: int) -> TokenRow:
    """The holder of the lease has a token; ``sealed`` None: it is the same as before, with this life left.

    From one who no longer holds the lease nothing is taken: another fetches, and its token will be at least as new.
    """
    if not holds(row, lease):
        return row
    row = msgspec.structs.replace(
        row, ends_at=ends_at, renew_at=renew_at, lease_until=0, retry_at=0, trouble="", misconfigured=False
    )
    if sealed is None:
        return row
    window_from, window = row.window_from, row.window + 1
    if abs(now_ms - window_from) >= STORM_WINDOW_MS:
        window_from, window = now_ms, 1
    return msgspec.structs.replace(
        row, generation=row.generation + 1, sealed=sealed, refused=False, window_from=window_from, window=window
    )


def failed(row: TokenRow, lease: int, retry_at: int, trouble: str, misconfigured: bool) -> TokenRow:
    """The holder of the lease got none: nobody tries again before ``retry_at``. ``trouble`` holds no secret."""
    if not holds(row, lease):
        return row
    return msgspec.structs.replace(row, lease_until=0, retry_at=retry_at, trouble=trouble, misconfigured=misconfigured)


def force(row: TokenRow, lease: int, now_ms: int) -> tuple[TokenRow, bool]:
    """The holder asks to fetch with ``force_refresh``, which kills the present token; whether it may. Counted before
    it is made: one that is lost with its process was made, for all that anybody knows."""
    day = china_day(now_ms)
    made = row.forced if row.forced_day == day else 0
    too_soon = abs(now_ms - row.forced_at) < FORCED_SPACING_MS
    if not holds(row, lease) or too_soon or made >= FORCED_PER_DAY:
        return row, False
    until = now_ms + FETCH_LEASE_MS
    return msgspec.structs.replace(row, forced_at=now_ms, forced_day=day, forced=made + 1, lease_until=until), True


def is_storm(row: TokenRow, now_ms: int) -> bool:
    """Whether the fleet gets new tokens far more often than they end."""
    return row.window > STORM_REFRESHES and abs(now_ms - row.window_from) < STORM_WINDOW_MS
