"""Tencent Cloud's answers to SendSms, as a table: the code of the one number, or the error of the whole call.

Source: providers.md section 6.2. Codes marked "gateway" are answers of the API gateway in front; beside SignatureExpire
(there, too) they are the common ones of its signature TC3.
"""

from __future__ import annotations

from dispatcher.channels.base import CONFIGURATION_PAUSE_MS, THROTTLE_PAUSE_MS
from dispatcher.channels.table import AnswerTable, Row
from dispatcher.delivery import AnswerClass as A

HOUR_MS = 3_600_000

QUOTA_LOOK_MS = 15 * 60_000
"""A limit of the application's day lasts until a person raises it or the day ends; a look every quarter of an hour
notices both."""


def _busy_number(pause_ms: int, note: str) -> Row:
    return Row(A.THROTTLE, "recipient", pause_ms, note)


def _content(note: str) -> Row:
    return Row(A.PERMANENT, "message", 0, note)


def _template(note: str) -> Row:
    return Row(A.PERMANENT, "template", 0, note)


def _config(note: str) -> Row:
    return Row(A.CONFIGURATION, "channel", CONFIGURATION_PAUSE_MS, note)


TABLE = AnswerTable(
    "sms: Tencent",
    "providers.md section 6.2",
    {
        "Ok": Row(A.ACCEPTED, "message", 0, "taken; the status report has the last word"),
        "LimitExceeded.DeliveryFrequencyLimit": _busy_number(30_000, "too many to this number"),
        "LimitExceeded.PhoneNumberThirtySecondLimit": _busy_number(30_000, "the number's limit of 30 seconds"),
        "LimitExceeded.PhoneNumberOneHourLimit": _busy_number(HOUR_MS, "the number's limit of an hour"),
        # When the vendor's day ends is not known: a look every hour.
        "LimitExceeded.PhoneNumberDailyLimit": _busy_number(HOUR_MS, "the number's limit of the day"),
        "LimitExceeded.PhoneNumberSameContentDailyLimit": _busy_number(HOUR_MS, "the same text too often in a day"),
        "LimitExceeded.AppDailyLimit": Row(A.THROTTLE, "channel", QUOTA_LOOK_MS, "the application's limit of the day"),
        "LimitExceeded.AppMainlandChinaDailyLimit": Row(
            A.THROTTLE, "channel", QUOTA_LOOK_MS, "the application's limit of the day for the mainland"
        ),
        "RequestLimitExceeded": Row(A.THROTTLE, "channel", THROTTLE_PAUSE_MS, "too many requests a second (gateway)"),
        "InternalError.Timeout": Row(A.UNKNOWN, "channel", 0, "the vendor timed out inside: it may have been sent"),
        "InternalError.SendAndRecvFail": Row(A.RETRY, "channel", 0, "the vendor's system failed"),
        "InternalError.OtherError": Row(A.RETRY, "channel", 0, "the vendor's system failed"),
        "FailedOperation.PhoneNumberInBlacklist": Row(A.OPTED_OUT, "recipient", 0, "the recipient has opted out"),
        "InvalidParameterValue.IncorrectPhoneNumber": Row(A.RECIPIENT_GONE, "recipient", 0, "not a phone number"),
        "FailedOperation.ContainSensitiveWord": _content("a blocked word"),
        "FailedOperation.SignatureIncorrectOrUnapproved": _config("the sign is not approved"),
        "FailedOperation.TemplateIncorrectOrUnapproved": _config("the template is not approved"),
        "FailedOperation.TemplateParamSetNotMatchApprovedTemplate": _template(
            "the parameters are not as many as the template has, or too long"
        ),
        "FailedOperation.InsufficientBalanceInSmsPackage": _config("the package is used up"),
        # A notice has no such hours: the template was registered as marketing.
        "FailedOperation.MarketingSendTimeConstraint": _template("marketing goes out from 8 to 22 only"),
        "InvalidParameterValue.ContentLengthLimit": _content("the text is too long"),
        "InvalidParameterValue.TemplateParameterLengthLimit": _content(
            "a parameter is too long (12 for some accounts)"
        ),
        "InvalidParameterValue.MarketingTemplateWithoutUnsubscribe": _template("marketing without its opt-out words"),
        "UnauthorizedOperation.RequestIpNotInWhitelist": _config("our address is not on the account's list"),
        "UnauthorizedOperation.ServiceSuspendDueToArrears": _config("the service is stopped for debts"),
        "UnauthorizedOperation.SdkAppIdIsDisabled": _config("the application is switched off"),
        "LimitExceeded.PhoneNumberCountLimit": _content("too many numbers in one request"),
        "AuthFailure.SignatureExpire": _config("our clock is more than 5 minutes off (gateway)"),
        "AuthFailure.SignatureFailure": _config("the secret is wrong (gateway)"),
        "AuthFailure.SecretIdNotFound": _config("there is no such SecretId (gateway)"),
        "AuthFailure.UnauthorizedOperation": _config("the SecretId may not send (gateway)"),
    },
)
