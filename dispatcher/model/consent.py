"""Words of recipients on their way into the ledger, and as its log keeps them."""

from __future__ import annotations

import msgspec

from dispatcher.model.recipient import Consent


class ConsentChange(msgspec.Struct, frozen=True, kw_only=True):
    """One word to be kept: of the recipient with this account and role, about ``key`` (see `Recipient.consents`).

    ``by`` is who entered it.
    """

    account: str
    key: str
    consent: Consent
    role: str = "primary"
    by: str = ""

    def __repr__(self) -> str:  # the account is the cardholder's
        return f"<ConsentChange {self.key}>"


class ConsentEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log: ``at`` when it was said, ``written_at`` when it was written down, both epoch ms.

    ``key`` begins with ``*/`` when a provider told it: that holds for every category, and the recipient's refusals
    have the word about it.
    """

    account: str
    role: str
    key: str
    given: bool
    at: int
    source: str
    written_at: int
    by: str

    def __repr__(self) -> str:
        return f"<ConsentEntry {self.key}>"


class Consented(msgspec.Struct, frozen=True):
    """What ``Ledger.consent`` did. ``changed`` words hold from now on, ``same`` were known, ``older`` ones have only
    been written into the log because a later word holds. ``unknown`` are positions without a recipient, ``too_many``
    those whose recipient has no room for one more."""

    changed: int
    same: int
    older: int
    unknown: list[int] = []
    too_many: list[int] = []
