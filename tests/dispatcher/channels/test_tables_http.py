"""Every code of every table of a provider that speaks HTTP, through the real transport."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count
from pathlib import Path
from urllib.parse import unquote

import pytest
import trio.testing

from dispatcher.channels.sms.aliyun.answers import TABLE as ALIYUN
from dispatcher.channels.sms.generic import TABLE as GENERIC
from dispatcher.channels.sms.tencent.answers import TABLE as TENCENT
from dispatcher.channels.table import AnswerTable, Row
from dispatcher.channels.wechat.answers import TABLE as WECHAT
from dispatcher.channels.wechat.service import TABLE as WECHAT_SERVICE
from dispatcher.delivery import AnswerClass as A
from dispatcher.httpd import Answer, Request
from tests.dispatcher.channels.table_runner import SECRET, Case, check_table, run_table, still_clock

__all__ = ["still_clock"]

TOKEN = "73_Runner-Access-Token-aBcDeF"
KEY_ID = "LTAI5tRunnerKeyId000"
TEMPLATES = """
access_key_id = "LTAI5tRunnerKeyId000"
sign = "银行"
template_codes = {{ swipe = "SMS_1" }}
template_params = {{ swipe = ["card=tail", "amount", "merchant"] }}
connections = 64
"""


def quoted(request: Request) -> str:
    """What a provider's message may hold: all that it was sent, and more than it should know."""
    return f"refused {unquote(request.query)} {request.body.decode()} {request.authorization} {SECRET}"


def wechat_says(code: str, request: Request) -> Answer:
    return Answer(json.dumps({"errcode": int(code), "errmsg": quoted(request), "msgid": 7}).encode())


TOKENS = count(1)


def wechat_token(request: Request) -> Answer:
    assert request.path == "/cgi-bin/stable_token"
    # Each time another one: that a refused token comes again is a case of its own (test_token_fleet.py)
    return Answer(json.dumps({"access_token": f"{TOKEN}-{next(TOKENS)}", "expires_in": 7200}).encode())


def generic_says(code: str, request: Request) -> Answer:
    return Answer(json.dumps({"code": int(code), "id": "m-1", "message": quoted(request)}).encode())


def aliyun_says(code: str, request: Request) -> Answer:
    body = {"Code": code, "Message": quoted(request), "RequestId": "r"} | ({"BizId": "9^0"} if code == "OK" else {})
    return Answer(json.dumps(body).encode(), status=200 if code.startswith(("OK", "isv.", "isp.")) else 400)


def tencent_says(code: str, request: Request) -> Answer:
    said = {"Code": code, "Message": quoted(request)}
    if code.startswith(("AuthFailure", "RequestLimit", "Unauthorized", "InternalError")):
        return Answer(json.dumps({"Response": {"Error": said, "RequestId": "r"}}).encode())
    status = said | {"SerialNo": "s-1" if code == "Ok" else "", "PhoneNumber": "+86", "Fee": int(code == "Ok")}
    return Answer(json.dumps({"Response": {"SendStatusSet": [status], "RequestId": "r"}}).encode())


CASES = {
    "wechat": Case(
        channel="wechat",
        section='[channels.wechat]\nappid = "wx0"\nbase_url = "{url}"\nsecret_file = "{secret_file}"\n',
        table=WECHAT,
        says=wechat_says,
        accepted="0",
        unheard="43119",
        resends_unknown=True,
        other=wechat_token,
        private=(TOKEN,),
    ),
    "wechat_service": Case(
        channel="wechat_service",
        section='[channels.wechat]\nappid = "wx0"\nbase_url = "{url}"\nsecret_file = "{secret_file}"\n'
        "service_messages = true\n",
        table=WECHAT_SERVICE,
        says=wechat_says,
        accepted="0",
        unheard="43119",
        resends_unknown=False,
        other=wechat_token,
        private=(TOKEN,),
        lists="wechat",
        window=True,
    ),
    "generic": Case(
        channel="sms",
        section='[channels.sms]\nbase_url = "{url}/sms"\nsecret_file = "{secret_file}"\nconnections = 64\n',
        table=GENERIC,
        says=generic_says,
        accepted="0",
        unheard="6",
        resends_unknown=False,
    ),
    "aliyun": Case(
        channel="sms",
        section='[channels.sms]\nvendor = "aliyun"\nbase_url = "{url}"\nsecret_file = "{secret_file}"\n' + TEMPLATES,
        table=ALIYUN,
        says=aliyun_says,
        accepted="OK",
        unheard="isv.NEVER_HEARD_OF",
        resends_unknown=False,
        private=(KEY_ID,),
    ),
    "tencent": Case(
        channel="sms",
        section='[channels.sms]\nvendor = "tencent"\nbase_url = "{url}"\nsecret_file = "{secret_file}"\n'
        'sdk_app_id = "1400000000"\n' + TEMPLATES,
        table=TENCENT,
        says=tencent_says,
        accepted="Ok",
        unheard="FailedOperation.NeverHeardOf",
        resends_unknown=False,
        private=(KEY_ID,),
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_every_code_leads_to_the_step_that_its_table_says(
    name: str, tmp_path: Path, still_clock: trio.testing.MockClock
) -> None:
    check_table(await run_table(CASES[name], tmp_path, still_clock))


async def test_the_check_finds_what_it_is_for(tmp_path: Path, still_clock: trio.testing.MockClock) -> None:
    # Given a run that is as it should be
    case = CASES["generic"]
    good = await run_table(case, tmp_path, still_clock)
    check_table(good)
    # When the table says something else than what was done, a datum was logged, or a secret stands in a metric
    rows = dict(GENERIC.rows)
    another = [{**rows, code: Row(kind)} for code, kind in (("4", A.RETRY), ("1", A.PERMANENT), ("3", A.PERMANENT))]
    wrong = [replace(good, case=replace(case, table=AnswerTable("x", "x", table))) for table in another]
    wrong.append(replace(good, logs=[*good.logs, {"event": "x", "to": "+8613900000001"}]))
    wrong.append(replace(good, texts={**good.texts, "metrics": SECRET}))
    wrong.append(replace(good, logs=[]))
    wrong.append(replace(good, open_windows=[True, *good.open_windows[1:]]))
    # Then the check fails
    for outcome in wrong:
        with pytest.raises(AssertionError):
            check_table(outcome)
