"""The access token as it lies in the ledger: enciphered, so that a copy of the file alone sends nothing.

The ledger holds phones and openids and is its owner's alone; a token is worse, because whoever has it speaks as the
bank. The key comes from the app secret, which every process has and the ledger has not.
"""

from __future__ import annotations

import os

from dispatcher.model.private import Secret

_NONCE_BYTES = 12


class Seal:
    """Seals and opens texts of one account with a key made from its secret."""

    def __init__(self, account: str, secret: Secret) -> None:
        # Loaded here, because a process without WeChat needs none of it.
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        self._bound_to = account.encode()
        key = HKDF(SHA256(), 32, salt=None, info=b"swipebell access token at rest").derive(secret.reveal().encode())
        self._cipher = AESGCM(key)
        self._damaged = (InvalidTag, ValueError)  # the latter: too short to be one

    def seal(self, text: str) -> bytes:
        """The text, enciphered; different each time."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text.encode(), self._bound_to)

    def open(self, sealed: bytes) -> str | None:
        """The text; None when it was sealed with another secret or is damaged."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], self._bound_to).decode()
        except self._damaged:
            return None
