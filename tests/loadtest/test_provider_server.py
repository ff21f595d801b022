"""The simulated providers over real sockets: HTTP itself, resets, delays and the controls of a test."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from dispatcher.httpd import Deferred
from loadtest.providers.faults import Faults
from loadtest.providers.late import LateAnswers, SimulatedAnswer
from loadtest.providers.server import Providers, serve_providers
from loadtest.providers.settings import ProviderSettings

SMS = {"id": "alert-1", "to": "+8613800138000", "text": "x"}
BEARER = {"Authorization": "Bearer simulated-secret"}


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[int, Providers]]:
    chosen = ProviderSettings(**settings)
    providers = Providers(chosen)
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[int]) -> None:
            await serve_providers(chosen, providers=providers, task_status=task_status)

        yield await nursery.start(serve), providers
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client(port: int) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as opened:
        yield opened


async def talk(port: int, *parts: bytes) -> bytes:
    """Send the parts, one after the other, and read until the server closes."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for part in parts:
            await stream.send_all(part)
        await stream.send_eof()
        answer = b""
        async for chunk in stream:
            answer += chunk
        return answer


async def read_answers(stream: trio.SocketStream, count: int) -> bytes:
    """Read until so many answers to an SMS are complete."""
    found = b""
    while found.count(b"}") < count:
        chunk = await stream.receive_some()
        assert chunk, "the server closed"
        found += chunk
    return found


def sms_request(number: int, *, connection: str = "keep-alive") -> bytes:
    body = json.dumps({**SMS, "id": f"a{number}"}).encode()
    return (
        f"POST /sms HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n"
        f"Authorization: Bearer simulated-secret\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def test_a_message_goes_through_a_real_client_and_into_the_book() -> None:
    async with serving() as (port, _), client(port) as http_client:
        credentials = {
            "grant_type": "client_credential",
            "appid": "wxsimulated000000",
            "secret": "simulated-secret",
        }
        token = (await http_client.post("/cgi-bin/stable_token", json=credentials)).json()["access_token"]
        body = {
            "touser": "oA",
            "template_id": "T",
            "client_msg_id": "1",
            "data": {"thing1": {"value": "尾号"}},
        }
        path = "/cgi-bin/message/template/send"
        sent = await http_client.post(path, params={"access_token": token}, json=body)
        assert sent.json()["errcode"] == 0
        assert (await http_client.post("/sms", json=SMS, headers=BEARER)).json() == {
            "code": 0,
            "id": "alert-1",
        }
        book = (await http_client.get("/_book")).json()
        assert book["wechat"]["delivered"] == book["sms"]["delivered"] == 1
        (row,) = (await http_client.get("/_book/messages?channel=wechat")).text.splitlines()
        assert json.loads(row)["msgid"] == sent.json()["msgid"]
        assert json.loads(row)["data"] == {"thing1": "尾号"}


async def test_a_connection_serves_one_request_after_the_other() -> None:
    async with serving() as (port, providers):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            for number in range(3):
                await stream.send_all(sms_request(number))
                assert b'"code":0' in await read_answers(stream, 1)
            await stream.send_all(sms_request(3) + sms_request(4))
            assert (await read_answers(stream, 2)).count(b"200 OK") == 2
        assert providers.book.sms.delivered == 5


async def test_a_request_may_come_in_pieces() -> None:
    async with serving() as (port, _):
        whole = sms_request(1)
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            for at in range(0, len(whole), 7):
                await stream.send_all(whole[at : at + 7])
                await trio.testing.wait_all_tasks_blocked()
            assert b'"code":0' in await read_answers(stream, 1)


async def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    async with serving() as (port, _):
        head, _, body = sms_request(1).partition(b"\r\n\r\n")
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(head + b"\r\nExpect: 100-continue\r\n\r\n")
            assert await stream.receive_some() == b"HTTP/1.1 100 Continue\r\n\r\n"
            await stream.send_all(body)
            assert b'"code":0' in await read_answers(stream, 1)


async def test_a_reset_comes_after_the_message_is_in_the_book() -> None:
    async with serving(faults=Faults(reset=1.0)) as (port, providers):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(sms_request(1))
            with pytest.raises(trio.BrokenResourceError) as caught:
                await stream.receive_some()
            assert isinstance(caught.value.__cause__, ConnectionResetError)
        assert (providers.book.sms.delivered, providers.book.sms.resets) == (1, 1)


async def test_a_slow_answer_is_late_and_holds_up_nobody_else(socket_clock: trio.testing.MockClock) -> None:
    async with serving(latency_seconds=3.0) as (port, _), client(port) as slow, client(port) as quick:
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: slow.post("/sms", json=SMS, headers=BEARER))
            await quick.get("/_book")
            assert trio.current_time() - started < 3.0
        assert trio.current_time() - started == pytest.approx(3.0)


