"""Aliyun's signature V3, ACS3-HMAC-SHA256 (providers.md section 6.1, as the vendor's SDK makes it). Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import quote

from dispatcher.model.private import Secret

ALGORITHM = "ACS3-HMAC-SHA256"


def canonical_query(parameters: Mapping[str, str]) -> str:
    """The query string as it is signed and sent: sorted, percent-encoded as RFC 3986 says."""
    return "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in sorted(parameters.items()))


def signed_headers(
    *,
    key_id: str,
    secret: Secret,
    host: str,
    path: str,
    query: str,
    action: str,
    version: str,
    nonce: str,
    at: float,
    body: bytes = b"",
) -> dict[str, str]:
    """The headers of a POST, ``host`` among them, with its ``Authorization``. ``at`` is epoch seconds."""
    hashed = hashlib.sha256(body).hexdigest()
    headers = {
        "host": host,
        "x-acs-action": action,
        "x-acs-content-sha256": hashed,
        "x-acs-date": datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-signature-nonce": nonce,
        "x-acs-version": version,
    }
    names = ";".join(sorted(headers))
    signature = sign(secret, "POST", path, query, headers, hashed)
    return headers | {"Authorization": f"{ALGORITHM} Credential={key_id},SignedHeaders={names},Signature={signature}"}


def sign(secret: Secret, method: str, path: str, query: str, headers: Mapping[str, str], hashed_body: str) -> str:
    """The signature, hex, of a request with these lower-case ``headers``; ``query`` is canonical already."""
    lines = "".join(f"{name}:{headers[name].strip()}\n" for name in sorted(headers))
    canonical = f"{method}\n{path}\n{query}\n{lines}\n{';'.join(sorted(headers))}\n{hashed_body}"
    to_sign = f"{ALGORITHM}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    return hmac.new(secret.reveal().encode(), to_sign.encode(), hashlib.sha256).hexdigest()
