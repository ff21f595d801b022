"""Signatures of Standard Webhooks (https://www.standardwebhooks.com, version 1, symmetric). Pure."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Mapping, Sequence

from dispatcher.model.private import Secret

PREFIX = "whsec_"

MIN_KEY_BYTES, MAX_KEY_BYTES = 24, 64
"""What the specification allows a secret to have."""

TOLERANCE_S = 300
"""How far a timestamp may be from the receiver's clock: the specification's reference libraries allow 5 minutes."""

MAX_SIGNATURES = 8
"""Of one header that `verify` looks at: a change of keys needs two."""


class BadSecret(ValueError):
    """The secret is not one of Standard Webhooks. The text does not repeat it."""

    def __init__(self) -> None:
        allowed = f"{PREFIX} and the base64 of {MIN_KEY_BYTES} to {MAX_KEY_BYTES} random bytes"
        super().__init__(f"is not a webhook secret; allowed is {allowed}")


class BadSignature(Exception):
    """The request is not from who shares the secret, or it is old. ``why`` is for the receiver's log."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class SigningKey:
    """A secret that signs, ``whsec_...``."""

    def __init__(self, secret: Secret) -> None:
        """Raises `BadSecret`."""
        text = secret.reveal()
        try:
            self._key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise BadSecret from None
        if not text.startswith(PREFIX) or not MIN_KEY_BYTES <= len(self._key) <= MAX_KEY_BYTES:
            raise BadSecret

    def sign(self, message_id: str, timestamp_s: int, body: bytes) -> str:
        """``v1,`` and the signature of one request; ``timestamp_s`` is epoch seconds."""
        signed = b"%s.%d.%s" % (message_id.encode(), timestamp_s, body)
        return "v1," + base64.b64encode(hmac.digest(self._key, signed, "sha256")).decode()

    def __repr__(self) -> str:
        return "<SigningKey ****>"


def headers(keys: Sequence[SigningKey], message_id: str, timestamp_s: int, body: bytes) -> tuple[str, ...]:
    """The three headers of a request, as lines. One signature a key, the current key's first."""
    signatures = " ".join([key.sign(message_id, timestamp_s, body) for key in keys])
    return (
        f"webhook-id: {message_id}",
        f"webhook-timestamp: {timestamp_s}",
        f"webhook-signature: {signatures}",
    )


def verify(keys: Iterable[SigningKey], given: Mapping[str, str], body: bytes, now_s: float) -> str:
    """The id of a genuine request, for a receiver; ``given`` are its headers by lower-case name.

    Compares in constant time. Raises `BadSignature`. A receiver keeps the id for a while and answers 200 at once when
    it sees one again.
    """
    try:
        message_id, stamp, signatures = (given[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    except KeyError:
        raise BadSignature("a header is missing") from None
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
        raise BadSignature("the timestamp is not a number")
    if abs(now_s - int(stamp)) > TOLERANCE_S:
        raise BadSignature("the timestamp is too far from our clock")
    expected = [key.sign(message_id, int(stamp), body).encode() for key in keys]
    for signature in signatures.split(" ", MAX_SIGNATURES)[:MAX_SIGNATURES]:
        if any(hmac.compare_digest(signature.encode(), one) for one in expected):
            return message_id
    raise BadSignature("no signature fits")
