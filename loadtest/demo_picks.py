"""Alerts of a demonstration that are worth showing, picked from the providers' own book."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import httpx
import msgspec

from dispatcher.events import Accepted, decode_event
from dispatcher.ledger.api import Ledger
from dispatcher.model.alert import Alert
from dispatcher.model.recipient import Recipient, RecipientLine
from loadtest.demo_screen import SmsSample, WechatSample
from loadtest.providers.book import Counts, SmsMessage, WechatMessage

FETCHED: Final = 1_000
"""Messages of a channel that are looked at: so many keep their text in the book."""
LINES_LOOKED_AT: Final = 200_000
"""Lines of the day in which their events are searched; the first messages belong to early lines."""
STORIES_READ: Final = 200
"""Most times that the ledger is asked whether a text message was a fallback."""

_Message = TypeVar("_Message", WechatMessage, SmsMessage)
_DIGITS = re.compile(r"[0-9]+")


class ProvidersBook(msgspec.Struct):
    """What the providers counted."""

    wechat: Counts
    sms: Counts


class Picks(msgspec.Struct):
    """``samples`` to show, and the ids of two events to explain: one fell back to SMS, of the other an answer was lost
    and asked for again."""

    samples: list[WechatSample | SmsSample] = []
    fell_back: str | None = None
    asked_again: str | None = None


async def read_book(client: httpx.AsyncClient) -> ProvidersBook:
    """The counters of both channels. Raises ``httpx.HTTPError``."""
    answer = await client.get("/_book")
    answer.raise_for_status()
    return msgspec.json.decode(answer.content, type=ProvidersBook)


async def pick(client: httpx.AsyncClient, ledger: Ledger, events: Path, recipients: Sequence[RecipientLine]) -> Picks:
    """Choose: a purchase abroad, a large one in English, a fallback to SMS. What there is none of is left out.

    Raises ``httpx.HTTPError``.
    """
    messages = await _messages(client, "wechat", WechatMessage)
    texts = await _messages(client, "sms", SmsMessage)
    picks = Picks(samples=[*pick_wechat([message.data for message in messages if message.data])])
    repeated = next((one.client_msg_id for one in messages if one.times_seen > 1), None)
    only_sms = {line.phone for line in recipients if line.openid is None}
    candidates = {message.id: message.text for message in texts if message.text and message.to not in only_sms}
    found = _events_of(events, recipients, candidates.keys() | {repeated})
    if repeated is not None:
        picks.asked_again = found.get(repeated)
    for key, text in islice(((key, text) for key, text in candidates.items() if key in found), STORIES_READ):
        if await _fell_back(ledger, found[key]):
            picks.fell_back = found[key]
            picks.samples.append(SmsSample(text, "WeChat refused"))
            break
    return picks


def pick_wechat(sent: Sequence[dict[str, str]]) -> list[WechatSample]:
    """A purchase abroad and the largest one, told in English if there is one. Fewer when there are fewer."""
    english = [data for data in sent if not _is_chinese(data)]
    chinese = [data for data in sent if _is_chinese(data)]
    abroad = [data for data in chinese if not data["amount2"].startswith("¥")]
    picked = []
    if chinese:
        why, data = ("abroad", max(abroad, key=_fullest)) if abroad else ("purchase", max(chinese, key=_largest))
        picked.append(WechatSample(data, False, why))
    if english:
        large = [data for data in english if data["amount2"].startswith("¥")] or english
        picked.append(WechatSample(max(large, key=_largest), True, "a large one"))
    return picked


def _is_chinese(data: dict[str, str]) -> bool:
    return data["thing1"].startswith("尾号")


def _is_plain(data: dict[str, str]) -> bool:
    # An ordinary purchase; of anything else the card's line says what it was.
    return data["thing1"].startswith("Card ") or (_is_chinese(data) and " " not in data["thing1"])


def _largest(data: dict[str, str]) -> tuple[bool, int]:
    return _is_plain(data), int("".join(_DIGITS.findall(data["amount2"])))


def _fullest(data: dict[str, str]) -> tuple[bool, int]:
    return _is_plain(data), len(data["thing5"])


async def _messages(client: httpx.AsyncClient, channel: str, kind: type[_Message]) -> list[_Message]:
    answer = await client.get("/_book/messages", params={"channel": channel, "limit": FETCHED})
    answer.raise_for_status()
    return msgspec.json.Decoder(kind).decode_lines(answer.content)


def _events_of(events: Path, recipients: Sequence[RecipientLine], keys: Container[str | None]) -> dict[str, str]:
    """The event id behind each of these alerts' keys. Blocks, for some tenths of a second."""
    told: dict[str, list[Recipient]] = {}
    for line in recipients:
        told.setdefault(line.account, []).append(Recipient(0, line.account, line.role))
    found: dict[str, str] = {}
    with events.open("rb") as file:
        for number, raw in enumerate(islice(file, LINES_LOOKED_AT)):
            decoded = decode_event(raw, number)
            if not isinstance(decoded, Accepted):
                continue
            for recipient in told.get(decoded.event.account, ()):
                # A provider knows an alert by its key alone; only the alert itself says how that is made.
                alert = Alert(0, decoded.event, recipient, (), 0, 0, "", None)
                if alert.key in keys:
                    found[alert.key] = decoded.event.id
    return found


async def _fell_back(ledger: Ledger, event_id: str) -> bool:
    story = await ledger.explain(event_id)
    return story is not None and any(
        alert.state == "delivered" and {attempt.channel for attempt in alert.attempts} == {"wechat", "sms"}
        for alert in story.alerts
    )
