"""The tables of Aliyun and Tencent against providers.md sections 6.1 and 6.2, written down a second time by hand."""

from __future__ import annotations

import pytest

from dispatcher.channels.sms.aliyun.answers import TABLE as ALIYUN
from dispatcher.channels.sms.tencent.answers import TABLE as TENCENT
from dispatcher.channels.table import AnswerTable
from dispatcher.delivery import AnswerClass as A

Group = tuple[A, str, tuple[str, ...]]

ALIYUN_GROUPS: list[Group] = [
    (A.ACCEPTED, "message", ("OK",)),
    (A.THROTTLE, "recipient", ("isv.BUSINESS_LIMIT_CONTROL",)),
    (A.THROTTLE, "channel", ("Throttling.User", "isv.DAY_LIMIT_CONTROL", "isv.MONTH_LIMIT_CONTROL")),
    (A.RETRY, "channel", ("isp.SYSTEM_ERROR",)),
    (A.RECIPIENT_GONE, "recipient", ("isv.MOBILE_NUMBER_ILLEGAL",)),
    (A.PERMANENT, "recipient", ("isv.DOMESTIC_NUMBER_NOT_SUPPORTED",)),
    (
        A.PERMANENT,
        "message",
        (
            "isv.MOBILE_COUNT_OVER_LIMIT",
            "isv.SMS_CONTENT_ILLEGAL",
            "isv.BLACK_KEY_CONTROL_LIMIT",
            "isv.PARAM_LENGTH_LIMIT",
            "isv.PARAM_NOT_SUPPORT_URL",
            "isv.INVALID_JSON_PARAM",
            "isv.INVALID_PARAMETERS",
            "isv.EXTEND_CODE_ERROR",
        ),
    ),
    (A.PERMANENT, "template", ("isv.TEMPLATE_MISSING_PARAMETERS", "isv.TEMPLATE_PARAMS_ILLEGAL")),
    (
        A.CONFIGURATION,
        "channel",
        (
            "isv.SMS_TEMPLATE_ILLEGAL",
            "isv.SMS_SIGNATURE_ILLEGAL",
            "isv.SIGN_STATE_ILLEGAL",
            "isv.SMS_SIGN_ILLEGAL",
            "isv.SMS_SIGNATURE_SCENE_ILLEGAL",
            "isv.AMOUNT_NOT_ENOUGH",
            "isv.OUT_OF_SERVICE",
            "isv.ACCOUNT_NOT_EXISTS",
            "isv.ACCOUNT_ABNORMAL",
            "isv.PRODUCT_UN_SUBSCRIPT",
            "isv.DENY_IP_RANGE",
            "isp.RAM_PERMISSION_DENY",
            "SignatureDoesNotMatch",
            "SignatureNonceUsed",
            "InvalidTimeStamp.Expired",
            "InvalidAccessKeyId.NotFound",
        ),
    ),
]

TENCENT_GROUPS: list[Group] = [
    (A.ACCEPTED, "message", ("Ok",)),
    (
        A.THROTTLE,
        "recipient",
        (
            "LimitExceeded.DeliveryFrequencyLimit",
            "LimitExceeded.PhoneNumberThirtySecondLimit",
            "LimitExceeded.PhoneNumberOneHourLimit",
            "LimitExceeded.PhoneNumberDailyLimit",
            "LimitExceeded.PhoneNumberSameContentDailyLimit",
        ),
    ),
    (
        A.THROTTLE,
        "channel",
        ("LimitExceeded.AppDailyLimit", "LimitExceeded.AppMainlandChinaDailyLimit", "RequestLimitExceeded"),
    ),
    (A.UNKNOWN, "channel", ("InternalError.Timeout",)),
    (A.RETRY, "channel", ("InternalError.SendAndRecvFail", "InternalError.OtherError")),
    (A.OPTED_OUT, "recipient", ("FailedOperation.PhoneNumberInBlacklist",)),
    (A.RECIPIENT_GONE, "recipient", ("InvalidParameterValue.IncorrectPhoneNumber",)),
    (
        A.PERMANENT,
        "message",
        (
            "FailedOperation.ContainSensitiveWord",
            "InvalidParameterValue.ContentLengthLimit",
            "InvalidParameterValue.TemplateParameterLengthLimit",
            "LimitExceeded.PhoneNumberCountLimit",
        ),
    ),
    (
        A.PERMANENT,
        "template",
        (
            "FailedOperation.TemplateParamSetNotMatchApprovedTemplate",
            "FailedOperation.MarketingSendTimeConstraint",
            "InvalidParameterValue.MarketingTemplateWithoutUnsubscribe",
        ),
    ),
    (
        A.CONFIGURATION,
        "channel",
        (
            "FailedOperation.SignatureIncorrectOrUnapproved",
            "FailedOperation.TemplateIncorrectOrUnapproved",
            "FailedOperation.InsufficientBalanceInSmsPackage",
            "UnauthorizedOperation.RequestIpNotInWhitelist",
            "UnauthorizedOperation.ServiceSuspendDueToArrears",
            "UnauthorizedOperation.SdkAppIdIsDisabled",
            "AuthFailure.SignatureExpire",
            "AuthFailure.SignatureFailure",
            "AuthFailure.SecretIdNotFound",
            "AuthFailure.UnauthorizedOperation",
        ),
    ),
]


@pytest.mark.parametrize(("table", "groups"), [(ALIYUN, ALIYUN_GROUPS), (TENCENT, TENCENT_GROUPS)])
def test_the_table_is_the_vendors(table: AnswerTable, groups: list[Group]) -> None:
    wanted = {code: (kind, scope) for kind, scope, codes in groups for code in codes}
    assert {code: (row.kind, row.scope) for code, row in table.rows.items()} == wanted


@pytest.mark.parametrize("table", [ALIYUN, TENCENT])
def test_what_holds_a_sender_back_says_for_how_long(table: AnswerTable) -> None:
    for code, row in table.rows.items():
        if row.kind is A.THROTTLE:
            assert row.pause_ms >= 1_000, code
        # A channel that a person has to mend is asked once a minute, and nothing else waits for one
        assert (row.pause_ms == 60_000) == (row.kind is A.CONFIGURATION) or row.kind is A.THROTTLE, code
