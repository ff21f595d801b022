"""The channels an alert may take: configured, with an address, not refused, consented to, above the minimum. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dispatcher.model.event import Event
from dispatcher.model.recipient import Consent, Recipient, Refusal
from ratelimit.consent import consent_of
from ratelimit.effects import ConsentRule, MinAmount
from ratelimit.match import Test
from ratelimit.rulefile import NO_ADDRESS, NO_CHANNEL, RECIPIENT_GONE, RECIPIENT_MIN_AMOUNT

REFUSAL_HOLDS_MS = 7 * 24 * 3600 * 1000
"""How long a provider's "gone" is believed: somebody who follows the account again keeps the same openid, and one
refused attempt a week is what it costs to notice."""

ADDRESSES = {"wechat": "openid", "sms": "phone", "email": "email"}
"""Where a recipient keeps its address on a channel; a webhook's address is the channel's own."""

SERVICE = "wechat_service"
"""WeChat's customer-service messages: no recipient lists it. It comes before ``wechat`` for whoever may be sent one now
(``Recipient.service_until_ms``), under the rules of ``wechat``."""

MAX_LADDERS = 4_096
"""Remembered ladders: a few orders of channels, times which addresses are there, times 180 currencies."""

NEVER_GIVEN, WITHDRAWN = 0, -1
"""``saw["consent"]`` of who was not told for want of consent."""

_NO_MINIMUM = (0, "")

_Ladder = tuple[tuple[int, tuple[str, ...]], ...]
_LadderKey = tuple[tuple[str, ...], tuple[bool, bool, bool], str]
Found = tuple[tuple[str, ...], str, dict[str, int] | None]
"""The route, or else the rule or reason and what it saw."""


def missing_consent(
    rule: ConsentRule, consents: Mapping[str, Consent], channel: str | None, template: str | None
) -> dict[str, int] | None:
    """What a consent rule has against telling, as ``saw``; None when it has nothing."""
    word = consent_of(consents, rule.category, channel, template)
    if word is None:
        return {"consent": NEVER_GIVEN} if rule.mode == "opt-in" else None
    return None if word.given else {"consent": WITHDRAWN, "consent_at": word.at}


class ChannelConsent:
    """A consent rule about a channel or a template."""

    __slots__ = ("rest", "rule")

    def __init__(self, rule: ConsentRule, rest: Test | None) -> None:
        self.rule = rule
        self.rest = rest

    def against(self, event: Event, recipient: Recipient, channel: str, template: str) -> dict[str, int] | None:
        """What it has against this channel; None when nothing."""
        rule = self.rule
        if rule.channel not in (None, channel) or rule.template not in (None, template):
            return None
        if self.rest is not None and not self.rest(event, recipient):
            return None
        return missing_consent(rule, recipient.consents, channel, None if rule.template is None else template)


class Minimums:
    """The configured channels with the least amounts that some ``min_amount`` rules ask for. Of several rules for one
    channel and currency the strictest decides, of equal ones the first."""

    def __init__(self, channels: Sequence[str], rules: Sequence[MinAmount]) -> None:
        self._channels: dict[str, tuple[str, dict[str, tuple[int, str]]]] = {
            channel: (ADDRESSES.get(channel, ""), {}) for channel in channels
        }
        for rule in rules:
            if rule.channel in self._channels:
                minimum = self._channels[rule.channel][1]
                for currency, amount in rule.amounts.items():
                    if amount > minimum.get(currency, _NO_MINIMUM)[0]:
                        minimum[currency] = (amount, rule.id)
        self._ladders: dict[_LadderKey, _Ladder] = {}

    def route(
        self,
        event: Event,
        recipient: Recipient,
        channels: tuple[str, ...],
        template: str,
        now_ms: int,
        consents: Sequence[ChannelConsent],
    ) -> Found:
        """The allowed ones of ``channels``, or the reason of the one that came closest to being allowed, with what it
        saw.

        The minimum holds for every type of event, declines and unknown types too: one rule that can be said
        in one sentence.
        """
        amount, currency = abs(event.amount), event.currency
        refused, own_minimum = recipient.refused, recipient.min_amount
        if not (refused or own_minimum or consents):
            # Nearly everybody: the allowed channels then depend on the amount alone.
            for least, allowed in self._ladder(recipient, channels, currency):
                if amount >= least:
                    return allowed, "", None
        route: list[str] = []
        below: list[tuple[int, str, str]] = []
        unwanted: tuple[str, dict[str, int]] | None = None
        reason = NO_CHANNEL
        for channel in channels:
            terms = self._channels.get(channel)
            if terms is None or channel in route:
                continue
            address, minimum = terms
            if address and not getattr(recipient, address):
                if reason is NO_CHANNEL:
                    reason = NO_ADDRESS
                continue
            if refused and _still_refused(refused, channel, template, now_ms):
                reason = RECIPIENT_GONE
                continue
            against = _against(consents, event, recipient, channel, template) if consents else None
            if against is not None:
                unwanted = unwanted or against
                continue
            threshold, rule = minimum.get(currency, _NO_MINIMUM)
            if own_minimum:
                own = own_minimum.get(channel, {}).get(currency, 0)
                if own > threshold:
                    threshold, rule = own, RECIPIENT_MIN_AMOUNT
            if amount >= threshold:
                route.append(channel)
            else:
                below.append((threshold, rule, channel))
        if route:
            return tuple(route), "", None
        if below:
            saw = {"amount": amount}
            saw.update((f"threshold/{channel}", threshold) for threshold, _, channel in below)
            return (), min(below)[1], saw
        if unwanted is not None:
            return (), *unwanted
        return (), reason, None

    def _ladder(self, recipient: Recipient, channels: tuple[str, ...], currency: str) -> _Ladder:
        """From which amount on which channels are allowed, the highest first, for a recipient without wishes of its
        own; below the last rung none is."""
        has = (bool(recipient.openid), bool(recipient.phone), bool(recipient.email))
        key = (channels, has, currency)
        ladder = self._ladders.get(key)
        if ladder is not None:
            return ladder
        allowed: dict[str, int] = {}
        for channel in channels:
            terms = self._channels.get(channel)
            if terms is not None and (not terms[0] or getattr(recipient, terms[0])):
                allowed[channel] = terms[1].get(currency, _NO_MINIMUM)[0]
        ladder = tuple(
            (least, tuple(channel for channel, threshold in allowed.items() if threshold <= least))
            for least in sorted(set(allowed.values()), reverse=True)
        )
        if len(self._ladders) >= MAX_LADDERS:
            self._ladders.clear()
        self._ladders[key] = ladder
        return ladder


def _against(
    consents: Sequence[ChannelConsent], event: Event, recipient: Recipient, channel: str, template: str
) -> tuple[str, dict[str, int]] | None:
    for consent in consents:
        saw = consent.against(event, recipient, channel, template)
        if saw is not None:
            return consent.rule.id, saw
    return None


def _still_refused(refused: Mapping[str, Refusal], channel: str, template: str, now_ms: int) -> bool:
    found = (refused.get(channel), refused.get(f"{channel}/{template}"))
    return any(refusal is not None and now_ms - refusal.since < REFUSAL_HOLDS_MS for refusal in found)
