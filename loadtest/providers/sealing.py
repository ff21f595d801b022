"""The three modes of WeChat's callbacks: plain, compat (both, side by side) and safe (encrypted only).

Shapes are from providers.md section 5.2. The cipher itself is the product's own (`dispatcher.channels.wechat.crypto`),
whose tests hold it against vectors made elsewhere.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final, Literal

from dispatcher.channels.wechat.crypto import CallbackKeys
from dispatcher.model.private import Secret
from loadtest.providers.errors import SettingsTextError

Mode = Literal["plain", "compat", "safe"]
Seal = Callable[[bytes], str]
"""Encrypts a callback into the text of its ``Encrypt`` element."""

RANDOM_BYTES: Final = 16


def make_seal(aes_key: Secret | None, appid: str) -> Seal:
    """The cipher of an account. Raises ``SettingsTextError`` when the key is none."""
    if aes_key is None:
        raise SettingsTextError("the modes compat and safe need the EncodingAESKey, 43 letters and digits")
    try:
        keys = CallbackKeys([aes_key.reveal()], appid)
    except ValueError as error:
        raise SettingsTextError(str(error)) from None

    def seal(message: bytes) -> str:
        return keys.seal(message, secrets.token_bytes(RANDOM_BYTES))

    return seal


def enclosed(mode: Mode, account: str, event: bytes, encrypted: str) -> bytes:
    """The body of a callback in a mode other than plain."""
    element = f"<Encrypt><![CDATA[{encrypted}]]></Encrypt>"
    if mode == "compat":
        return event.removesuffix(b"</xml>") + f"{element}</xml>".encode()
    return f"<xml><ToUserName><![CDATA[{account}]]></ToUserName>{element}</xml>".encode()
