"""One alert through the timed rules, now that the counters are known. Pure but for the counters it is given."""

from __future__ import annotations

from ratelimit.asked import MAX_MOVES, Against, Asked, Counted, Pass, channel_of
from ratelimit.decision import Decision, Fold, State
from ratelimit.limits import LimitRule, fold_of
from ratelimit.routes import SERVICE

_TIMES = frozenset({"quiet_at_ms", "last_ms", "digest_due_ms"})


def walk(asked: Asked, planned: Decision, ledger: Counted) -> Decision:
    """The decision about an alert that could be sent now on ``planned.route``."""
    send_ms, moves = asked.now_ms, 0
    mover: Against | None = None
    while True:
        zone = asked.recipient.timezone
        day = asked.today if moves == 0 else asked.windows.days.of(zone, send_ms)
        now = Pass(asked, ledger, planned.route, send_ms, day, [], [], {})
        found = _round(now)
        if found is None:
            return _allowed(now, planned, mover)
        rule, against = found
        if moves:
            against.saw["moves"] = moves + 1
        if against.what == "digest" and isinstance(rule, LimitRule):
            fold = fold_of(rule, now)
            against.saw["digest_due_ms"] = fold.due_ms
        else:
            fold = None
        if against.saw.keys() & _TIMES:  # nobody needs a zone to read a count
            against.saw[f"zone/{day.zone}"] = 0 if day.fallback else 1
        if fold is not None:
            return _ended(planned, "folded", against.rule, against.saw, fold)
        if against.what == "suppress":
            return _ended(planned, "suppressed", against.rule, against.saw)
        if mover is not None and moves == MAX_MOVES:
            return _ended(planned, "suppressed", mover.rule, {"moves": moves, "held_until_ms": send_ms})
        against.saw[f"zone/{day.zone}"] = 0 if day.fallback else 1
        if against.until_ms >= asked.expires_ms:
            saw = against.saw | {"held_until_ms": against.until_ms, "expires_ms": asked.expires_ms}
            return _ended(planned, "suppressed", against.rule, saw)
        mover, send_ms, moves = against, against.until_ms, moves + 1


def _round(now: Pass) -> tuple[object, Against] | None:
    """The first rule that has something against this time; None when none has, and then all is counted in ``now``."""
    asked = now.asked
    event, recipient = asked.event, asked.recipient
    for dedup in asked.dedups:
        if dedup.rest is not None and not dedup.rest(event, recipient):
            continue
        against = dedup.ask(now, dedup.key(event, str(recipient.id)))
        if against is not None:
            return dedup, against
    by_channel = []
    begun = channel_of(now.route[0])
    route = now.route
    for rule in asked.rules:
        if rule.rest is not None and not rule.rest(event, recipient):
            continue
        keys = rule.keys(asked, route, now.day)
        against = rule.ask(now, keys)
        if against is not None:
            return rule, against
        if rule.by_channel:
            by_channel.append((rule, keys))
    if by_channel and channel_of(now.route[0]) != begun:
        # Another channel has come first: those that hold or fold for it have not been asked about it yet.
        for rule, keys in by_channel:
            if isinstance(rule, LimitRule) and rule.at != "suppress":
                against = rule.ask(now, keys)
                if against is not None:
                    return rule, against
    for rule, keys in by_channel:
        if isinstance(rule, LimitRule):
            rule.count_channels(now, keys)
    return None


def _allowed(now: Pass, planned: Decision, mover: Against | None) -> Decision:
    route, saw = now.route, planned.saw
    if now.tightest is not None:
        saw = {**(saw or {}), "counter": now.tightest[1], "limit": now.tightest[2]}
    if now.full:
        saw = {**(saw or {}), **now.full}
    state: State = "send"
    rule = planned.rule
    if mover is not None:
        state, rule = "held", mover.rule
        # The rule's name too: the ledger keeps a reason for an alert's end, and this one goes on.
        held = {"held_until_ms": now.send_ms, f"by/{rule}": 1}
        saw = {**(planned.saw or {}), **mover.saw, **now.full, **held}
        if SERVICE in route and now.asked.recipient.service_until_ms <= now.send_ms:
            # WeChat will not take a customer-service message any more by then.
            route = tuple(name for name in route if name != SERVICE)
    return Decision(
        state,
        route,
        rule,
        saw,
        planned.expires_at_ms,
        tuple(now.counted),
        planned.day_total_key,
        planned.day_total,
        planned.zone_fallback,
        now.send_ms,
        None,
        tuple(now.marks),
    )


def _ended(planned: Decision, state: State, rule: str, saw: dict[str, int], fold: Fold | None = None) -> Decision:
    return Decision(
        state,
        (),
        rule,
        {**(planned.saw or {}), **saw},
        planned.expires_at_ms,
        (),
        planned.day_total_key,
        planned.day_total,
        planned.zone_fallback,
        planned.send_ms,
        fold,
    )
