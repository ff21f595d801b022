"""The vendors' signatures against a second computation, written out by hand from the canonical strings."""

from __future__ import annotations

import hashlib
import hmac

from dispatcher.channels.sms.aliyun.signature import canonical_query, signed_headers
from dispatcher.channels.sms.tencent.signature import authorization
from dispatcher.model.private import Secret

SECRET = Secret("0123456789abcdef0123456789abcdef")
AT = 1_704_103_200  # 2024-01-01T10:00:00Z


def sha256(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def test_aliyuns_query_is_sorted_and_percent_encoded_as_rfc_3986_says() -> None:
    query = canonical_query({"b": "a b*~/+&=", "SignName": "银行", "A": '{"x":"1"}'})
    assert query == "A=%7B%22x%22%3A%221%22%7D&SignName=%E9%93%B6%E8%A1%8C&b=a%20b%2A~%2F%2B%26%3D"


def test_aliyuns_signature_is_that_of_the_canonical_request() -> None:
    headers = signed_headers(
        key_id="LTAI5tEXAMPLE",
        secret=SECRET,
        host="dysmsapi.aliyuncs.com",
        path="/",
        query="PhoneNumbers=13800138000&SignName=%E9%93%B6%E8%A1%8C",
        action="SendSms",
        version="2017-05-25",
        nonce="n0nce",
        at=AT + 0.9,
    )
    canonical = (
        "POST\n"
        "/\n"
        "PhoneNumbers=13800138000&SignName=%E9%93%B6%E8%A1%8C\n"
        "host:dysmsapi.aliyuncs.com\n"
        "x-acs-action:SendSms\n"
        "x-acs-content-sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n"
        "x-acs-date:2024-01-01T10:00:00Z\n"
        "x-acs-signature-nonce:n0nce\n"
        "x-acs-version:2017-05-25\n"
        "\n"
        "host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version\n"
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
    wanted = mac(SECRET.reveal().encode(), "ACS3-HMAC-SHA256\n" + sha256(canonical.encode())).hex()
    assert headers.pop("Authorization") == (
        "ACS3-HMAC-SHA256 Credential=LTAI5tEXAMPLE,SignedHeaders="
        "host;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-signature-nonce;x-acs-version"
        f",Signature={wanted}"
    )
    assert headers["x-acs-date"] == "2024-01-01T10:00:00Z"


def test_every_part_of_the_request_changes_aliyuns_signature() -> None:
    given = {"host": "h", "path": "/", "query": "a=1", "action": "SendSms", "version": "v", "nonce": "n"}

    def proof(at: float = AT, body: bytes = b"", secret: Secret = SECRET, **changes: str) -> str:
        return signed_headers(key_id="k", secret=secret, at=at, body=body, **(given | changes))["Authorization"]

    proofs = [proof(**{name: "other"}) for name in given]
    proofs += [proof(), proof(at=AT + 1), proof(body=b"x"), proof(secret=Secret("y"))]
    assert len(set(proofs)) == len(proofs)


def test_tencents_signature_is_that_of_the_canonical_request() -> None:
    body = '{"PhoneNumberSet":["+8613800138000"],"SignName":"银行"}'.encode()
    canonical = (
        "POST\n/\n\ncontent-type:application/json\nhost:sms.tencentcloudapi.com\n\ncontent-type;host\n" + sha256(body)
    )
    to_sign = f"TC3-HMAC-SHA256\n1704103200\n2024-01-01/sms/tc3_request\n{sha256(canonical.encode())}"
    key = mac(mac(mac(b"TC3" + SECRET.reveal().encode(), "2024-01-01"), "sms"), "tc3_request")
    proof = authorization(key_id="AKIDEXAMPLE", secret=SECRET, host="sms.tencentcloudapi.com", body=body, at=AT)
    assert proof == (
        "TC3-HMAC-SHA256 Credential=AKIDEXAMPLE/2024-01-01/sms/tc3_request, SignedHeaders=content-type;host, "
        f"Signature={mac(key, to_sign).hex()}"
    )


def test_tencents_day_is_that_of_utc() -> None:
    before, after = (
        authorization(key_id="k", secret=SECRET, host="h", body=b"", at=at) for at in (1_704_067_199, 1_704_067_200)
    )
    assert "k/2023-12-31/sms" in before
    assert "k/2024-01-01/sms" in after
