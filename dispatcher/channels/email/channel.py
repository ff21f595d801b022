"""E-mail over SMTP: one message an alert, text and HTML, to the recipient's address.

What the server says while the message is handed over is the outcome. A bounce that comes later, as a mail of its own
to the sender's address, is not read (docs/email.md).
"""

from __future__ import annotations

from dispatcher.channels.base import CannotPrepare
from dispatcher.channels.email.answers import classify, knows
from dispatcher.channels.email.message import BadAddress, Sender, build, checked_address
from dispatcher.config_channels import EmailConfig
from dispatcher.delivery import Answer, ChannelPolicy
from dispatcher.model.alert import Alert
from dispatcher.network.api import Request, Response
from ratelimit.retry import RetryPolicy
from templates.errors import RenderError, UnknownTemplate, reason_of
from templates.facts import SwipeFacts
from templates.library import Library

NO_HEADERS: tuple[str, ...] = ()


class EmailChannel:
    """Sends e-mail.

    Every attempt carries the same Message-ID, so an attempt of unknown outcome is made again by default: many mailboxes
    show the second copy of a message once, and those that do not show a mail twice, which harms less than none.
    ``on_unknown`` says otherwise by category. Nothing obliges a server to look at the Message-ID, though, and "leave"
    must mean that what had never left is still sent; so alerts are fenced before they leave, which costs a commit a
    batch and is nothing at the rate of a mail server.
    """

    name = "email"
    fenced = True

    def __init__(self, config: EmailConfig, library: Library, retry: RetryPolicy) -> None:
        self.connections = config.connections
        self._library = library
        self._sender = Sender(config.sender, config.sender_name)
        self._timeout_ms = int(config.timeout_seconds * 1000)
        self._leave_in = {category for category, policy in config.on_unknown.items() if policy == "leave"}
        # No receipts: the server's acceptance is the last word that is read.
        self._policies = {resend: ChannelPolicy(retry, resend, None) for resend in (True, False)}

    def policy(self, alert: Alert) -> ChannelPolicy:
        """See `Channel.policy`."""
        return self._policies[alert.event.category not in self._leave_in]

    async def ready(self) -> None:
        """See `Channel.ready`: each connection logs in by itself."""

    def prepare(self, alert: Alert) -> Request:
        """See `Channel.prepare`. The same alert gives the same bytes, whichever attempt it is, but
        for how late it is."""
        recipient, event = alert.recipient, alert.event
        if recipient.email is None:  # taken out since the alert was admitted
            raise CannotPrepare("no-email")
        try:
            address = checked_address(recipient.email)
        except BadAddress:
            raise CannotPrepare("bad-address") from None
        facts = SwipeFacts(
            event=event,
            timezone=recipient.timezone,
            day_total_minor=alert.day_total,
            late_seconds=alert.late_seconds,
        )
        try:
            words = self._library.template(alert.template).render_email(facts, recipient.locale)
        except (RenderError, UnknownTemplate) as error:
            raise CannotPrepare(reason_of(error)) from None
        try:
            body = build(self._sender, address, words, alert.key, event.time, recipient.locale)
        except ValueError:
            raise CannotPrepare("no-header") from None
        return Request(
            pool=self.name,
            url=f"mailto:{address}",
            headers=NO_HEADERS,
            body=body,
            tag=alert,
            timeout_ms=self._timeout_ms,
        )

    def classify(self, alert: Alert, response: Response) -> Answer:
        """See `Channel.classify`."""
        return classify(response)

    def knows(self, code: str) -> bool:
        """See `Channel.knows`."""
        return knows(code)
