"""Aliyun and Tencent: what is sent, what is configured, and what is not taken for an acceptance."""

from __future__ import annotations

import json
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.channels.base import CannotPrepare
from dispatcher.channels.sms.aliyun.channel import AliyunChannel
from dispatcher.channels.sms.build import make_sms
from dispatcher.channels.sms.generic import GenericSmsChannel
from dispatcher.channels.sms.segments import fits, with_sign
from dispatcher.channels.sms.tencent.channel import TencentChannel
from dispatcher.channels.sms.vendor import VendorChannel
from dispatcher.config_sms import SmsConfig
from dispatcher.delivery import AnswerClass
from dispatcher.errors import ConfigurationError
from dispatcher.model.private import Secret
from dispatcher.network.api import Failure
from ratelimit.retry import RetryPolicy
from templates.library import Library
from templates.limits import MAX_SMS_TEXT_UNITS, segments
from tests.dispatcher.channel_kit import (
    PHONE,
    SECRET,
    an_alert,
    no_response_to,
    response_to,
    shows_nothing_private,
)

A = AnswerClass
LIBRARY = Library.load()
ALERT = an_alert(position=1)
KEYS: dict[str, Any] = {
    "secret_env": "SECRET",
    "access_key_id": "AKIDEXAMPLE",
    "sign": "银行",
    "template_codes": {"swipe": "SMS_1", "swipe/en": "SMS_2"},
    "template_params": {"swipe": ("card=tail", "amount", "merchant")},
}


def aliyun(**settings: Any) -> AliyunChannel:
    made = a_channel(vendor="aliyun", **settings)
    assert isinstance(made, AliyunChannel)
    return made


def tencent(**settings: Any) -> TencentChannel:
    made = a_channel(vendor="tencent", sdk_app_id="1400000000", **settings)
    assert isinstance(made, TencentChannel)
    return made


def a_channel(**settings: Any) -> Any:
    section = SmsConfig(**(KEYS | settings))
    return make_sms(section, LIBRARY, RetryPolicy(), 5_000, {"sms": Secret(SECRET)})


# ---- what is sent -------------------------------------------------------------------------------------------------


def test_an_account_needs_a_template_for_swipes_and_no_other() -> None:
    # Given an account that has templates for swipes only, then a digest and a statement go on to their next channel
    for template in ("digest", "statement"):
        with pytest.raises(CannotPrepare, match="template:no-sms-part"):
            aliyun().prepare(an_alert(position=1, template=template))
    # And what tells a movement of a card is told by that of swipes
    for template in ("swipe", "refund", "fraud"):
        asked = parse_qs(urlsplit(aliyun().prepare(an_alert(position=1, template=template)).url).query)
        assert asked["TemplateCode"] == ["SMS_1"]
    # But whoever begins with one has to say all of it
    with pytest.raises(ConfigurationError, match='template_params: says nothing of template "digest"'):
        aliyun(template_codes={"swipe": "SMS_1", "digest": "SMS_3"})
    with pytest.raises(ConfigurationError, match='template_codes: has no code for template "refund"'):
        aliyun(template_params={"swipe": ("tail",), "refund": ("tail",)})


def test_aliyun_gets_the_template_and_its_parameters_in_the_query() -> None:
    request = aliyun().prepare(ALERT)
    parts = urlsplit(request.url)
    assert (parts.scheme, parts.netloc, parts.path) == ("https", "dysmsapi.aliyuncs.com", "/")
    asked = {name: value[0] for name, value in parse_qs(parts.query).items()}
    values = json.loads(asked.pop("TemplateParam"))
    assert list(values) == ["card", "amount", "merchant"]
    assert (values["card"], values["merchant"]) == ("5770", "shell kings 587")
    assert values["amount"].endswith("72.61")
    assert asked == {
        "PhoneNumbers": PHONE.removeprefix("+86"),
        "SignName": "银行",
        "TemplateCode": "SMS_1",
        "OutId": ALERT.key,
    }
    assert (request.fresh, request.body, request.pool) == (True, None, "sms")
    assert [line.partition(":")[0] for line in request.headers] == [
        "x-acs-action",
        "x-acs-content-sha256",
        "x-acs-date",
        "x-acs-signature-nonce",
        "x-acs-version",
        "Authorization",
    ]
    shows_nothing_private(request)


