"""What the brown-out ladder does to the plan of one alert, before its counters are looked at. Pure."""

from __future__ import annotations

import msgspec

from dispatcher.model.event import Event
from ratelimit.brownout import DIGEST, NAMES, RAISE_MINIMUM, SHIFT, BrownOutTerms
from ratelimit.rulefile import BROWN_OUT, BROWN_OUT_DIGEST
from ratelimit.rules import Plan


def degrade(
    plan: Plan, event: Event, channel: str, level: int, terms: BrownOutTerms, urgent: bool | None = None
) -> tuple[Plan, str | None]:
    """The plan at a brown-out level of ``channel``, and the step that changed it (None: it is as it was).

    Small swipes leave the channel for the next of their route. Without a next one they are suppressed: at level 1 as
    ``brown-out``; from level 2 on as ``brown-out-digest``, the members of a digest that is yet to be built. At level 3
    every ordinary alert that has another channel goes there; without one it stays and takes what room there is.
    Reserved alerts stay as they are; ``urgent`` as in `BrownOutTerms.is_reserved`.
    """
    decided = plan.decided
    route = decided.route
    if (
        decided.state != "send"
        or route[0] != channel
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
    rule = BROWN_OUT_DIGEST if level >= DIGEST else BROWN_OUT
    kept = msgspec.structs.replace(decided, state="suppressed", route=(), rule=rule, saw=saw, increments=())
    return msgspec.structs.replace(plan, decided=kept, caps=()), NAMES[DIGEST if level >= DIGEST else RAISE_MINIMUM]
