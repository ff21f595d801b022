"""Customer-service messages of the simulated WeChat: the windows that users open, and what is sent into them.

The rule and its codes are from providers.md section 4.2: a message of the user allows 5 in 48 hours, a menu click, a
follow or a scan 3 in a minute. Which of several open windows a message counts against is not established; here it is
the one that closes first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from dispatcher.httpd import Answer, Request
from dispatcher.model.heard import WINDOW_MS, Kind

CUSTOM_PATH: Final = "/cgi-bin/message/custom/send"

ALLOWED: Final[dict[Kind, int]] = {"message": 5, "tap": 3, "follow": 3, "scan": 3}
"""How many messages each deed allows."""

MAX_KEPT: Final = 10_000
"""Messages that are kept to be looked at; later ones are only counted."""
MAX_USERS: Final = 100_000
"""Users whose windows are remembered; beyond it the oldest are forgotten, and their windows closed."""


class _Text(msgspec.Struct, frozen=True):
    content: str = ""


class _Article(msgspec.Struct, frozen=True):
    title: str = ""
    description: str = ""
    url: str = ""
    picurl: str = ""


class _News(msgspec.Struct, frozen=True):
    articles: tuple[_Article, ...] = ()


class ServiceMessage(msgspec.Struct):
    """One message that a user saw; it prints as its class only."""

    touser: str = ""
    msgtype: str = ""
    text: _Text = _Text()
    news: _News = _News()

    def __repr__(self) -> str:
        return "<ServiceMessage ****>"


class _Window:
    __slots__ = ("left", "until")

    def __init__(self, until: float, left: int) -> None:
        self.until = until
        self.left = left


class ServiceMessages:
    """``error`` makes WeChat's answer of a code; ``verdict`` gives the code of a request's token, 0 for a good one."""

    def __init__(self, error: Callable[[int, float], Answer], verdict: Callable[[Request, float], int]) -> None:
        self._error = error
        self._verdict_of_token = verdict
        self.reset()

    def reset(self) -> None:
        """Nobody has done anything, and nothing was sent."""
        self._windows: dict[str, list[_Window]] = {}
        self.seen: list[ServiceMessage] = []
        self.accepted = 0
        self.refused: dict[int, int] = {}

    def heard(self, openid: str, kind: Kind, now: float) -> None:
        """A user did something. An unfollow closes every window."""
        windows = self._windows.pop(openid, [])
        if kind != "unfollow":
            windows = [one for one in windows if one.until > now]
            self._windows[openid] = [*windows, _Window(now + WINDOW_MS[kind] / 1000, ALLOWED[kind])]
        if len(self._windows) > MAX_USERS:
            self._windows.pop(next(iter(self._windows)))

    def send(self, request: Request, now: float) -> Answer:
        """``/cgi-bin/message/custom/send``."""
        code, message = self._verdict(request, now)
        if code or message is None:
            self.refused[code] = self.refused.get(code, 0) + 1
            return self._error(code, now)
        self.accepted += 1
        if len(self.seen) < MAX_KEPT:
            self.seen.append(message)
        return Answer(b'{"errcode":0,"errmsg":"ok"}')

    def _verdict(self, request: Request, now: float) -> tuple[int, ServiceMessage | None]:
        if request.method != "POST":
            return 43002, None
        if code := self._verdict_of_token(request, now):
            return code, None
        if not request.body:
            return 44002, None
        try:
            message = msgspec.json.decode(request.body, type=ServiceMessage)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return 47001, None
        if not message.touser:
            return 40003, None
        filled = message.text.content if message.msgtype == "text" else len(message.news.articles) == 1
        if message.msgtype not in ("text", "news") or not filled:
            return 47001, None
        windows = sorted(
            (one for one in self._windows.get(message.touser, ()) if one.until > now), key=lambda one: one.until
        )
        if not windows:
            return 45015, None
        window = next((one for one in windows if one.left > 0), None)
        if window is None:
            return 45047, None
        window.left -= 1
        return 0, message
