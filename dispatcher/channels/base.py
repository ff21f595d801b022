"""What a lane needs of a channel, and the errors with which a channel says that it cannot send now."""

from __future__ import annotations

from typing import Protocol

from dispatcher.delivery import Answer, AnswerClass, ChannelPolicy
from dispatcher.model.alert import Alert
from dispatcher.network.api import Failure, Request, Response


class CannotPrepare(Exception):
    """This alert cannot be put into a request for this channel; ``code`` says why, without personal data.

    Not the provider's refusal (that is an `Answer`) and not a broken channel (`ChannelPaused`).
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class ChannelPaused(Exception):
    """The channel cannot send anything now: no token can be had. ``retry_after_s`` is when to try again.

    ``misconfigured`` is True when waiting will not help and a person has to change something.
    """

    def __init__(self, reason: str, *, retry_after_s: float, misconfigured: bool = False) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
        self.misconfigured = misconfigured


class Channel(Protocol):
    """One way to reach a cardholder, at one provider. Stateless but for its credentials."""

    name: str
    fenced: bool
    """True when the provider does not recognise a resend: the intent to send is then committed before it leaves."""

    def policy(self, alert: Alert) -> ChannelPolicy:
        """How deliveries of this alert's category go on after an answer."""

    async def ready(self) -> None:
        """Make sure that credentials are there; raises `ChannelPaused`. Cheap when they are."""

    def prepare(self, alert: Alert) -> Request:
        """Render the alert into a request whose tag is the alert; raises `CannotPrepare`."""

    def classify(self, alert: Alert, response: Response) -> Answer:
        """What the provider's answer (or its absence) means. Never raises, whatever came back."""

    def knows(self, code: str) -> bool:
        """Whether an answer's code stands in this channel's table; one that does not raises an alarm."""


def classify_failure(response: Response) -> Answer:
    """The answer when none came: safe to try again when nothing had left, of unknown outcome otherwise."""
    kind = AnswerClass.RETRY if response.failure is Failure.NOT_SENT else AnswerClass.UNKNOWN
    return Answer(
        kind,
        f"network-{response.code}",
        scope="channel",
        took_ms=round(response.seconds * 1000),
        resends=response.resends,
    )


def classify_status(response: Response) -> Answer | None:
    """The answer when the HTTP status says all there is to know; None for 200, where the body decides.

    5xx and anything else that no provider documents is of unknown outcome: a proxy may have failed after the
    provider had accepted. 429 was refused before any work.
    """
    if response.status == 200:
        return None
    kind = AnswerClass.UNKNOWN
    if response.status == 429:
        kind = AnswerClass.THROTTLE
    elif response.status in (401, 403):
        kind = AnswerClass.CONFIGURATION
    elif 400 <= response.status < 500:
        kind = AnswerClass.PERMANENT
    return Answer(
        kind,
        f"http-{response.status}",
        pause_ms=response.retry_after_s * 1000,
        scope="channel",
        took_ms=round(response.seconds * 1000),
        resends=response.resends,
    )
