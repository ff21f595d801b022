"""What the send rules ought to say, from a list of everything that was decided so far and nothing else.

No counters, no memory, no keys: for each alert it looks through the whole list again. It reads the rule file's tables
as TOML gives them, so that it shares nothing with what it is to check.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from fractions import Fraction
from math import ceil
from typing import NamedTuple

from dispatcher.model.event import Event
from dispatcher.model.recipient import Recipient
from tests.ratelimit.oracle_facts import (
    DAY,
    RuleTable,
    at_limit,
    consented,
    counted_on,
    fingerprint,
    length,
    local,
    matches,
    moves_money,
    ms_of,
    next_window,
    quiet_until,
    scope,
    template_of,
    window_of,
)

MOST_MOVES = 64
DEFAULT_AGE_MS = 24 * 3600 * 1000
ADDRESS = {"wechat": "openid", "sms": "phone", "email": "email"}


class Said(NamedTuple):
    state: str
    rule: str | None = None
    send_ms: int = 0
    route: tuple[str, ...] = ()


class Past(NamedTuple):
    event: Event
    to: Recipient
    said: Said
    rules: Mapping[str, RuleTable]
    at: int
    at_storms: Mapping[str, bool]


class Oracle:
    """``past`` is all it knows. Times are epoch ms."""

    def __init__(self, channels: Collection[str]) -> None:
        self.channels = channels
        self.past: list[Past] = []

    def event(self, rules: Sequence[RuleTable], event: Event, told: Sequence[Recipient], now: int) -> list[Said]:
        """What is decided for each recipient of one event."""
        plain = [self._plain(rules, event, to, now) for to in told]
        # Of what rings nobody in any case there is no storm.
        storms = self._storms(rules, event, told, now) if any(one.state == "send" for one in plain) else {}
        known = {rule["id"]: rule for rule in rules}
        said = []
        for to, one in zip(told, plain, strict=True):
            if one.state == "send":
                stormy = [name for name, is_held in storms.items() if is_held]
                end = one._replace(state="held", rule=stormy[0]) if stormy else self._when(rules, event, to, now, one)
            else:
                end = one
            said.append(end)
            self.past.append(Past(event, to, end, known, now, storms))
        return said

    def _plain(self, rules: Sequence[RuleTable], event: Event, to: Recipient, now: int) -> Said:
        """What can be said without the list; of what may be sent, its route and until when it may."""
        mine = [rule for rule in rules if matches(rule, event, to)]
        if event.category in to.opt_out:
            return Said("suppressed", "opt-out")
        for rule in mine:
            if rule["effect"] == "consent" and "channel" not in rule and not consented(rule, to):
                return Said("suppressed", rule["id"])
        route, why = self._route(mine, event, to)
        if not route:
            return Said("suppressed", why)
        ages = [rule for rule in mine if rule["effect"] == "expire_after"]
        expires = min(ms_of(event.time), now) + (length(ages[0]) if ages else DEFAULT_AGE_MS)
        if now >= expires:
            return Said("expired", ages[0]["id"] if ages else "default-expiry")
        return Said("send", None, expires, route)

    def _when(self, rules: Sequence[RuleTable], event: Event, to: Recipient, now: int, plain: Said) -> Said:
        mine = [rule for rule in rules if matches(rule, event, to)]
        send, mover, moves, left = now, None, 0, list(plain.route)
        while True:
            said = self._asked(mine, event, to, left, send)
            if said.state == "send":
                return Said("held" if send > now else "send", mover, send, tuple(left))
            if said.state == "moved":
                moves += 1
                send, mover, left = said.send_ms, said.rule, list(plain.route)
                if moves > MOST_MOVES or send >= plain.send_ms:
                    return Said("suppressed", mover)
            elif said.state != "again":
                return said

    def _asked(self, mine: Sequence[RuleTable], event: Event, to: Recipient, left: list[str], send: int) -> Said:
        """What the rules say to leaving at ``send`` on the channels that are ``left``; those that are full are taken
        out. Another first channel, and they are asked "again": some rules are about the first one."""
        first, passed = left[0], False
        for rule in mine:
            if rule["effect"] == "dedup":
                told = [one.said.send_ms for one in self._counted(rule, event, to, None)]
                if any(abs(at - send) < length(rule) for at in told):
                    return Said("suppressed", rule["id"])
        for rule in mine:
            if rule["effect"] == "quiet_hours" and (until := quiet_until(rule, to.timezone, send)) and not passed:
                if rule.get("then") == "suppress":
                    return Said("suppressed", rule["id"])
                passed = rule.get("then") == "pass"
                if not passed:
                    return Said("moved", rule["id"], until)
            if rule["effect"] in ("cap", "min_gap"):
                for channel in counted_on(rule, left):
                    room_at = self._room_at(rule, event, to, channel, send)
                    if room_at is None:
                        continue
                    if at_limit(rule) == "hold":
                        return Said("moved", rule["id"], room_at)
                    if at_limit(rule) == "digest":
                        return Said("folded", rule["id"])
                    if channel is not None:
                        left.remove(channel)
                    if channel is None or not left:
                        return Said("suppressed", rule["id"])
                if left[0] != first:
                    return Said("again")
        return Said("send")

    def _room_at(self, rule: RuleTable, event: Event, to: Recipient, channel: str | None, send: int) -> int | None:
        """None when there is room at ``send``, otherwise when there will be."""
        at = sorted(one.said.send_ms for one in self._counted(rule, event, to, channel))
        if rule["effect"] == "min_gap":
            near = [one for one in at if abs(send - one) < length(rule)]
            return near[-1] + length(rule) if near else None
        if "window" in rule:
            counted = list(self._counted(rule, event, to, channel))
            window = window_of(rule, to.timezone, send)
            full = sum(window_of(rule, one.to.timezone, one.said.send_ms) == window for one in counted) >= rule["limit"]
            return next_window(rule, to.timezone, send) if full else None
        span = (rule.get("rolling_hours", 0) * 60 + rule.get("rolling_minutes", 0)) * 60_000
        full = sum(abs(send - one) < span for one in at) >= rule["limit"]
        return at[-rule["limit"]] + span if full else None

    def _counted(self, rule: RuleTable, event: Event, to: Recipient, channel: str | None) -> Iterator[Past]:
        """The alerts that count for the rule together with this one: those it spoke of when they were decided."""
        for one in self.past:
            then = one.rules.get(rule["id"])
            if then is None or one.said.state not in ("send", "held") or one.said.rule in one.at_storms:
                continue
            if matches(then, one.event, one.to):
                for channel_then in counted_on(then, one.said.route):
                    if scope(rule, one.event, one.to, channel_then) == scope(rule, event, to, channel):
                        yield one

    def _route(self, mine: Sequence[RuleTable], event: Event, to: Recipient) -> tuple[tuple[str, ...], str]:
        orders = [rule["channels"] for rule in mine if rule["effect"] == "route"]
        order = [one for one in orders[0] if one in to.channels] if orders else to.channels
        known = [one for one in dict.fromkeys(order) if one in self.channels]
        there = [one for one in known if getattr(to, ADDRESS[one])]
        closed = {}
        for channel in there:
            for rule in mine:
                about = rule["effect"] == "consent" and rule.get("channel") == channel
                if about and template_of(event) == rule.get("template", template_of(event)) and not consented(rule, to):
                    closed.setdefault(channel, rule["id"])
        floors = {}
        for channel in [one for one in there if one not in closed]:
            own = to.min_amount.get(channel, {}).get(event.currency, 0)
            asked = [
                (-rule["amounts"].get(event.currency, 0), place, rule["id"])
                for place, rule in enumerate(mine)
                if rule["effect"] == "min_amount" and rule["channel"] == channel
            ]
            negative, _, name = min(asked, default=(0, 0, ""))
            floors[channel] = (own, "recipient-min-amount") if own > -negative else (-negative, name)
        route = tuple(one for one in floors if abs(event.amount) >= floors[one][0])
        if route or not there:
            return route, "no-address" if known else "no-channel"
        # That of the channel which came closest to being allowed.
        return (), min(floors.values())[1] if floors else next(iter(closed.values()))

    def _storms(self, rules: Sequence[RuleTable], event: Event, told: Sequence[Recipient], now: int) -> dict[str, bool]:
        """Whether the event is held, by each storm rule that looks at it; none looks after the first that holds."""
        held: dict[str, bool] = {}
        for rule in rules:
            if rule["effect"] != "storm" or True in held.values():
                continue
            if "fingerprint" in rule and moves_money(event) and self._day_so_far(event, told) < rule["limit"] // 2:
                continue  # the first of a day are no storm yet
            if any(matches(rule, event, to) for to in told):
                over, sample = self._burst(rule, event, now), rule.get("sample", 0)
                held[rule["id"]] = over >= 0 and not (sample and (over + 1) % sample == 0)
        return held

    def _burst(self, rule: RuleTable, event: Event, now: int) -> int:
        """By how many events those before this one are over the rule's limit; negative while there is room."""
        span = rule.get("minutes", 60) * 60_000
        counted = [one for one in self.past if rule["id"] in one.at_storms]
        if "fingerprint" in rule:
            like = [one for one in counted if fingerprint(rule, one.event) == fingerprint(rule, event)]
            return len({one.event.id for one in like if one.at // span == now // span}) - rule["limit"]
        came = len({one.event.id for one in counted if one.at // span == now // span})
        passed = [one for one in counted if True not in one.at_storms.values()]
        hours = [
            len({one.event.id for one in passed if one.at // span == now // span - 24 * day}) for day in range(1, 8)
        ]
        usual = [count for count in hours if count]
        if not usual:
            return -1
        return came - max(rule["at_least"], ceil(Fraction(str(rule["volume_times"])) * sum(usual) / len(usual)))

    def _day_so_far(self, event: Event, told: Sequence[Recipient]) -> int:
        """How many events have moved the account's money in this currency on its day."""
        days = {local(to.timezone, ms_of(event.time)).date() for to in told[:1]}
        return len(
            {
                one.event.id
                for one in self.past
                if abs(one.event.time - event.time) < 2 * DAY
                and (one.event.account, one.event.currency) == (event.account, event.currency)
                and moves_money(one.event)
                and local(told[0].timezone, ms_of(one.event.time)).date() in days
            }
        )
