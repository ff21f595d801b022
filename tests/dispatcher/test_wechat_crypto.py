"""WeChat's safe mode: signature and AES, against vectors that others made and against every text."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.channels.wechat.callback import encrypted_text, signature
from dispatcher.channels.wechat.crypto import (
    CallbackKeys,
    Opened,
    UnreadableKey,
    WrongAppid,
    WrongKey,
    is_msg_signed,
    msg_signature,
    sealed_xml,
)

SHARED = Path(os.environ.get("SWIPEBELL_SHARED", Path(__file__).parents[2].parent / "shared"))
VECTORS = SHARED / "data" / "wechat-callback-vectors.json"

KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
OTHER = "0123456789ABCDEFGabcdefghijklmnopqrstuvwxyz"
APPID = "wx0000000000000001"
SEALED = "Q3stYC6hdFzMh9T8HCvyDAuKynFZx72zvSsMzinYKQ/5Nm9RxkIDnEYrkXS+TlzcoGa6aJ7D7O+wmU68ACPQ2w=="
KEYS = CallbackKeys([KEY], APPID)


# ---- vectors ------------------------------------------------------------------------------------------------------


def test_the_documented_signatures() -> None:
    assert signature("AAAAA", "1714037059", "486452656") == "899cf89e464efb63f54ddac96b0a0a235f53aa78"
    assert signature("AAAAA", "1714036504", "1514711492") == "f464b24fc39322e44b38aa78f5edd27bd1441696"


def test_the_vector_of_the_provider_facts_both_ways() -> None:
    assert KEYS.seal(b"<xml><a>1</a></xml>", b"0123456789abcdef") == SEALED
    assert KEYS.open(SEALED) == Opened(b"<xml><a>1</a></xml>", 0)
    assert msg_signature("AAAAA", "1714036504", "1514711492", SEALED) == "77b9f0c4889130c7d04db73cc0bdb024983c0bdf"


def test_the_vectors_of_a_public_sdk_both_ways() -> None:
    if not VECTORS.exists():
        pytest.skip(f"{VECTORS.name} is not in the shared folder")
    vectors: list[dict[str, Any]] = json.loads(VECTORS.read_text("utf-8"))
    assert {one["kind"] for one in vectors} == {"url_verify", "encrypt", "decrypt"}
    for one in vectors:
        keys = CallbackKeys([one["aes_key"]], one["receive_id"])
        # Given what was sent, it opens to what was said
        assert keys.open(one["encrypt"]).message.decode() == one["plain"]
        signed = msg_signature(one["token"], one["timestamp"], one["nonce"], one["encrypt"])
        assert signed == one["signature"]
        query = {"timestamp": one["timestamp"], "nonce": one["nonce"], "msg_signature": one["signature"]}
        assert is_msg_signed(one["token"], query, one["encrypt"])
        # And what was said, with the same random, is sealed to what was sent
        raw = _random_of(one)
        assert keys.seal(one["plain"].encode(), raw) == one["encrypt"]


def _random_of(vector: dict[str, Any]) -> bytes:
    if "random" in vector:
        return str(vector["random"]).encode()
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    key = base64.b64decode(vector["aes_key"] + "=")
    decryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).decryptor()
    return decryptor.update(base64.b64decode(vector["encrypt"]))[:16]


# ---- every text ---------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300), st.binary(min_size=16, max_size=16), st.sampled_from([0, 1]))
def test_whatever_is_sealed_opens_with_the_key_that_sealed_it(message: bytes, random: bytes, key: int) -> None:
    keys = CallbackKeys([KEY, OTHER], APPID)
    sealed = keys.seal(message, random, key)
    assert keys.open(sealed) == Opened(message, key)
    # And a listener that has forgotten that key, or has another account, refuses it
    with pytest.raises(WrongKey):
        CallbackKeys([(OTHER, KEY)[key]], APPID).open(sealed)
    with pytest.raises(WrongAppid):
        CallbackKeys([KEY, OTHER], "wx0000000000000002").open(sealed)


@given(st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda data: base64.b64encode(data).decode())))
def test_whatever_comes_it_is_refused_and_never_raises_anything_else(text: str) -> None:
    with pytest.raises((WrongKey, WrongAppid)) as refused:
        KEYS.open(text)
    assert len(text) < 8 or text not in str(refused.value)


@given(st.integers(0, 63), st.integers(1, 255))
def test_a_changed_byte_is_seen_by_the_signature(position: int, change: int) -> None:
    data = bytearray(base64.b64decode(SEALED))
    data[position] ^= change
    changed = base64.b64encode(data).decode()
    query = {"timestamp": "1", "nonce": "2", "msg_signature": msg_signature("t", "1", "2", SEALED)}
    assert is_msg_signed("t", query, SEALED)
    assert not is_msg_signed("t", query, changed)


def test_an_answer_is_signed_and_opens_with_the_same_key() -> None:
    body = sealed_xml("t", "1", "2", KEYS.seal(b"hello", b"0" * 16))
    encrypted = encrypted_text(body)
    assert KEYS.open(encrypted).message == b"hello"
    assert msg_signature("t", "1", "2", encrypted).encode() in body


@pytest.mark.parametrize("keys", [[], [KEY, OTHER, KEY], [KEY[:-1]], [KEY + "A"], ["!" * 43], [""], ["é" * 43]])
def test_what_is_no_key_is_said_without_repeating_it(keys: list[str]) -> None:
    with pytest.raises(UnreadableKey) as error:
        CallbackKeys(keys, APPID)
    assert not [key for key in keys if key and key in str(error.value)]
    assert KEY not in repr(KEYS)
    assert "secret" not in repr(Opened(b"secret", 0))


@pytest.mark.parametrize("query", [{}, {"msg_signature": ""}, {"msg_signature": "é"}, {"signature": "x"}])
def test_a_query_without_the_right_signature(query: dict[str, str]) -> None:
    assert not is_msg_signed("t", query, SEALED)
