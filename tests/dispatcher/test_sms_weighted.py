"""Two SMS vendors as one channel: who gets what, and whose trouble it is."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import structlog

from dispatcher.channels.sms.build import make_sms
from dispatcher.channels.sms.vendor import Terms
from dispatcher.channels.sms.weighted import WeightedSms
from dispatcher.config_sms import SecondSmsVendor, SmsConfig
from dispatcher.delivery import Answer, AnswerClass
from dispatcher.model.private import Secret
from dispatcher.network.api import Failure, Request
from ratelimit.retry import RetryPolicy
from ratelimit.weights import WeightSettings
from templates.library import Library
from tests.dispatcher.channel_kit import SECRET, an_alert, no_response_to, response_to, shows_nothing_private

A = AnswerClass
LIBRARY = Library.load()
TEMPLATE: dict[str, Any] = {
    "access_key_id": "AKIDEXAMPLE",
    "sign": "银行",
    "template_codes": {"swipe": "1"},
    "template_params": {"swipe": ("tail", "amount")},
}
OK = b'{"code":0,"id":"m-1"}'
TENCENT_OK = b'{"Response":{"SendStatusSet":[{"Code":"Ok","SerialNo":"s"}]}}'


def says(code: str) -> bytes:
    return b'{"Response":{"Error":{"Code":"%s","Message":"m"},"RequestId":"r"}}' % code.encode()


class Site:
    """A generic gateway and Tencent, a clock, and dice."""

    def __init__(self, weight: int = 50, *, second_rate: int = 50, **second: Any) -> None:
        section = SmsConfig(
            base_url="https://one.example/sms",
            secret_env="ONE",
            second=SecondSmsVendor(
                **({"vendor": "tencent", "sdk_app_id": "14", "secret_env": "TWO", "weight": weight} | TEMPLATE | second)
            ),
        )
        made = make_sms(section, LIBRARY, RetryPolicy(), 60_000, {"sms": Secret(SECRET), "sms.second": Secret(SECRET)})
        assert isinstance(made, WeightedSms)
        self.now_ms = 0
        self.channel = WeightedSms(
            *made.vendors,
            terms=_terms(section),
            settings=WeightSettings(home=weight),
            second_rate=second_rate,
            clock_ms=lambda: self.now_ms,
            random=Random(7),
        )

    def sent(self, **fields: Any) -> Request:
        return self.channel.prepare(an_alert(position=1, **fields))

    def sent_to(self, account: str) -> Request:
        return next(request for request in iter(self.sent, None) if request.pool == account)

    def answers(self, account: str, body: bytes) -> Answer:
        answer = self.channel.classify(an_alert(position=1), response_to(self.sent_to(account), body))
        shows_nothing_private(answer)
        return answer


def _terms(section: SmsConfig) -> Any:
    return Terms.of(section, RetryPolicy(), 60_000)


def test_the_messages_are_shared_by_weight() -> None:
    site = Site(weight=25, second_rate=10_000)
    pools = [site.sent().pool for _ in range(2_000)]
    assert 440 < pools.count("sms.second") < 560
    assert pools.count("sms") + pools.count("sms.second") == 2_000


def test_the_second_gets_no_more_than_its_rate_in_any_second() -> None:
    site = Site(weight=98, second_rate=5)
    sent_ms = []
    for _ in range(600):
        if site.sent().pool == "sms.second":
            sent_ms.append(site.now_ms)
        site.now_ms += 7
    assert len(sent_ms) >= 20
    assert all(later - earlier >= 1_000 for earlier, later in zip(sent_ms, sent_ms[5:], strict=False))


def test_the_vendor_stands_before_the_msgid_so_a_report_finds_its_own() -> None:
    site, key = Site(), an_alert().key
    assert site.answers("sms", OK).msgid == "m-1"
    assert site.answers("sms.second", TENCENT_OK).msgid == f"tencent:{key}"
    for account, prefix in (("sms", ""), ("sms.second", "tencent:")):
        lost = no_response_to(site.sent_to(account), Failure.UNKNOWN, 56)
        answer = site.channel.classify(an_alert(position=1), lost)
        assert (answer.kind, answer.msgid) == (A.UNKNOWN, prefix + key)


def test_two_generic_gateways_have_ids_of_their_own() -> None:
    site = Site(vendor="generic", base_url="https://two.example/sms")
    assert site.answers("sms", OK).msgid == "m-1"
    assert site.answers("sms.second", OK).msgid == "second:m-1"


@pytest.mark.parametrize("code", ["AuthFailure.SignatureFailure", "FailedOperation.InsufficientBalanceInSmsPackage"])
def test_a_vendor_that_wants_a_person_holds_its_message_and_not_the_lane(code: str) -> None:
    site = Site()
    with structlog.testing.capture_logs() as logs:
        answers = [site.answers("sms.second", says(code)) for _ in range(3)]
    assert {(answer.kind, answer.code, answer.scope) for answer in answers} == {(A.RETRY, code, "message")}
    # And it is said, once a minute, whose section it is
    (line,) = [line for line in logs if line["event"] == "vendor_refuses_account"]
    assert (line["log_level"], line["section"], line["code"]) == ("error", "channels.sms.second", code)


def test_a_throttled_vendor_does_not_throttle_the_lane() -> None:
    answer = Site().answers("sms", b'{"code":1}')
    assert (answer.kind, answer.scope) == (A.THROTTLE, "message")


def test_the_weight_moves_away_from_the_vendor_that_fails_and_back() -> None:
    site = Site(weight=50, second_rate=10_000)
    shares = []
    for _ in range(8):
        for _ in range(40):
            request = site.sent()
            body = says("RequestLimitExceeded") if request.pool == "sms.second" else OK
            site.channel.classify(an_alert(position=1), response_to(request, body))
        site.now_ms += 10_000
        shares.append(site.channel.weights.share)
    assert shares == [50, 40, 30, 20, 10, 2, 2, 2]


def test_when_both_want_a_person_the_channel_does() -> None:
    site = Site()
    for _ in range(2):
        site.answers("sms", b'{"code":5}')
        site.answers("sms.second", says("AuthFailure.SignatureFailure"))
        site.now_ms += 10_000
    answer = site.answers("sms", b'{"code":5}')
    assert (answer.kind, answer.scope) == (A.CONFIGURATION, "channel")


def test_a_number_s_own_trouble_is_none_of_the_vendor_s() -> None:
    site = Site(weight=50)
    for _ in range(3):
        for _ in range(20):
            answer = site.answers("sms.second", says("LimitExceeded.PhoneNumberOneHourLimit"))
            assert (answer.kind, answer.scope, answer.pause_ms) == (A.THROTTLE, "recipient", 3_600_000)
        site.now_ms += 10_000
        site.sent()
    assert site.channel.weights.share == 50


def test_a_code_is_known_only_to_the_vendor_whose_table_has_it() -> None:
    site = Site()
    mine = site.answers("sms.second", says("FailedOperation.ContainSensitiveWord"))
    assert site.channel.knows(mine.code)
    unheard = site.answers("sms.second", says("FailedOperation.New"))
    foreign = site.answers("sms", b'{"code":77}')
    for answer in (unheard, foreign):
        assert answer.kind is A.PERMANENT
        assert not site.channel.knows(answer.code)
    for code in ("network-28", "http-502", "unreadable", "4"):
        assert site.channel.knows(code)


def test_one_policy_for_both_and_an_interrupted_alert_is_looked_for_where_most_go() -> None:
    assert Site(weight=20).channel.policy(an_alert()).key_prefix == ""
    assert Site(weight=80).channel.policy(an_alert()).key_prefix == "tencent:"
    assert Site().channel.fenced
