"""What a WeChat user did, as the provider tells it, and what follows for whoever is told under that openid. Pure.

Such facts come late, twice and in any order. So their effects are maxima of times: any order and any number of
repetitions lead to the same recipient (`tests/dispatcher/test_heard.py` holds it to that).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from dispatcher.model.private import OpenId
from dispatcher.model.recipient import Recipient, Refusal

Kind = Literal["follow", "scan", "unfollow", "message", "tap"]
"""``scan``: of a code, by somebody who follows the account, maybe for long."""

WINDOW_MS: dict[Kind, int] = {"message": 48 * 3_600_000, "tap": 60_000, "follow": 60_000, "scan": 60_000, "unfollow": 0}
"""For how long customer-service messages may follow (providers.md section 4.2): 48 hours after a message of the user,
a minute after a menu click, a follow or a scan. How many may (5, 3) is left to the provider: it says 45047, and then
the window is closed for us (`sqlite_heard.close_window`)."""

LONGEST_WINDOW_MS = max(WINDOW_MS.values())

SECOND_MS = 999
"""The provider tells times in whole seconds: something of this second may have come after what it says."""


class Heard(msgspec.Struct, frozen=True, gc=False):
    """One fact: whom it is about, what they did, and when by the provider's clock (epoch ms, whole seconds)."""

    openid: str
    kind: Kind
    at_ms: int

    def __repr__(self) -> str:
        return f"<Heard {self.kind} of {OpenId(self.openid)!r}>"


def after_hearing(recipient: Recipient, facts: Iterable[Heard]) -> Recipient:
    """The recipient after these facts, which are all about its openid; the same object when nothing changes.

    The later one of a follow and an unfollow holds; within one second the follow, because believing it wrongly costs
    one refused attempt and the other way round a week of alerts. A follow opens what any answer had closed for
    the whole channel, and leaves what the cardholder refused of one template.
    """
    followed, until, unfollowed = recipient.followed_ms, recipient.service_until_ms, 0
    for fact in facts:
        if fact.kind == "unfollow":
            unfollowed = max(unfollowed, fact.at_ms)
            continue
        until = max(until, fact.at_ms + WINDOW_MS[fact.kind])
        if fact.kind in ("follow", "scan"):
            followed = max(followed, fact.at_ms)
    refused = recipient.refused
    known = refused.get("wechat")
    if unfollowed > followed and (known is None or known.since < unfollowed):
        refused = refused | {"wechat": Refusal("unsubscribe", unfollowed)}
    elif known is not None and unfollowed <= followed and known.since <= followed + SECOND_MS:
        refused = {channel: refusal for channel, refusal in refused.items() if channel != "wechat"}
    if (followed, until) == (recipient.followed_ms, recipient.service_until_ms) and refused is recipient.refused:
        return recipient
    return msgspec.structs.replace(recipient, refused=refused, service_until_ms=until, followed_ms=followed)
