"""What the SMS channels of all vendors have in common."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from dispatcher.channels.base import CannotPrepare, classify_failure, classify_status
from dispatcher.channels.table import AnswerTable
from dispatcher.config_sms import SmsConfig, SmsVendor
from dispatcher.delivery import Answer, AnswerClass, ChannelPolicy
from dispatcher.model.alert import Alert
from dispatcher.network.api import Response
from ratelimit.retry import RetryPolicy

CHANNEL = "sms"
SECOND = "sms.second"
"""The account (and pool of connections) of the second vendor."""

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,79}")
MAX_CODE_DIGITS = 4
"""In a code that may be stored and shown: whatever has more could be a phone number."""


class Terms(msgspec.Struct, frozen=True):
    """How the channel goes on after an answer: the same whichever vendor had the alert."""

    retry: RetryPolicy
    receipt_ms: int | None
    on_unknown: dict[str, str]

    @classmethod
    def of(cls, section: SmsConfig, retry: RetryPolicy, receipt_ms: int | None) -> Terms:
        """The terms of a section."""
        return cls(retry, receipt_ms, dict(section.on_unknown))

    def policies(self, key_prefix: str) -> dict[bool, ChannelPolicy]:
        """By whether an unknown outcome is sent again. The vendors' reports bring our key back, behind ``key_prefix``
        (see `VendorChannel`)."""
        return {
            resend: ChannelPolicy(self.retry, resend, self.receipt_ms, receipts_by_key=True, key_prefix=key_prefix)
            for resend in (True, False)
        }


class VendorChannel:
    """An SMS channel at one vendor that signs its requests and answers with codes of text.

    Such a vendor has no key by which it would know a resend: each alert is fenced before it leaves, each request has a
    connection of its own, and what follows an unknown outcome is configured per category. It does bring a word of ours
    back in its status reports, which is the alert's key: so a report is recognised whose send was never answered. In
    the ledger the key stands behind the vendor's name, so that a late report of one vendor cannot end an alert that
    has meanwhile gone to the other.
    """

    name = CHANNEL
    fenced = True
    vendor: str
    table: AnswerTable

    def __init__(self, section: SmsVendor, terms: Terms, account: str) -> None:
        self.account = account
        self.connections = section.connections
        self._timeout_ms = int(section.timeout_seconds * 1000)
        self.key_prefix = f"{self.vendor}:"
        self._resend_in = {category for category, policy in terms.on_unknown.items() if policy == "resend"}
        self._policies = terms.policies(self.key_prefix)

    def policy(self, alert: Alert) -> ChannelPolicy:
        """See `Channel.policy`."""
        return self._policies[alert.event.category in self._resend_in]

    async def ready(self) -> None:
        """See `Channel.ready`: every request carries its own signature."""

    def knows(self, code: str) -> bool:
        """See `Channel.knows`."""
        return is_ours(code) or self.table.knows(code)

    def msgid(self, alert: Alert) -> str:
        """By what the vendor's status report will be recognised."""
        return self.key_prefix + alert.key

    def without_code(self, alert: Alert, response: Response, code: str) -> Answer:
        """The answer when the body says nothing that we know: of unknown outcome, or what the status says."""
        answer = classify_failure(response) if response.failure is not None else classify_status(response)
        if answer is None:
            took_ms = round(response.seconds * 1000)
            answer = Answer(AnswerClass.UNKNOWN, code, scope="channel", took_ms=took_ms, resends=response.resends)
        if answer.kind is AnswerClass.UNKNOWN:
            answer = msgspec.structs.replace(answer, msgid=self.msgid(alert))  # its report may still come
        return answer

    def from_table(
        self, alert: Alert, response: Response, code: str, *, pause_ms: Callable[[int], int] | None = None
    ) -> Answer:
        """The answer for a code of the vendor's; ``pause_ms`` may lengthen the pause that the table has."""
        row = self.table.row(code)
        pause = row.pause_ms if pause_ms is None else pause_ms(row.pause_ms)
        known = row.kind in (AnswerClass.ACCEPTED, AnswerClass.UNKNOWN)
        msgid = self.msgid(alert) if known else None
        return Answer(row.kind, code, msgid, pause, row.scope, round(response.seconds * 1000), response.resends)


def is_ours(code: str) -> bool:
    """Whether a code was given by us and not by a vendor: no answer, an HTTP status, a body without sense."""
    return code.startswith(("network-", "http-")) or code in ("unreadable", "no-id")


def shown_code(code: str) -> str:
    """A vendor's code as it may be stored and shown; ``other`` (in no table) for what could be anything."""
    plain = _CODE.fullmatch(code) and sum(map(str.isdigit, code)) <= MAX_CODE_DIGITS
    return code if plain else "other"


def phone_of(alert: Alert) -> str:
    """The number in E.164. Raises `CannotPrepare` for one that was taken out since the alert was admitted."""
    if alert.recipient.phone is None:
        raise CannotPrepare("no-phone")
    return alert.recipient.phone
