"""Delivery reports by seed and message, msgid 0, blocked users, and the three modes of WeChat's events."""

from __future__ import annotations

import base64
from urllib.parse import urlsplit

import defusedxml.ElementTree
import pytest
import trio

from dispatcher.channels.wechat.crypto import CallbackKeys
from dispatcher.model.private import Secret
from loadtest.poster import signature
from loadtest.providers.book import Book, ReceiptCounts
from loadtest.providers.errors import SettingsTextError
from loadtest.providers.faults import Faults
from loadtest.providers.receipts import Receipts
from loadtest.providers.sealing import enclosed, make_seal
from loadtest.providers.settings import ReceiptSettings
from tests.dispatcher.network_kit import serving
from tests.loadtest.test_provider_receipts import Receiver, deliver, query_of, reporting

WEIGHTS = {"success": 3.0, "user-block": 1.0, "system-failed": 1.0, "freq-limit": 1.0}


def fates(order: list[int], seed: int = 3) -> dict[str | None, tuple[str | None, bool]]:
    """Status, and whether the report is lost, of messages that are accepted in this order; nothing is posted."""
    book = Book(keep_bodies=0)
    settings = ReceiptSettings(wechat_url="http://127.0.0.1:9/", lost=0.2, weights=WEIGHTS)
    receipts = Receipts(settings, book, seed)
    for number in order:
        receipts.wechat(
            book.deliver_wechat(openid="oABC", client_msg_id=f"a{number}", msgid=len(order) + number, data={}, now=1.0)
        )
    return {row.client_msg_id: (row.status, row.report_lost) for row in book.wechat_messages}


async def test_the_order_of_messages_decides_nothing_about_their_reports() -> None:
    numbers = list(range(2_000))
    first = fates(numbers)
    assert first == fates(numbers[::-1])
    assert first != fates(numbers, seed=4)
    # And the shares are the weights
    statuses = [status for status, _ in first.values()]
    assert 900 < statuses.count("success") < 1_100
    assert 270 < statuses.count("failed: system failed") < 400
    assert 340 < sum(lost for _, lost in first.values()) < 460


async def test_a_mix_loses_and_doubles_reports_too(socket_clock: trio.testing.MockClock) -> None:
    for faults, expected in (
        (Faults(receipt_lost=1.0), ReceiptCounts(planned=5, lost=5)),
        (Faults(receipt_twice=1.0), ReceiptCounts(planned=5, posted=10, duplicated=5)),
    ):
        async with reporting(Receiver()) as (receipts, book):
            receipts.faults = faults
            deliver(book, receipts, count=5)
            await trio.sleep(6.0)
        assert book.wechat.receipts == expected


async def test_events_can_name_msgid_0(socket_clock: trio.testing.MockClock) -> None:
    receiver = Receiver()
    async with reporting(receiver) as (receipts, book):
        receipts.zero_msgids = True
        deliver(book, receipts)
        receipts.wechat(book.deliver_wechat(openid="oABC", client_msg_id=None, msgid=7, data={}, now=1.0))
        await trio.sleep(6.0)
    named = {defusedxml.ElementTree.fromstring(request.body).findtext("MsgID") for request in receiver.requests}
    assert named == {"0", "7"}


async def test_a_status_that_is_known_already_stands(socket_clock: trio.testing.MockClock) -> None:
    receiver = Receiver()
    async with reporting(receiver) as (receipts, book):
        row = book.deliver_wechat(openid="oABC", client_msg_id="a1", msgid=7, data={}, now=1.0)
        row.status = "failed:user block"
        receipts.wechat(row)
        await trio.sleep(6.0)
    assert defusedxml.ElementTree.fromstring(receiver.requests[0].body).findtext("Status") == "failed:user block"


@pytest.mark.parametrize("mode", ["compat", "safe"])
async def test_an_encrypted_event_is_signed_over_what_is_encrypted(
    mode: str, socket_clock: trio.testing.MockClock
) -> None:
    # Given a cipher of the test's own
    receiver, book = Receiver(), Book(keep_bodies=0)
    async with serving(receiver) as server:
        settings = ReceiptSettings(wechat_url=f"{server.url}/wechat", mode=mode)  # type: ignore[arg-type]
        receipts = Receipts(settings, book, 1, lambda event: base64.b64encode(event[::-1]).decode())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receipts.run)
            deliver(book, receipts)
            await trio.sleep(6.0)
            nursery.cancel_scope.cancel()
    # When an event is posted, then query and body are those of the mode
    (request,) = receiver.requests
    query, root = query_of(request), defusedxml.ElementTree.fromstring(request.body)
    encrypted = root.findtext("Encrypt")
    assert query["encrypt_type"] == "aes"
    assert query["signature"] == signature("simulated-token", query["timestamp"], query["nonce"])
    assert query["msg_signature"] == signature("simulated-token", query["timestamp"], query["nonce"], encrypted)
    assert root.findtext("ToUserName") == "gh_simulated0000"
    event = base64.b64decode(encrypted)[::-1]
    assert defusedxml.ElementTree.fromstring(event).findtext("MsgID") == "7000000000"
    assert root.findtext("MsgID") == ("7000000000" if mode == "compat" else None)
    assert (b"oABC" in request.body) is (mode == "compat")
    assert urlsplit(request.target).path == "/wechat"


def test_the_signature_of_an_encrypted_body_is_the_one_of_the_vector() -> None:
    encrypted = "Q3stYC6hdFzMh9T8HCvyDAuKynFZx72zvSsMzinYKQ/5Nm9RxkIDnEYrkXS+TlzcoGa6aJ7D7O+wmU68ACPQ2w=="
    found = signature("AAAAA", "1714036504", "1514711492", encrypted)
    assert found == "77b9f0c4889130c7d04db73cc0bdb024983c0bdf"


def test_a_mode_that_encrypts_needs_a_key() -> None:
    with pytest.raises(SettingsTextError, match="need the EncodingAESKey"):
        make_seal(None, "wx0")


def test_the_products_cipher_opens_what_is_sealed() -> None:
    key = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
    sealed = make_seal(Secret(key), "wx0")(b"<xml>x</xml>")
    assert CallbackKeys([key], "wx0").open(sealed).message == b"<xml>x</xml>"
    assert b"<xml>x" in enclosed("compat", "gh", b"<xml>x</xml>", sealed)
    with pytest.raises(SettingsTextError):
        make_seal(Secret("short"), "wx0")
