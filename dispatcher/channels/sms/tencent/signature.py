"""Tencent Cloud's signature V3, TC3-HMAC-SHA256 (providers.md section 6.2, as the vendor's SDK makes it). Pure."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime

from dispatcher.model.private import Secret

ALGORITHM = "TC3-HMAC-SHA256"
CONTENT_TYPE = "application/json"
SIGNED = "content-type;host"


def authorization(*, key_id: str, secret: Secret, host: str, body: bytes, at: int, path: str = "/") -> str:
    """The ``Authorization`` header of a POST with ``Content-Type: application/json``; ``at`` is epoch seconds, as in
    the header ``X-TC-Timestamp``."""
    signature = sign(secret, host, body, at, path)
    return f"{ALGORITHM} Credential={key_id}/{_scope(at)}, SignedHeaders={SIGNED}, Signature={signature}"


def sign(secret: Secret, host: str, body: bytes, at: int, path: str = "/") -> str:
    """The signature, hex."""
    hashed = hashlib.sha256(body).hexdigest()
    canonical = f"POST\n{path}\n\ncontent-type:{CONTENT_TYPE}\nhost:{host}\n\n{SIGNED}\n{hashed}"
    to_sign = f"{ALGORITHM}\n{at}\n{_scope(at)}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"TC3{secret.reveal()}".encode()
    for part in _scope(at).split("/"):
        key = _hmac(key, part)
    return _hmac(key, to_sign).hex()


def _scope(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}/sms/tc3_request"


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
