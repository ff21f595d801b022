"""What a lane needs of a channel, and the errors with which a channel says that it cannot send now."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from dispatcher.delivery import Answer, AnswerClass, ChannelPolicy
from dispatcher.model.alert import Alert
from dispatcher.network.api import Failure, Request, Response

if TYPE_CHECKING:
    from dispatcher.ledger.api import Ledger
    from dispatcher.metrics import Meter

MAX_PAUSE_MS = 15 * 60_000
"""Longest pause that a Retry-After can cause: a slip in a provider's header must not silence a channel for days."""

CONFIGURATION_PAUSE_MS = 60_000
"""A person has to act, so one try a minute is enough to notice that it was done."""

THROTTLE_PAUSE_MS = 1_000
"""When a provider says "too many" and not for how long: most limits are by the second."""

MAX_MSGID_CHARS = 64
"""Of a provider's id for a message: receipts are matched by it, and a longer one has none."""

_WRONG_URL = frozenset({401, 403, 404, 405, 407})
"""Statuses that speak of our credentials or URL and not of the message: every other one would be refused, too."""


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


class Fleet(msgspec.Struct, frozen=True):
    """What a channel shares with the same channel in other processes: the ``ledger``, its clock (epoch ms), and who
    counts what it does."""

    ledger: Ledger
    now_ms: Callable[[], int]
    watch: Meter


class Channel(Protocol):
    """One way to reach a cardholder, at one provider. Stateless but for its credentials."""

    name: str
    connections: int
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

    5xx, 408 and anything else that no provider documents is of unknown outcome: a proxy may have failed after the
    provider had accepted. 429 was refused before any work.
    """
    if response.status == 200:
        return None
    kind = AnswerClass.UNKNOWN
    pause_ms = 0
    if response.status == 429:
        kind, pause_ms = AnswerClass.THROTTLE, THROTTLE_PAUSE_MS
    elif response.status in _WRONG_URL:
        kind, pause_ms = AnswerClass.CONFIGURATION, CONFIGURATION_PAUSE_MS
    elif 400 <= response.status < 500 and response.status != 408:
        kind = AnswerClass.PERMANENT
    return Answer(
        kind,
        f"http-{response.status}",
        pause_ms=max(pause_ms, min(response.retry_after_s * 1000, MAX_PAUSE_MS)),
        scope="channel",
        took_ms=round(response.seconds * 1000),
        resends=response.resends,
    )
