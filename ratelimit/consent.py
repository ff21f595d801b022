"""Which word of a recipient counts for an alert. Pure.

A consent is about a category, a channel of it, or a template on that channel; `consent_key` writes which.
"""

from __future__ import annotations

from collections.abc import Mapping

from dispatcher.model.recipient import Consent


def consent_key(category: str, channel: str | None = None, template: str | None = None) -> str:
    """``promotion``, ``promotion/sms`` or ``promotion/sms/sale``; a template without a channel is left out."""
    if channel is None:
        return category
    return f"{category}/{channel}" if template is None else f"{category}/{channel}/{template}"


def consent_of(
    consents: Mapping[str, Consent], category: str, channel: str | None = None, template: str | None = None
) -> Consent | None:
    """The word that counts for this template on this channel; None when the recipient never said any.

    The narrowest word about it, unless a wider one was taken back after that: who says "no more promotions" also ends
    the promotions by SMS that they had once asked for by name. The other way round a narrow no stays: a later yes to
    promotions does not open a channel that was closed by name.

    Without a ``channel`` only what was said of the whole category counts, without a ``template`` nothing of templates.
    WeChat's customer-service messages go by the name ``wechat``.
    """
    if not consents or "/" in category:  # a category with a slash must not read another one's channel
        return None
    found = consents.get(category)
    if channel is not None:
        found = _narrower(consents.get(f"{category}/{channel}"), found)
        if template is not None:
            found = _narrower(consents.get(f"{category}/{channel}/{template}"), found)
    return found


def _narrower(narrow: Consent | None, wide: Consent | None) -> Consent | None:
    if narrow is None:
        return wide
    taken_back = wide is not None and not wide.given and wide.outweighs(narrow)
    return wide if taken_back else narrow
