"""What the brown-out ladder does to the plan of one alert, before its counters are looked at. Pure."""

from __future__ import annotations

import msgspec

from dispatcher.model.event import Event
from ratelimit.brownout import DIGEST, NAMES, RAISE_MINIMUM, SHIFT, BrownOutTerms
from ratelimit.decision import Decision, Fold, Plan
from ratelimit.matched import DIGEST_CATEGORY
from ratelimit.rulefile import BROWN_OUT, BROWN_OUT_DIGEST

DIGEST_AFTER_MS = 3_600_000
"""When a brown-out's digest leaves, from its first member: an hour. Soon enough to be news, and long enough to make one
message of a shopping trip, which is what spares the quota."""


def degrade(
    plan: Plan, event: Event, channel: str, level: int, terms: BrownOutTerms, urgent: bool | None = None
) -> tuple[Plan, str | None]:
    """The plan at a brown-out level of ``channel``, and the step that changed it (None: it is as it was).

    Small swipes leave the channel for the next of their route. Without a next one they are suppressed: at level 1 as
    ``brown-out``; from level 2 on they are folded as ``brown-out-digest``. At level 3 every ordinary alert that has
    another channel goes there; without one it stays and takes what room there is. Reserved alerts stay as they are, and
    so does what tells a digest; ``urgent`` as in `BrownOutTerms.is_reserved`.
    """
    decided = plan.decided
    route = decided.route
    if (
        decided.state != "send"
        or route[0] != channel
        or event.category == DIGEST_CATEGORY
        or terms.is_reserved(event.amount, event.currency, event.category, urgent)
    ):
        return plan, None
    below = terms.small_below(level, event.currency)
    small = abs(event.amount) < below
    if not small and level < SHIFT:
        return plan, None
    others = route[1:]
    saw = {"brownout": level, "amount": abs(event.amount), f"threshold/{channel}": below}
    if others:
        only_by_digest = level >= DIGEST and abs(event.amount) >= terms.small_below(RAISE_MINIMUM, event.currency)
        step = NAMES[SHIFT if not small else DIGEST if only_by_digest else RAISE_MINIMUM]
        moved = msgspec.structs.replace(decided, route=others, saw=saw)
        return msgspec.structs.replace(plan, decided=moved), step
    if not small:
        return plan, None
    kept: Decision
    if level >= DIGEST:
        fold = Fold(BROWN_OUT_DIGEST, plan.now_ms + DIGEST_AFTER_MS)
        saw["digest_due_ms"] = fold.due_ms
        kept = msgspec.structs.replace(decided, state="folded", route=(), rule=BROWN_OUT_DIGEST, saw=saw, fold=fold)
    else:
        kept = msgspec.structs.replace(decided, state="suppressed", route=(), rule=BROWN_OUT, saw=saw)
    return msgspec.structs.replace(plan, decided=kept), NAMES[DIGEST if level >= DIGEST else RAISE_MINIMUM]
