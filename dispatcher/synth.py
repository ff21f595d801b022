"""Invented recipients for tests and demonstrations. Deterministic, and nobody's: the numbers come from a hash."""

from __future__ import annotations

import base64
import hashlib

from dispatcher.model.recipient import RecipientLine

OPENID_CHARS = 28
ENGLISH_SHARE = 10
"""One in so many reads English."""


def synthesize(account: str, seed: int = 0) -> RecipientLine:
    """The recipient of an account: reachable on WeChat first and by SMS, in China, mostly reading Chinese."""
    digest = hashlib.blake2b(f"{seed}\0{account}".encode(), digest_size=32).digest()
    openid = "o" + base64.urlsafe_b64encode(digest[:21]).decode()[: OPENID_CHARS - 1]
    # 199 0000 0000 and up: the shape of a mobile number.
    phone = f"+86199{int.from_bytes(digest[21:25], 'big') % 100_000_000:08}"
    english = digest[25] % ENGLISH_SHARE == 0
    return RecipientLine(account=account, openid=openid, phone=phone, locale="en" if english else "zh-CN")
