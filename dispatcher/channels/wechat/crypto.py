"""WeChat's safe mode: callbacks that are encrypted and whose body is signed. Pure.

Source: providers.md section 5.2. The cipher is WeChat's choice: AES-256-CBC with the key's first half as IV, and
PKCS#7 padding to blocks of 32. CBC proves nothing by itself, so a body is decrypted only after its ``msg_signature``
was right (`is_msg_signed`), and what is wrong with it afterwards is told to nobody outside.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

KEY_CHARS = 43
"""Of an EncodingAESKey: 32 bytes in base64 without the last sign."""

MAX_KEYS = 2
"""The current key and the one before it: WeChat keeps encrypting with the old one for a while after a change."""

BLOCK = 32
RANDOM_BYTES = 16
_LENGTH_BYTES = 4

_KEY = re.compile(r"[A-Za-z0-9+/]{43}", re.ASCII)


class WrongKey(ValueError):
    """None of the keys opens it. The text says nothing of what came out."""


class WrongAppid(ValueError):
    """It was encrypted with our key for another account."""


class UnreadableKey(ValueError):
    """Not an EncodingAESKey. The text does not repeat it."""


class Opened(msgspec.Struct, frozen=True, gc=False):
    """A decrypted message, and the position of the key that opened it: an answer is encrypted with the same."""

    message: bytes
    key: int

    def __repr__(self) -> str:
        return f"<Opened {len(self.message)} bytes, key {self.key}>"


class CallbackKeys:
    """The EncodingAESKeys of one account, the current one first. Raises `UnreadableKey`."""

    def __init__(self, encoding_keys: Sequence[str], appid: str) -> None:
        if not 0 < len(encoding_keys) <= MAX_KEYS:
            raise UnreadableKey(f"1 to {MAX_KEYS} keys are wanted, the current one first, not {len(encoding_keys)}")
        self._keys = [_key(text) for text in encoding_keys]
        self._appid = appid.encode()

    def __repr__(self) -> str:
        return f"<CallbackKeys {len(self._keys)}>"

    def open(self, encrypted: str) -> Opened:
        """Decrypt the text of an ``Encrypt`` element. Raises `WrongKey` or `WrongAppid`."""
        try:
            data = base64.b64decode(encrypted, validate=True)
        except (binascii.Error, ValueError):
            raise WrongKey("not base64") from None
        if not data or len(data) % (BLOCK // 2):
            raise WrongKey("not whole blocks")
        foreign = False
        for position, key in enumerate(self._keys):
            found = _taken_apart(_decrypted(key, data))
            if found is None:
                continue
            message, appid = found
            if hmac.compare_digest(appid, self._appid):
                return Opened(message, position)
            foreign = True
        if foreign:
            raise WrongAppid("for another account")
        raise WrongKey("no key opens it")

    def seal(self, message: bytes, random: bytes, key: int = 0) -> str:
        """Encrypt; ``random`` are 16 bytes that nobody can guess, ``key`` the position of `Opened.key`."""
        if len(random) != RANDOM_BYTES:
            raise ValueError(f"{RANDOM_BYTES} random bytes are wanted")
        plain = random + len(message).to_bytes(_LENGTH_BYTES, "big") + message + self._appid
        padding = BLOCK - len(plain) % BLOCK
        plain += bytes([padding]) * padding
        secret = self._keys[key]
        encryptor = _cipher(secret).encryptor()
        return base64.b64encode(encryptor.update(plain) + encryptor.finalize()).decode()


def msg_signature(token: str, timestamp: str, nonce: str, encrypted: str) -> str:
    """The signature of an encrypted body: SHA-1 (WeChat's choice) of the four, sorted and joined."""
    return hashlib.sha1("".join(sorted((token, timestamp, nonce, encrypted))).encode()).hexdigest()  # noqa: S324


def is_msg_signed(token: str, fields: Mapping[str, str], encrypted: str) -> bool:
    """Whether the query of a callback carries the right ``msg_signature``; compared in constant time."""
    wanted = msg_signature(token, fields.get("timestamp", ""), fields.get("nonce", ""), encrypted)
    return hmac.compare_digest(fields.get("msg_signature", "").encode(), wanted.encode())


def sealed_xml(token: str, timestamp: str, nonce: str, encrypted: str) -> bytes:
    """An encrypted answer as WeChat wants it. The bare ``success`` stays as it is, without all this."""
    signature = msg_signature(token, timestamp, nonce, encrypted)
    return (
        f"<xml><Encrypt><![CDATA[{encrypted}]]></Encrypt><MsgSignature><![CDATA[{signature}]]></MsgSignature>"
        f"<TimeStamp>{timestamp}</TimeStamp><Nonce><![CDATA[{nonce}]]></Nonce></xml>"
    ).encode()


def _key(text: str) -> bytes:
    if not _KEY.fullmatch(text):
        raise UnreadableKey(f"an EncodingAESKey has {KEY_CHARS} letters and digits")
    return base64.b64decode(text + "=")


def _cipher(key: bytes) -> Any:
    # Loaded here: most processes open no callback.
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    return Cipher(algorithms.AES(key), modes.CBC(key[: BLOCK // 2]))


def _decrypted(key: bytes, data: bytes) -> bytes:
    decryptor = _cipher(key).decryptor()
    plain: bytes = decryptor.update(data) + decryptor.finalize()
    return plain


def _taken_apart(plain: bytes) -> tuple[bytes, bytes] | None:
    """(message, appid); None when this is not what the right key would have given."""
    padding = plain[-1]
    if not 0 < padding <= BLOCK or plain[-padding:] != bytes([padding]) * padding:
        return None
    begin = RANDOM_BYTES + _LENGTH_BYTES
    content = plain[:-padding]
    length = int.from_bytes(content[RANDOM_BYTES:begin], "big")
    if len(content) < begin or length > len(content) - begin:
        return None
    return content[begin : begin + length], content[begin + length :]