async def test_late_answers_are_given_in_the_order_of_their_time(autojump_clock: trio.testing.MockClock) -> None:
    late = LateAnswers()
    promised = [late.promise(SimulatedAnswer(b"x", delay_seconds=seconds)) for seconds in (5.0, 1.0, 3.0)]
    now = SimulatedAnswer(b"now")
    assert late.promise(now) is now
    given: list[list[bool]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(late.run)
        for seconds in (0.5, 1.0, 2.0, 2.0):
            await trio.sleep(seconds)
            given.append([one.answer is not None for one in promised if isinstance(one, Deferred)])
        nursery.cancel_scope.cancel()
    assert given == [[False, False, False], [False, True, False], [False, True, True], [True, True, True]]


async def test_a_client_that_leaves_while_its_answer_waits_is_forgotten(
    socket_clock: trio.testing.MockClock,
) -> None:
    async with serving(latency_seconds=3.0) as (port, providers), client(port) as other:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(sms_request(1))
            await trio.sleep(1.0)
        await trio.sleep(10.0)
        assert providers.book.sms.delivered == 1
        assert (await other.get("/_book")).status_code == 200


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([b"garbage\r\n\r\n"], b"400"),
        ([b"\x16\x03\x01\x02\x00\x01\x00"], b"400"),
        ([b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"], b"404"),
        ([b"POST /sms HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n"], b"400"),
        ([b"POST /sms HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n", b"x" * 99_999], b"413"),
        ([b"GET / HTTP/1.1\r\n"] + [b"X-%d: " % n + b"y" * 30_000 + b"\r\n" for n in range(6)], b"431"),
    ],
)
async def test_what_is_not_a_request_is_refused_and_the_server_lives(parts: list[bytes], status: bytes) -> None:
    async with serving() as (port, _):
        answer = await talk(port, *parts)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert b"Connection: close" in answer
        assert b'"code":0' in await talk(port, sms_request(1, connection="close"))


async def test_a_good_request_before_garbage_is_still_answered() -> None:
    async with serving() as (port, providers):
        answer = await talk(port, sms_request(1) + b"garbage\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.count(b"HTTP/1.1 400 Bad Request\r\n") == 1
        assert providers.book.sms.delivered == 1


async def test_faults_are_switched_over_http() -> None:
    async with serving(faults=Faults(busy=0.5)) as (port, providers), client(port) as http_client:
        before = await http_client.post("/_faults", json={"reset": 0.25})
        assert before.json()["busy"] == 0.5
        assert providers.faults == Faults(reset=0.25)
        wrongs = (b'{"reset":2}', b'{"bsy":0.1}', b"{", b"\xff", b"[" * 20_000)
        together = (b'{"down_from":5}', b'{"down_from":5,"down_to":4}', b'{"down_to":5,"down_sms":0.5}')
        for wrong in wrongs + together:
            answer = await http_client.post("/_faults", content=wrong)
            assert answer.status_code == 400
            assert answer.json()["error"]
        assert providers.faults == Faults(reset=0.25)


async def test_tokens_expire_and_the_book_is_emptied_over_http() -> None:
    async with serving(faults=Faults(throttle=1.0)) as (port, providers), client(port) as http_client:
        credentials = {
            "grant_type": "client_credential",
            "appid": "wxsimulated000000",
            "secret": "simulated-secret",
        }
        token = (await http_client.post("/cgi-bin/stable_token", json=credentials)).json()["access_token"]
        await http_client.post("/_expire_token")
        sent = await http_client.post(f"/cgi-bin/message/template/send?access_token={token}", json={})
        assert sent.json()["errcode"] == 42001
        await http_client.post("/_faults", json={})
        await http_client.post("/sms", json=SMS, headers=BEARER)
        await http_client.post("/_reset")
        assert providers.faults == Faults(throttle=1.0)
        book = (await http_client.get("/_book")).json()
        assert book["wechat"]["requests"] == book["sms"]["requests"] == 0
        assert (await http_client.get("/_book/messages?channel=sms")).text == ""


async def test_messages_can_be_read_in_pages() -> None:
    async with serving() as (port, _), client(port) as http_client:
        for number in range(5):
            await http_client.post("/sms", json={**SMS, "id": f"a{number}"}, headers=BEARER)
        page = await http_client.get("/_book/messages?channel=sms&offset=1&limit=2")
        assert [json.loads(line)["id"] for line in page.text.splitlines()] == ["a1", "a2"]
        for wrong in ("channel=fax", "offset=-1", "limit=x", "page=2"):
            assert (await http_client.get(f"/_book/messages?{wrong}")).status_code == 400


async def test_unknown_paths_and_methods_are_refused() -> None:
    async with serving() as (port, _), client(port) as http_client:
        assert (await http_client.get("/")).status_code == 404
        for method, path in (
            ("POST", "/_book"),
            ("POST", "/_book/messages"),
            ("GET", "/_faults"),
            ("GET", "/_expire_token"),
            ("GET", "/_reset"),
        ):
            assert (await http_client.request(method, path)).status_code == 405


async def test_the_file_of_the_book_is_complete_when_the_server_is_cancelled(
    tmp_path: Path, socket_clock: trio.testing.MockClock
) -> None:
    file = tmp_path / "book.ndjson"
    async with serving(book_file=file) as (port, _), client(port) as http_client:
        await http_client.post("/sms", json=SMS, headers=BEARER)
        await trio.sleep(1.5)
        assert len(file.read_text().splitlines()) == 1
        await http_client.post("/sms", json=SMS, headers=BEARER)
    assert len(file.read_text().splitlines()) == 2
