"""Aliyun's answers to SendSms, as a table.

Source: providers.md section 6.1, from the vendor's error pages and SDK. Codes marked "gateway" are answers of the API
gateway in front, before SendSms was reached.
"""

from __future__ import annotations

from dispatcher.channels.base import CONFIGURATION_PAUSE_MS, THROTTLE_PAUSE_MS
from dispatcher.channels.table import AnswerTable, Row
from dispatcher.delivery import AnswerClass as A

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS

QUOTA_LOOK_MS = 15 * MINUTE_MS
"""A daily or monthly quota of the account lasts until a person raises it or the period ends; a look every quarter of an
hour notices both."""


def _number(note: str) -> Row:
    return Row(A.RECIPIENT_GONE, "recipient", 0, note)


def _content(note: str) -> Row:
    return Row(A.PERMANENT, "message", 0, note)


def _template(note: str) -> Row:
    return Row(A.PERMANENT, "template", 0, note)


def _config(note: str) -> Row:
    return Row(A.CONFIGURATION, "channel", CONFIGURATION_PAUSE_MS, note)


TABLE = AnswerTable(
    "sms: Aliyun",
    "providers.md section 6.1",
    {
        "OK": Row(A.ACCEPTED, "message", 0, "taken; the status report has the last word"),
        "isv.BUSINESS_LIMIT_CONTROL": Row(
            A.THROTTLE, "recipient", MINUTE_MS, "too many to this number; the message names minute, hour or day"
        ),
        "Throttling.User": Row(A.THROTTLE, "channel", THROTTLE_PAUSE_MS, "too many requests a second (gateway)"),
        "isv.DAY_LIMIT_CONTROL": Row(A.THROTTLE, "channel", QUOTA_LOOK_MS, "the account's own limit of the day"),
        "isv.MONTH_LIMIT_CONTROL": Row(A.THROTTLE, "channel", QUOTA_LOOK_MS, "the account's own limit of the month"),
        "isp.SYSTEM_ERROR": Row(A.RETRY, "channel", 0, "the vendor's system failed"),
        "isv.MOBILE_NUMBER_ILLEGAL": _number("not a phone number"),
        # Not "gone": with another product of the same vendor the number would be fine.
        "isv.DOMESTIC_NUMBER_NOT_SUPPORTED": Row(
            A.PERMANENT, "recipient", 0, "a mainland number on a template for numbers abroad"
        ),
        "isv.MOBILE_COUNT_OVER_LIMIT": _content("too many numbers in one request"),
        "isv.SMS_CONTENT_ILLEGAL": _content("forbidden content"),
        "isv.BLACK_KEY_CONTROL_LIMIT": _content("a blocked word in a parameter"),
        "isv.PARAM_LENGTH_LIMIT": _content("a parameter is too long"),
        "isv.PARAM_NOT_SUPPORT_URL": _content("a parameter looks like a URL"),
        "isv.TEMPLATE_MISSING_PARAMETERS": _template("the template has a parameter that was not given"),
        "isv.TEMPLATE_PARAMS_ILLEGAL": _template("a parameter does not fit the template"),
        "isv.INVALID_JSON_PARAM": _content("the parameters are not JSON"),
        "isv.INVALID_PARAMETERS": _content("a parameter of the request is wrong"),
        "isv.EXTEND_CODE_ERROR": _content("the extension code is wrong"),
        "isv.SMS_TEMPLATE_ILLEGAL": _config("the template is not approved, or not this account's"),
        "isv.SMS_SIGNATURE_ILLEGAL": _config("the sign is not approved, or not this account's"),
        "isv.SIGN_STATE_ILLEGAL": _config("the sign is not in force"),
        "isv.SMS_SIGN_ILLEGAL": _config("the sign is forbidden"),
        "isv.SMS_SIGNATURE_SCENE_ILLEGAL": _config("the sign is not for this kind of template"),
        "isv.AMOUNT_NOT_ENOUGH": _config("the balance is used up"),
        "isv.OUT_OF_SERVICE": _config("the service is stopped, mostly for debts"),
        "isv.ACCOUNT_NOT_EXISTS": _config("there is no such account"),
        "isv.ACCOUNT_ABNORMAL": _config("the account is blocked"),
        "isv.PRODUCT_UN_SUBSCRIPT": _config("the product is not ordered"),
        "isv.DENY_IP_RANGE": _config("our address is not on the account's list"),
        "isp.RAM_PERMISSION_DENY": _config("the access key may not send"),
        "SignatureDoesNotMatch": _config("the secret is wrong (gateway)"),
        # A nonce is random, so a second one like it is a repeated request: never taken twice, and never our plan.
        "SignatureNonceUsed": _config("the nonce was seen before (gateway)"),
        "InvalidTimeStamp.Expired": _config("our clock is wrong (gateway)"),
        "InvalidAccessKeyId.NotFound": _config("there is no such access key (gateway)"),
    },
)
