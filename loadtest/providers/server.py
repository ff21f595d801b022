"""The simulated providers as one server: WeChat, the SMS gateways, and the controls of a test, on one port."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Final, Literal
from urllib.parse import parse_qs

import msgspec
import trio
from msgspec import Meta

from dispatcher.httpd import NDJSON, TEXT, Answer, Limits, Request, serve_http
from loadtest.providers.book import FLUSH_SECONDS, Book, SmsMessage, WechatMessage
from loadtest.providers.faults import Dice, Faults
from loadtest.providers.late import LateAnswers, SimulatedAnswer
from loadtest.providers.receipts import Receipts
from loadtest.providers.sealing import make_seal
from loadtest.providers.seen import shown_on
from loadtest.providers.settings import ProviderSettings
from loadtest.providers.sms import SmsGateway
from loadtest.providers.sms_vendors import Aliyun, Tencent, VendorGateway
from loadtest.providers.sms_windows import ALIYUN, TENCENT
from loadtest.providers.users import MAX_USERS, UserDeed, Users
from loadtest.providers.wechat import WeChat

MAX_LISTED_MESSAGES: Final = 500_000
"""Messages in one answer of ``/_book/messages`` (about 100 bytes each); ask for more with ``offset``."""

WECHAT_PATHS: Final = "/cgi-bin/"
"""Every call to WeChat begins so; all others but the controls of a test are the SMS gateway's."""

LIMITS: Final = Limits(connections=4096)
"""More connections than any pool of ours has, whatever is being tried out."""

_encoder = msgspec.json.Encoder()


