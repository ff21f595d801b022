"""Our Aliyun and Tencent channels against their simulated gateways, over real sockets."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from dispatcher.channels.sms.build import make_sms
from dispatcher.channels.sms.vendor import VendorChannel
from dispatcher.config_sms import SmsConfig
from dispatcher.delivery import Answer as Classified
from dispatcher.delivery import AnswerClass
from dispatcher.httpd import Answer, Request, serve_http
from dispatcher.model.private import Secret
from dispatcher.network.api import PoolSettings
from dispatcher.network.curl import CurlNetwork
from dispatcher.receipts_sms import SMS_PUSHES
from loadtest.providers.faults import Faults
from loadtest.providers.server import Providers, serve_providers
from loadtest.providers.settings import DEFAULT_SECRET, ProviderSettings, ReceiptSettings
from loadtest.providers.sms_vendors import KEY_ID, REPORTS, Sms
from loadtest.providers.sms_windows import ALIYUN, PerNumber
from ratelimit.retry import RetryPolicy
from templates.library import Library
from tests.dispatcher.channel_kit import an_alert, shows_nothing_private
from tests.dispatcher.network_kit import ask_one

LIBRARY = Library.load()
A = AnswerClass
VENDORS = ("aliyun", "tencent")


def a_channel(vendor: str, url: str, *, secret: Secret = DEFAULT_SECRET, **settings: Any) -> VendorChannel:
    section = SmsConfig(
        vendor=vendor,  # type: ignore[arg-type]
        base_url=f"{url}/{vendor}",
        secret_env="SECRET",
        sdk_app_id="1400000000",
        sign="银行",
        template_codes={"swipe": "SMS_1"},
        template_params={"swipe": ("card=tail", "amount", "merchant")},
        **({"access_key_id": KEY_ID} | settings),
    )
    channel = make_sms(section, LIBRARY, RetryPolicy(), 60_000, {"sms": secret})
    assert isinstance(channel, VendorChannel)
    return channel


Send = Callable[..., Any]


@asynccontextmanager
async def gateways(**settings: Any) -> AsyncIterator[tuple[str, Providers, Send]]:
    """The simulated providers, their URL, and how a channel sends an alert there."""
    providers = Providers(ProviderSettings(**settings))
    network = CurlNetwork({"sms": PoolSettings(connections=4)})

    async def send(channel: VendorChannel, **fields: Any) -> Classified:
        alert = an_alert(**fields)
        request = channel.prepare(alert)
        shows_nothing_private(request)
        answer = channel.classify(alert, await ask_one(network, request))
        shows_nothing_private(answer)
        return answer

    try:
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[int]) -> None:
                await serve_providers(providers._settings, providers=providers, task_status=task_status)

            port = await nursery.start(serve)
            yield f"http://127.0.0.1:{port}", providers, send
            nursery.cancel_scope.cancel()
    finally:
        await network.aclose()


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_message_is_taken_and_booked_under_our_word(vendor: str) -> None:
    async with gateways() as (url, providers, send):
        answer = await send(a_channel(vendor, url))
        alert = an_alert()
        assert (answer.kind, answer.msgid) == (A.ACCEPTED, f"{vendor}:{alert.key}")
        (row,) = providers.book.sms_messages
        assert row.id == alert.key
        assert row.to.endswith("13800138000")
        assert row.text is not None
        assert row.text.startswith("【银行】SMS_1 ")
        assert "5770" in row.text


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("wrong", ["secret", "key", "clock"])
async def test_a_wrong_secret_key_or_clock_is_a_configuration_error(vendor: str, wrong: str) -> None:
    async with gateways() as (url, providers, send):
        channel = a_channel(
            vendor,
            url,
            secret=Secret("another") if wrong == "secret" else DEFAULT_SECRET,
            **({"access_key_id": "Another00000"} if wrong == "key" else {}),
        )
        if wrong == "clock":
            channel._clock = lambda: time.time() - 301  # type: ignore[attr-defined]
        answer = await send(channel)
        assert answer.kind is A.CONFIGURATION
        assert providers.book.sms_messages == []


@pytest.mark.parametrize("vendor", VENDORS)
async def test_the_second_message_to_a_number_is_throttled_for_that_number_alone(vendor: str) -> None:
    async with gateways() as (url, providers, send):
        channel = a_channel(vendor, url)
        channel._clock = lambda: 1_704_103_210.0  # type: ignore[attr-defined]
        providers._clock = lambda: 1_704_103_210.0
        assert (await send(channel)).kind is A.ACCEPTED
        second = await send(channel, event={"id": "e-2"})
        other = await send(channel, recipient={"phone": "+8613900139000"})
        assert (second.kind, second.scope) == (A.THROTTLE, "recipient")
        # Ten seconds of Aliyun's minute are over; Tencent says 30 seconds
        assert second.pause_ms == {"aliyun": 50_000, "tencent": 30_000}[vendor]
        assert other.kind is A.ACCEPTED


@pytest.mark.parametrize("vendor", VENDORS)
async def test_after_a_reset_every_number_has_fresh_windows(vendor: str) -> None:
    async with gateways() as (url, providers, send):
        channel, now = a_channel(vendor, url), time.time()
        providers._clock = lambda: now
        assert (await send(channel)).kind is A.ACCEPTED
        assert (await send(channel, event={"id": "e-2"})).kind is A.THROTTLE
        providers.reset()
        assert (await send(channel, event={"id": "e-2"})).kind is A.ACCEPTED


async def test_after_a_reset_every_nonce_is_a_new_one() -> None:
    async with gateways(sms_windows=False) as (url, providers, send):
        # Given a client that has but one nonce
        channel = a_channel("aliyun", url)
        channel._nonce = lambda: "0" * 32  # type: ignore[attr-defined]
        assert (await send(channel)).kind is A.ACCEPTED
        assert (await send(channel, event={"id": "e-2"})).kind is A.CONFIGURATION
        providers.reset()
        assert (await send(channel, event={"id": "e-2"})).kind is A.ACCEPTED


@pytest.mark.parametrize("vendor", VENDORS)
async def test_the_order_of_arrival_decides_nothing_here_either(vendor: str) -> None:
    # Given a gateway with faults of every kind, and alerts that come in one order and in the other, each twice
    faults = Faults(throttle=0.2, busy=0.2, bad_gateway=0.1, reset=0.2)
    numbers = list(range(30))
    found = []
    for order in (numbers, numbers[::-1]):
        async with gateways(faults=faults, seed=3, sms_windows=False) as (url, _, send):
            channel = a_channel(vendor, url)
            answers = [(number, (await send(channel, event={"id": f"e-{number}"})).kind) for number in [*order, *order]]
            found.append(sorted(answers))
    # Then each meets the same
    assert found[0] == found[1]
    assert {kind for _, kind in found[0]} == {A.ACCEPTED, A.RETRY, A.THROTTLE, A.UNKNOWN}
    # And the second try is drawn anew
    assert any(one != two for one, two in zip(found[0][::2], found[0][1::2], strict=True))


@pytest.mark.parametrize("vendor", VENDORS)
async def test_an_answer_that_never_comes_is_unknown_and_its_report_still_finds_the_alert(vendor: str) -> None:
    async with gateways() as (url, providers, send):
        providers.faults = providers.faults.__class__(reset=1.0)
        answer = await send(a_channel(vendor, url))
        assert (answer.kind, answer.msgid) == (A.UNKNOWN, f"{vendor}:{an_alert().key}")
        assert len(providers.book.sms_messages) == 1


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_status_report_names_the_id_that_the_answer_gave(vendor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given two messages, and what the vendor answers to them
    given, reported = [], []
    monkeypatch.setitem(REPORTS, vendor, lambda _message, serial, _at: reported.append(serial) or b"[]")
    receipts = ReceiptSettings(sms_url="http://127.0.0.1:9/sms", earliest_seconds=60.0, latest_seconds=60.0)
    async with gateways(receipts=receipts, sms_windows=False) as (url, providers, send):
        accepted = providers.vendors[vendor]._vendor.accepted

        def listen(sms: Sms, serial: str) -> bytes:
            given.append(serial)
            return accepted(sms, serial)

        monkeypatch.setattr(providers.vendors[vendor]._vendor, "accepted", listen)
        channel = a_channel(vendor, url)
        for number in range(2):
            assert (await send(channel, event={"id": f"e-{number}"})).kind is A.ACCEPTED
    # Then its reports name the same, and each message its own
    assert reported == given
    assert len(set(given)) == 2


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(("weight", "delivered"), [("success", True), ("user-block", False)])
async def test_its_status_report_is_what_the_listener_reads(vendor: str, weight: str, delivered: bool) -> None:
    came: list[Request] = []
    got = trio.Event()
    push = SMS_PUSHES[f"/sms/{vendor}"]

    def listen(request: Request) -> Answer:
        came.append(request)
        if len(came) == 1:
            return Answer(b"later", 503)  # the vendor comes again
        got.set()
        return push.taken

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(serve_http, listen, listeners)
        port = listeners[0].socket.getsockname()[1]
        receipts = ReceiptSettings(
            sms_url=f"http://127.0.0.1:{port}/sms", earliest_seconds=0.0, latest_seconds=0.01, weights={weight: 1.0}
        )
        async with gateways(receipts=receipts) as (url, _, send):
            answer = await send(a_channel(vendor, url))
            with trio.fail_after(60):
                await got.wait()
        nursery.cancel_scope.cancel()
    assert {request.path for request in came} == {f"/sms/{vendor}"}
    (report,) = push.read(came[1].body)
    assert (report.msgid, report.delivered) == (answer.msgid, delivered)


def test_the_windows_are_those_of_the_calendar_and_of_the_last_day() -> None:
    numbers = PerNumber(ALIYUN)
    accepted = []
    for second in range(0, 2 * 86_400, 20):
        if numbers.full("1", second) is None:
            numbers.accept("1", second)
            accepted.append(second)
    # Then one a minute, five an hour, ten in 24 hours
    assert accepted[:6] == [0, 60, 120, 180, 240, 3600]
    assert len([at for at in accepted if at < 86_400]) == 10
    # And the eleventh when the first is a day old
    assert accepted[10] == 86_400
