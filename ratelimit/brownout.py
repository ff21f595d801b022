"""The brown-out ladder: what is given up, step by step, when a provider's daily quota runs low. Pure.

The level is found from what is left for ordinary alerts and what the rest of the day is expected to need. Each rung
has an edge to enter it and a higher one to leave it, so that the level does not flutter around one number.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ratelimit.quota import share_of_day

RAISE_MINIMUM, DIGEST, SHIFT = 1, 2, 3
"""The levels: small swipes leave the channel; larger ones too, folded where they have no other; all ordinary ones."""

NAMES = {0: "none", RAISE_MINIMUM: "raise-minimum", DIGEST: "digest", SHIFT: "shift"}
"""As metrics and logs name them."""


class Rung(msgspec.Struct, frozen=True):
    """One level: entered when what is left covers less than ``enter`` of the need, left again at ``leave``."""

    level: int
    enter: float
    leave: float


LADDER = (Rung(RAISE_MINIMUM, 1.0, 1.2), Rung(DIGEST, 0.7, 0.85), Rung(SHIFT, 0.35, 0.5))
"""At 1.0 the day just comes out if it goes on as it began; the estimate is good to some ten percent, hence the gaps."""

EARLY = 0.04
"""Before this share of the day is over (about 8 in the morning) its own pace says nothing, and yesterday's is taken."""


class BrownOutTerms(msgspec.Struct, frozen=True):
    """What the ladder does, from the configuration; amounts are minor units by currency.

    Below ``minimum`` a swipe is small from level 1 on, below ``digest`` from level 2 on; a currency that is not listed
    has no small swipes. The reserve belongs to the alerts that the rules call urgent. Where the rules have no
    ``priority`` at all, it belongs to ``categories`` and amounts from ``reserve_from``, so that it does not lie idle.
    """

    minimum: Mapping[str, int]
    digest: Mapping[str, int]
    reserve_from: Mapping[str, int]
    categories: frozenset[str]

    def is_reserved(self, amount: int, currency: str, category: str, urgent: bool | None = None) -> bool:
        """Whether it may use the reserve and is left alone at every level.

        ``urgent`` is what the rules say, and then nothing else counts; None: they have no ``priority``.
        """
        if urgent is not None:
            return urgent
        least = self.reserve_from.get(currency)
        return category in self.categories or (least is not None and abs(amount) >= least)

    def small_below(self, level: int, currency: str) -> int:
        """The amount below which a swipe is small at this level; 0: none is."""
        least = self.minimum.get(currency, 0) if level >= RAISE_MINIMUM else 0
        return max(least, self.digest.get(currency, 0)) if level >= DIGEST else least


def expected_need(demand: int, yesterday: int, now_ms: int) -> float:
    """Attempts that the rest of China's day will want. ``demand`` is today's so far, ``yesterday`` the whole of the
    day before (0: not known).

    Today goes on as it began, measured by the usual shape of a day; before there is enough of it, as yesterday went.
    """
    over = share_of_day(now_ms)
    if over < EARLY:
        return yesterday * (1.0 - over)
    return demand / over * (1.0 - over)


def next_level(remaining: int, need: float, level: int) -> int:
    """The level now, when it was ``level``; ``remaining`` is what ordinary alerts may still use today."""
    if remaining <= 0:
        return SHIFT
    if need <= 0.0:
        return 0
    covered = remaining / need
    entered = max((rung.level for rung in LADDER if covered < rung.enter), default=0)
    kept = max((rung.level for rung in LADDER if rung.level <= level and covered < rung.leave), default=0)
    return max(entered, kept)