class Providers:
    """Both providers and their book, without a server: ``answer`` is a plain function of a request.

    ``clock`` gives epoch seconds. Raises ``OSError`` when the book's file cannot be opened, and ``SettingsTextError``
    for an EncodingAESKey that is none.
    """

    def __init__(
        self,
        settings: ProviderSettings,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self.book = Book(keep_bodies=settings.keep_bodies, file=settings.book_file)
        self.receipts = _receipts(settings, self.book)
        dice = Dice(settings.faults, settings.seed, clock())
        report_wechat: Callable[[WechatMessage], None] = _no_report
        report_sms: Callable[[SmsMessage], None] = _no_report
        if self.receipts is not None:
            report_wechat, report_sms = self.receipts.wechat, self.receipts.sms
            self.receipts.faults = settings.faults
            self.receipts.zero_msgids = settings.duplicate_answer == "zero"
        self.wechat = WeChat(settings, dice, self.book, report_wechat, clock())
        self.sms = SmsGateway(settings, dice, self.book, report_sms)
        self.vendors = {
            "aliyun": VendorGateway(Aliyun(), ALIYUN, settings, dice, self.book, self._reporter("aliyun")),
            "tencent": VendorGateway(Tencent(), TENCENT, settings, dice, self.book, self._reporter("tencent")),
        }
        self._routes = {
            **self.wechat.routes,
            "/_book": self._get_book,
            "/_book/messages": self._get_messages,
            "/_book/keys": self._get_keys,
            "/_book/seen": self._get_seen,
            "/_users": self._post_users,
            "/_faults": self._post_faults,
            "/_expire_token": self._post_expire_token,
            "/_reset": self._post_reset,
        }

    @property
    def faults(self) -> Faults:
        """The faults in force; setting them starts their draws anew from the seed."""
        return self.wechat.dice.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        dice = Dice(faults, self._settings.seed, self._clock())
        self.wechat.roll(dice)
        self.sms.dice = dice
        for vendor in self.vendors.values():
            vendor.dice = dice
        if self.receipts is not None:
            self.receipts.faults = faults

    def _reporter(self, vendor: str) -> Callable[[SmsMessage, str], None]:
        return _no_report if self.receipts is None else partial(self.receipts.sms_of, vendor)

    def reset(self) -> None:
        """An empty book, fresh quotas, windows and users, and the faults of the start. Tokens and the book's file
        stay."""
        self.book.clear()
        self.wechat.reset()
        self.wechat.users = Users()
        for vendor in self.vendors.values():
            vendor.reset()
        self.faults = self._settings.faults

    def answer(self, request: Request) -> Answer:
        """What this request gets, whoever it is for."""
        if not request.path.startswith("/_"):
            channel = "wechat" if request.path.startswith(WECHAT_PATHS) else "sms"
            if self.wechat.dice.is_down(channel, self._clock()):
                (self.book.wechat if channel == "wechat" else self.book.sms).down += 1
                return SimulatedAnswer(b"", reset=True)
        route = self._routes.get(request.path)
        if route is None:
            last = request.path.rstrip("/").rpartition("/")[2]
            if request.path.endswith("/sms"):
                route = self.sms.send
            elif last in self.vendors:
                route = self.vendors[last].send
            else:
                return _problem(404, "no such path; see `swipebell providers --help`")
        return route(request, self._clock())

    def _get_book(self, request: Request, _now: float) -> Answer:
        if request.method != "GET":
            return _problem(405, "GET only")
        return Answer(_encoder.encode({"wechat": self.book.wechat, "sms": self.book.sms, "faults": self.faults}))

    def _get_messages(self, request: Request, _now: float) -> Answer:
        asked = self._listing(request)
        if isinstance(asked, Answer):
            return asked
        messages = self.book.wechat_messages if asked.channel == "wechat" else self.book.sms_messages
        return Answer(_encoder.encode_lines(messages[asked.part]), content_type=NDJSON)

    def _get_keys(self, request: Request, _now: float) -> Answer:
        """Only what a load test matches, at a tenth of the price: ``KEY AT`` a line.

        AT is in epoch seconds and is when the answer leaves, the usual latency after the message was booked.
        """
        late = self._settings.latency_seconds
        asked = self._listing(request)
        if isinstance(asked, Answer):
            return asked
        if asked.channel == "wechat":
            rows = [f"{one.client_msg_id or '-'} {one.at + late:.4f}" for one in self.book.wechat_messages[asked.part]]
        else:
            rows = [f"{one.id or '-'} {one.at + late:.4f}" for one in self.book.sms_messages[asked.part]]
        return Answer("\n".join(rows).encode(), content_type=TEXT)

    def _get_seen(self, request: Request, _now: float) -> Answer:
        """What cardholders saw (`loadtest.providers.seen`), a message a line; one cardholder's with ``recipient``."""
        asked = self._listing(request)
        if isinstance(asked, Answer):
            return asked
        found = shown_on(self.book, asked.channel, asked.recipient, asked.part)
        return Answer(_encoder.encode_lines(found), content_type=NDJSON)

    def _post_users(self, request: Request, _now: float) -> Answer:
        if request.method != "POST":
            return _problem(405, "POST only")
        try:
            deed = msgspec.json.decode(request.body, type=UserDeed)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            return _problem(400, str(error))
        return Answer(b"{}") if self.wechat.users.do(deed) else _problem(507, f"more than {MAX_USERS} users")

    def _listing(self, request: Request) -> _Listing | Answer:
        """What is asked for, or the answer that refuses it."""
        if request.method != "GET":
            return _problem(405, "GET only")
        try:
            return msgspec.convert(
                {name: values[-1] for name, values in parse_qs(request.query, keep_blank_values=True).items()},
                _Listing,
                strict=False,
            )
        except msgspec.ValidationError as error:
            return _problem(400, str(error))

    def _post_faults(self, request: Request, _now: float) -> Answer:
        if request.method != "POST":
            return _problem(405, "POST only")
        try:
            faults = msgspec.json.decode(request.body, type=Faults)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            return _problem(400, str(error))
        before, self.faults = self.faults, faults
        return Answer(_encoder.encode(before))

    def _post_expire_token(self, request: Request, now: float) -> Answer:
        if request.method != "POST":
            return _problem(405, "POST only")
        self.wechat.expire_tokens(now)
        return Answer(b"{}")

    def _post_reset(self, request: Request, _now: float) -> Answer:
        if request.method != "POST":
            return _problem(405, "POST only")
        self.reset()
        return Answer(b"{}")


class _Listing(msgspec.Struct, forbid_unknown_fields=True):
    channel: Literal["wechat", "sms"] = "wechat"
    offset: Annotated[int, Meta(ge=0)] = 0
    limit: Annotated[int, Meta(ge=0)] = MAX_LISTED_MESSAGES
    recipient: str | None = None

    @property
    def part(self) -> slice:
        return slice(self.offset, self.offset + min(self.limit, MAX_LISTED_MESSAGES))


def _receipts(settings: ProviderSettings, book: Book) -> Receipts | None:
    reports = settings.receipts
    if reports is None:
        return None
    seal = None if reports.mode == "plain" else make_seal(reports.aes_key, settings.appid)
    return Receipts(reports, book, settings.seed, seal)


def _no_report(_message: WechatMessage | SmsMessage, _serial: str = "") -> None:
    pass


def _problem(status: int, text: str) -> Answer:
    return Answer(_encoder.encode({"error": text}), status=status)


async def serve_providers(
    settings: ProviderSettings,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    providers: Providers | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; the port that was bound is given to ``task_status``.

    For tests on the loopback interface: there is no access control but the providers' own. ``providers``
    serves one that the caller keeps an eye on. Cancelled, it closes every connection, answered or not, and
    closes the book's file with every acceptance in it. Raises ``OSError`` when the port is in use or the file
    cannot be written.
    """
    providers = Providers(settings) if providers is None else providers
    late = LateAnswers()
    providers.wechat.in_flight = late.__len__
    try:
        listeners = await trio.open_tcp_listeners(port, host=host)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_flush_every_second, providers.book)
            if providers.receipts is not None:
                nursery.start_soon(providers.receipts.run)
            task_status.started(listeners[0].socket.getsockname()[1])
            nursery.start_soon(late.run)
            await serve_http(lambda request: late.promise(providers.answer(request)), listeners, limits=LIMITS)
    finally:
        providers.book.close()


async def _flush_every_second(book: Book) -> None:
    while True:
        await trio.sleep(FLUSH_SECONDS)
        book.flush()