def test_each_request_to_aliyun_has_a_nonce_of_its_own() -> None:
    channel = aliyun()
    assert len({channel.prepare(ALERT).headers for _ in range(50)}) == 50


def test_tencent_gets_the_parameters_in_their_order() -> None:
    request = tencent().prepare(ALERT)
    assert request.url == "https://sms.tencentcloudapi.com/"
    assert request.body is not None
    body = json.loads(request.body)
    tail, amount, merchant = body.pop("TemplateParamSet")
    assert (tail, "72.61" in amount) == ("5770", True)
    # A variable of more than 12 characters is refused on some accounts
    assert merchant == "shell kings…"
    assert body == {
        "PhoneNumberSet": [PHONE],
        "SmsSdkAppId": "1400000000",
        "TemplateId": "SMS_1",
        "SignName": "银行",
        "SessionContext": ALERT.key,
    }
    assert request.fresh
    shows_nothing_private(request)


@pytest.mark.parametrize(
    ("locale", "code"), [("zh-CN", "SMS_1"), ("en", "SMS_2"), ("en-GB", "SMS_2"), ("zh-HK", "SMS_1")]
)
def test_another_language_has_a_template_of_its_own(locale: str, code: str) -> None:
    request = tencent().prepare(an_alert(recipient={"locale": locale}))
    assert request.body is not None
    assert json.loads(request.body)["TemplateId"] == code


@pytest.mark.parametrize("make", [aliyun, tencent])
@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"template": "gone@1"}, "template:UnknownTemplate"),
        ({"event": {"currency": "ZZZ"}}, "template-field:amount"),
        ({"recipient": {"phone": None}}, "no-phone"),
    ],
)
def test_what_cannot_be_sent_says_why_without_it(make: Any, fields: dict[str, Any], code: str) -> None:
    with pytest.raises(CannotPrepare) as caught:
        make().prepare(an_alert(**fields))
    assert caught.value.code == code
    shows_nothing_private(caught.value)


def test_an_unknown_outcome_waits_for_its_report_under_the_vendors_name() -> None:
    policy = aliyun().policy(ALERT)
    assert (policy.resend_unknown, policy.receipts_by_key, policy.key_prefix) == (False, True, "aliyun:")
    assert aliyun(on_unknown={"swipe": "resend"}).policy(ALERT).resend_unknown
    assert aliyun().fenced


# ---- what is configured ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vendor", ["aliyun", "tencent"])
@pytest.mark.parametrize("missing", ["access_key_id", "sign", "template_codes", "template_params", "secret_env"])
def test_a_missing_key_is_named(vendor: str, missing: str) -> None:
    given = {"vendor": vendor, "sdk_app_id": "14"} | {key: value for key, value in KEYS.items() if key != missing}
    with pytest.raises(ValueError, match=rf"^{'secret_file' if missing == 'secret_env' else missing}: is missing"):
        SmsConfig(**given)


