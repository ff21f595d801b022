"""Status reports of Aliyun and Tencent at the receipts listener."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dispatcher.receipts import MAX_WAITING
from tests.dispatcher.test_receipts import TOKEN, serving, signed

KEY = "0123456789abcdef0123456789abcdef"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def aliyun(**fields: Any) -> dict[str, Any]:
    return {
        "phone_number": "13800138000",
        "send_time": "2024-01-01 18:00:00",
        "report_time": "2024-01-01 18:00:02",
        "success": True,
        "err_code": "DELIVERED",
        "err_msg": "delivered",
        "sms_size": "1",
        "biz_id": "900619746936498440^0",
        "out_id": KEY,
    } | fields


def tencent(**fields: Any) -> dict[str, Any]:
    return {
        "user_receive_time": "2024-01-01 18:00:02",
        "nationcode": "86",
        "mobile": "13800138000",
        "report_status": "SUCCESS",
        "errmsg": "DELIVRD",
        "description": "ok",
        "sid": "2019:12345",
        "ext": KEY,
    } | fields


def page(*reports: dict[str, Any]) -> bytes:
    return json.dumps(reports).encode()


async def test_a_push_is_kept_and_thanked_for_in_the_vendors_words() -> None:
    async with serving() as served:
        failed = aliyun(success=False, err_code="MK:0001", out_id=None)
        one = await served.ask("POST", f"/sms/aliyun?token={TOKEN}", page(aliyun(), failed))
        two = await served.ask(
            "POST",
            f"/sms/tencent?token={TOKEN}",
            page(tencent(), tencent(report_status="FAIL", errmsg="+8613800138000")),
        )
        assert (one.status_code, one.json()) == (200, {"code": 0, "msg": "ok"})
        assert (two.status_code, two.json()) == (200, {"result": 0, "errmsg": "OK"})
    assert served.books.kept == [
        ("sms", f"aliyun:{KEY}", "delivered"),
        ("sms", "aliyun:900619746936498440^0", "failed:sms:MK:0001"),
        ("sms", f"tencent:{KEY}", "delivered"),
        ("sms", f"tencent:{KEY}", "failed:sms:other"),
    ]


async def test_a_report_of_one_vendor_cannot_end_an_alert_of_the_other() -> None:
    async with serving() as served:
        for path in ("/sms", "/sms/second", "/sms/aliyun", "/sms/tencent"):
            for name in (KEY, f"aliyun:{KEY}", f"tencent:{KEY}", f"second:{KEY}"):
                bodies = {
                    "/sms/aliyun": aliyun(out_id=name, biz_id=name),
                    "/sms/tencent": tencent(ext=name, sid=name),
                }
                body = bodies.get(path, {"id": name, "status": "delivered"})
                assert (await served.ask("POST", path, page(body), **BEARER)).status_code == 200
        kept = [msgid for _, msgid, _ in served.books.kept]
    # Then each id that a send can have waited under was said by one path only
    for wanted in (KEY, f"aliyun:{KEY}", f"tencent:{KEY}", f"second:{KEY}"):
        assert kept.count(wanted) == 1


@pytest.mark.parametrize("path", ["/sms", "/sms/second", "/sms/aliyun", "/sms/tencent"])
async def test_any_of_three_proofs_is_wanted(path: str) -> None:
    body = page(aliyun() | tencent() | {"id": KEY, "status": "delivered"})
    async with serving() as served:
        for query in ("", "?token=", "?token=x", f"?Token={TOKEN}", f"?token={TOKEN}x", "?token=%C3%A9"):
            assert (await served.ask("POST", path + query, body)).status_code == 401
        assert (await served.ask("POST", path, body, Authorization="Bearer nope")).status_code == 401
        assert served.books.batches == []
        assert (await served.ask("POST", f"{path}?token={TOKEN}", body)).status_code == 200
        assert (await served.ask("POST", path, body, **BEARER)).status_code == 200
        assert (await served.ask("POST", signed(path), body)).status_code == 200
        assert (await served.ask("GET", f"{path}?token={TOKEN}")).status_code == 405
        assert len(served.books.kept) == 3


@pytest.mark.parametrize("path", ["/sms/aliyun", "/sms/tencent"])
async def test_what_is_no_push_is_refused_and_an_empty_one_thanked_for(path: str) -> None:
    async with serving() as served:
        for body in (b"", b"{", b"{}", b"null", b"[1]", b'[{"success":"yes"}]', b"[" * 20_000, b'[{"a":"\xff"}]'):
            assert (await served.ask("POST", path, body, **BEARER)).status_code == 400
        assert (await served.ask("POST", path, b" " * (1024 * 1024), **BEARER)).status_code == 413
        without_ids = {"success": True, "report_status": "SUCCESS"}
        for body in (b"[]", page(without_ids), page(without_ids | {"biz_id": "x" * 65, "sid": "x" * 65})):
            assert (await served.ask("POST", path, body, **BEARER)).status_code == 200
        assert served.books.batches == []
    assert MAX_WAITING >= 100  # a whole push of Tencent's


@pytest.mark.parametrize("path", ["/sms/aliyun", "/sms/tencent"])
async def test_the_same_push_twice_is_kept_twice_and_left_to_the_ledger(path: str) -> None:
    async with serving() as served:
        for _ in range(2):
            assert (await served.ask("POST", path, page(aliyun() | tencent()), **BEARER)).status_code == 200
        assert len(served.books.kept) == 2
