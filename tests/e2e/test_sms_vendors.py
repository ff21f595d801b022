"""Swipes through Aliyun and Tencent at once: the whole service, simulated gateways, status reports and the books."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import trio

from dispatcher.config_load import load_config
from dispatcher.events import Accepted, Rejected, decode_event
from dispatcher.listening import open_listeners
from dispatcher.model.private import Secret
from dispatcher.model.recipient import RecipientLine
from dispatcher.receipts import receipt_desk
from dispatcher.service import service
from loadtest.providers.faults import Faults
from loadtest.providers.server import Providers, serve_providers
from loadtest.providers.settings import DEFAULT_SECRET, ProviderSettings, ReceiptSettings
from loadtest.providers.sms_vendors import KEY_ID

ALERTS = 120
TOKEN = "receipts-token"
CONFIG = """
[receipts]
listen = "127.0.0.1:0"
token_file = "token"
deadline_seconds = 20.0
[retry]
base_seconds = 0.05
[channels.sms]
vendor = "aliyun"
base_url = "{url}/aliyun"
secret_file = "secret"
access_key_id = "{key}"
sign = "银行"
template_codes = {{ swipe = "SMS_1" }}
template_params = {{ swipe = ["card=tail", "amount"] }}
rate_per_second = 2000
[channels.sms.second]
vendor = "tencent"
base_url = "{url}/tencent"
secret_file = "secret"
access_key_id = "{key}"
sdk_app_id = "1400000000"
sign = "银行"
template_codes = {{ swipe = "7" }}
template_params = {{ swipe = ["tail", "amount"] }}
rate_per_second = 2000
weight = 50
"""


def swipe(number: int) -> Accepted:
    now = datetime.now(UTC).isoformat()
    event = {"id": f"e{number}", "account": f"a{number}", "amount": 20_000, "currency": "CNY", "time": now}
    decoded = decode_event(json.dumps(event).encode(), number)
    assert not isinstance(decoded, Rejected)
    return decoded


def person(number: int) -> RecipientLine:
    return RecipientLine(account=f"a{number}", phone=f"+86138{number:08}", channels=("sms",))


async def test_both_vendors_deliver_and_an_answer_that_was_lost_is_found_by_its_report(tmp_path: Path) -> None:
    for name, text in (("secret", DEFAULT_SECRET.reveal()), ("token", TOKEN)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    listeners = await open_listeners("127.0.0.1:0", "receipts.listen")
    port = listeners[0].socket.getsockname()[1]
    settings = ProviderSettings(
        # Given vendors that are busy at times, and whose answers are lost after one acceptance in ten
        faults=Faults(busy=0.05, reset=0.1),
        seed=3,
        receipts=ReceiptSettings(
            sms_url=f"http://127.0.0.1:{port}/sms",
            token=Secret(TOKEN),
            earliest_seconds=0.0,
            latest_seconds=0.2,
            duplicated=0.2,
        ),
    )
    providers = Providers(settings)
    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[int]) -> None:
            await serve_providers(settings, providers=providers, task_status=task_status)

        url = f"http://127.0.0.1:{await nursery.start(serve)}"
        (tmp_path / "swipebell.toml").write_text(CONFIG.format(url=url, key=KEY_ID), "utf-8")
        config = load_config(tmp_path / "swipebell.toml", {})
        assert config.receipts is not None
        async with service(config, fail_fast=True, environ={}) as running, trio.open_nursery() as doors:
            # Inside of the engine's life, as in `serve`: a report that is told once more may come at any time
            desk = receipt_desk(running.engine, config)
            doors.start_soon(desk.run)
            await doors.start(desk.serve, listeners, trio.sleep_forever)
            await running.ledger.import_recipients([person(number) for number in range(ALERTS)])
            # When every account swipes once
            with trio.fail_after(30):
                await running.engine.admit([swipe(number) for number in range(ALERTS)])
                await running.engine.idle()
            books = await running.ledger.books()
            doors.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    # Then every alert is delivered by its report, whether or not the acceptance was seen
    assert books.balanced
    assert {state: count for state, count in books.states.items() if count} == {"delivered": ALERTS}
    assert providers.book.sms.resets > 0
    # And no phone rang twice: an answer that was never seen was left to the report
    seen = [message.to for message in providers.book.sms_messages]
    assert len(seen) == len(set(seen)) == ALERTS
    # Both vendors had a part: Aliyun is sent mainland numbers without their country, Tencent with it
    assert 20 < sum(number.startswith("+86") for number in seen) < ALERTS - 20