def test_tencent_wants_its_application() -> None:
    with pytest.raises(ValueError, match="sdk_app_id: is missing"):
        SmsConfig(vendor="tencent", **KEYS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"template_codes": {"swipe/en": "2"}}, 'template_codes: has no code for template "swipe"'),
        ({"template_codes": {"swipe": "1", "swip": "2"}}, "template_codes.swip: there is no such template; known are"),
        ({"template_params": {"sw": ("tail",)}}, "template_params.sw: there is no such template"),
        ({"template_params": {"swipe": ("tale",)}}, "template_params.swipe: names a field .*did you mean late|tail"),
        ({"template_params": {"swipe": ("city",)}}, "template_params.swipe: city may be empty"),
        ({"template_params": {"swipe": ("tail", "tail")}}, "template_params.swipe: gives a name twice"),
    ],
)
def test_a_mapping_that_does_not_fit_is_a_configuration_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"channels\.sms\.{message}"):
        aliyun(**settings)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"vendor": "aliyun"} | KEYS, "second.vendor: is"),
        ({"vendor": "tencent", "base_url": "http://10.0.0.1/"} | KEYS, "base_url: http:// is allowed"),
    ],
)
def test_the_second_vendor_is_another_one(second: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert({"vendor": "aliyun"} | KEYS | {"second": second}, SmsConfig)


# ---- what an answer means -------------------------------------------------------------------------------------------

NEVER_ACCEPTED = [
    b"",
    b"<html>",
    b"null",
    b"[]",
    b'{"Code":"OK"',
    b'{"Code":"OK"}',
    b'{"Code":"OK","BizId":""}',
    b'{"Code":"OK","BizId":7}',
    b'{"Code":0,"BizId":"1"}',
    b'{"Response":{}}',
    b'{"Response":{"SendStatusSet":[]}}',
    b'{"Response":{"SendStatusSet":[{"Code":"Ok"}]}}',
    b'{"Response":{"SendStatusSet":[{"Code":"Ok","SerialNo":1}]}}',
    b'{"Response":{"SendStatusSet":[{"Code":"Ok","SerialNo":"1"},{"Code":"Ok","SerialNo":"2"}]}}',
    b'{"Response":[' + b"[" * 50_000,
    b'{"code":0,"id":"m"}',
    b"\xff" * 100,
]


@pytest.mark.parametrize("make", [aliyun, tencent])
@pytest.mark.parametrize("body", NEVER_ACCEPTED)
def test_what_is_not_the_vendors_acceptance_is_of_unknown_outcome(make: Any, body: bytes) -> None:
    channel: VendorChannel = make()
    answer = make().classify(ALERT, response_to(make().prepare(ALERT), body))
    assert (answer.kind, answer.scope) == (A.UNKNOWN, "channel")
    assert answer.msgid == channel.msgid(ALERT)
    assert channel.knows(answer.code)
    shows_nothing_private(answer)


@pytest.mark.parametrize("make", [aliyun, tencent])
@pytest.mark.parametrize(
    ("status", "kind"),
    [(502, A.UNKNOWN), (302, A.UNKNOWN), (429, A.THROTTLE), (401, A.CONFIGURATION), (400, A.PERMANENT)],
)
def test_a_status_without_a_code_speaks_for_itself(make: Any, status: int, kind: AnswerClass) -> None:
    answer = make().classify(ALERT, response_to(make().prepare(ALERT), b"<html>", status))
    assert (answer.kind, answer.code) == (kind, f"http-{status}")


def test_aliyuns_refusals_come_with_http_400_and_404() -> None:
    for status, code in ((400, "SignatureDoesNotMatch"), (404, "InvalidAccessKeyId.NotFound")):
        body = json.dumps({"Code": code, "Message": "m"}).encode()
        answer = aliyun().classify(ALERT, response_to(aliyun().prepare(ALERT), body, status))
        assert (answer.kind, answer.code) == (A.CONFIGURATION, code)


def test_a_gateway_error_of_aliyun_that_no_table_knows_may_have_come_after_acceptance() -> None:
    body = b'{"Code":"ServiceUnavailable","Message":"m"}'
    answer = aliyun().classify(ALERT, response_to(aliyun().prepare(ALERT), body, 503))
    assert (answer.kind, answer.code) == (A.UNKNOWN, "http-503")


@pytest.mark.parametrize(("make"), [aliyun, tencent])
def test_a_code_that_could_be_anything_is_neither_shown_nor_believed(make: Any) -> None:
    for code in (PHONE, f"isv.{PHONE}", "a b", "x" * 200, "张三", ""):
        said = {"Code": code, "Message": "m"}
        body = said if make is aliyun else {"Response": {"SendStatusSet": [said]}}
        answer = make().classify(ALERT, response_to(make().prepare(ALERT), json.dumps(body).encode()))
        assert (answer.kind, answer.code) == (A.PERMANENT, "other")
        assert not make().knows("other")
        shows_nothing_private(answer)


@pytest.mark.parametrize(
    ("said", "pause_ms"),
    [
        ("触发分钟级流控Permits:1", 50_000),
        ("触发小时级流控Permits:5", 3_600_000 - 10_000),
        ("触发天级流控Permits:10", 3_600_000),
        ("too many", 60_000),
        (None, 60_000),
    ],
)
def test_aliyun_says_in_the_message_which_window_of_the_number_is_full(said: str | None, pause_ms: int) -> None:
    channel = aliyun()
    channel._clock = lambda: 1_704_103_210.0  # ten seconds after 10:00
    body = json.dumps({"Code": "isv.BUSINESS_LIMIT_CONTROL", "Message": said}).encode()
    answer = channel.classify(ALERT, response_to(channel.prepare(ALERT), body))
    assert (answer.kind, answer.scope, answer.pause_ms) == (A.THROTTLE, "recipient", pause_ms)


@pytest.mark.parametrize("make", [aliyun, tencent])
def test_no_answer_is_a_retry_only_when_nothing_left(make: Any) -> None:
    request = make().prepare(ALERT)
    assert make().classify(ALERT, no_response_to(request, Failure.NOT_SENT, 7)).kind is A.RETRY
    assert make().classify(ALERT, no_response_to(request, Failure.UNKNOWN, 28)).kind is A.UNKNOWN


CHANNELS = (aliyun(), tencent())
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["OK", "Ok", "1", PHONE]) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["Code", "BizId", "Response", "SendStatusSet", "SerialNo", "Error"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(
    body=st.binary(max_size=60) | json_values.map(json.dumps).map(str.encode),
    status=st.sampled_from([200, 200, 400, 500, 0, 999]),
)
def test_no_body_raises_or_is_taken_for_an_acceptance_that_it_is_not(body: bytes, status: int) -> None:
    for channel in CHANNELS:
        answer = channel.classify(ALERT, response_to(channel.prepare(ALERT), body, status))
        if answer.kind is A.ACCEPTED:
            found = json.loads(body)
            assert status == 200
            one = found if channel is CHANNELS[0] else found["Response"]["SendStatusSet"][0]
            assert one["Code"] in ("OK", "Ok")
            assert one.get("BizId") or one.get("SerialNo")
        shows_nothing_private(answer)


# ---- how long a message is ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ("银" * 70, 1),
        ("银" * 71, 2),
        ("银" * 134, 2),
        ("银" * 135, 3),
        ("a" * 160, 3),  # providers.md section 6.3: 67 + 67 + 26
        ("😀" * 35, 1),
        ("😀" * 36, 2),
        # 134 units, but an emoji of two does not fit into the last place of a part
        ("a" * 66 + "😀" + "a" * 66, 3),
        ("银" * 500, 8),
    ],
)
def test_segments_are_counted_in_utf_16_units(message: str, parts: int) -> None:
    assert segments(message) == parts


def test_the_sign_counts_with_its_brackets() -> None:
    assert with_sign("text", "银行") == with_sign("text", "【银行】") == "【银行】text"
    assert with_sign("text", "") == "text"
    assert segments(with_sign("银" * 66, "银行")) == 1
    assert segments(with_sign("银" * 67, "银行")) == 2
    assert fits("银" * 496, "银行")
    assert not fits("银" * 497, "银行")


class LongText:
    """A library whose one template fills what a text may have."""

    def template(self, _name: str) -> LongText:
        return self

    def render_sms(self, _facts: object, _locale: str) -> str:
        return "银" * MAX_SMS_TEXT_UNITS


@pytest.mark.parametrize(("sign", "sent"), [("银" * 12, True), ("银" * 13, False), ("", True)])
def test_a_text_that_its_sign_makes_too_long_is_refused_and_not_cut(sign: str, sent: bool) -> None:
    section = SmsConfig(base_url="http://127.0.0.1:9/sms", sign=sign)
    channel = GenericSmsChannel(section, None, cast("Library", LongText()), RetryPolicy(), None)
    if sent:
        assert channel.prepare(ALERT).body is not None
    else:
        with pytest.raises(CannotPrepare, match="sms-too-long"):
            channel.prepare(ALERT)
