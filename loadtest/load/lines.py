"""Invented swipes as lines for the wire, made by the batch: 2 µs each, so that the generator leaves the cores alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from random import Random
from typing import Final

import msgspec
import orjson

from loadtest.merchants import ABROAD, AT_HOME
from loadtest.traffic import ACCOUNT_ZIPF, SHARE_ABROAD

MAX_ACCOUNTS: Final = 10_000_000

TAILS: Final = 4096
"""Prepared ends of lines (merchant, amount, …): as many as make two swipes of one account look different."""

ZONE: Final = timezone(timedelta(hours=8))
ROLE: Final = "primary"
"""The role of the recipients that ``dispatcher.synth`` invents: a part of an alert's key."""


class Chunk(msgspec.Struct, gc=False):
    """Lines on their way: the events from number ``first`` on, ``count`` of them, as NDJSON. ``again``: they were sent
    before, and some may have been accepted."""

    first: int
    count: int
    body: bytes
    again: bool = False


class Accounts:
    """Which account an event belongs to: rank n of them with the weight 1 / n ** ``ACCOUNT_ZIPF``, by seed.

    Drawn by the inverse of the continuous distribution, which needs no table of ten million weights.
    """

    def __init__(self, seed: int, count: int) -> None:
        self._seed = seed
        self._count = count
        self._random = Random(f"accounts/{seed}").random  # noqa: S311 - repeatable is the point
        self._power = 1.0 / (1.0 - ACCOUNT_ZIPF)

    def draw(self) -> int:
        """The next event's account, by its rank from 0."""
        return int(self._count * self._random() ** self._power)

    def name(self, rank: int) -> str:
        """What the account is called."""
        return f"L{self._seed}-{rank:08}"


def drawn_accounts(seed: int, count: int, events: int) -> Iterator[str]:
    """The accounts that the first ``events`` events of this seed belong to, each once."""
    accounts = Accounts(seed, count)
    seen = bytearray(count)
    for _ in range(events):
        rank = accounts.draw()
        if not seen[rank]:
            seen[rank] = 1
            yield accounts.name(rank)


def alert_key(account: bytes, event_id: bytes) -> str:
    """`Alert.key` of the event's primary recipient."""
    return hashlib.blake2b(b"%b\0primary\0%b" % (account, event_id), digest_size=16).hexdigest()


class Stamps:
    """Epoch seconds as the text of an event's ``time``, to the millisecond."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def text(self, at: float) -> bytes:
        """RFC 3339 with the zone of China."""
        milliseconds = int(at * 1000)
        second, rest = divmod(milliseconds, 1000)
        if second != self._second:
            self._second = second
            self._text = datetime.fromtimestamp(second, ZONE).strftime("%Y-%m-%dT%H:%M:%S")
        return b"%b.%03d+08:00" % (self._text.encode(), rest)


class SwipeLines:
    """Builds the lines of events by number, strictly one after the other.

    ``run`` sets the ids of this run apart from those of every other, so that a second run against the same engine does
    not consist of duplicates.
    """

    def __init__(self, *, seed: int, accounts: int, run: str) -> None:
        self._accounts = Accounts(seed, accounts)
        self._head = b"L%d-" % seed
        self._id = f"load-{seed}-{run}-".encode()
        self._stamps = Stamps()
        self._tails = _tails(seed)

    def build(self, first: int, times: Sequence[float], epoch: float) -> tuple[bytes, list[str]]:
        """The lines from number ``first`` on and their alert keys. ``times`` are seconds after ``epoch``."""
        draw, stamp, tails, head, own = self._accounts.draw, self._stamps.text, self._tails, self._head, self._id
        blake2b = hashlib.blake2b
        lines: list[bytes] = []
        keys: list[str] = []
        for number, at in enumerate(times, first):
            rank = draw()
            account = b"%b%08d" % (head, rank)
            event_id = b"%b%09d" % (own, number)
            keys.append(blake2b(b"%b\0primary\0%b" % (account, event_id), digest_size=16).hexdigest())
            lines.append(
                b'{"id":"%b","account":"%b","pan":"************%04d","time":"%b",%b'
                % (event_id, account, rank % 10_000, stamp(epoch + at), tails[number % TAILS])
            )
        return b"".join(lines), keys

    def event_id(self, number: int) -> str:
        """The id of an event, for the ledger."""
        return f"{self._id.decode()}{number:09}"


def _tails(seed: int) -> list[bytes]:
    random = Random(f"swipes/{seed}")  # noqa: S311 - repeatable is the point
    tails = []
    for _ in range(TAILS):
        merchant = random.choice(ABROAD if random.random() < SHARE_ABROAD else AT_HOME)
        swipe = {
            "amount": max(1, round(random.lognormvariate(0.0, merchant.sigma) * merchant.median)),
            "currency": merchant.currency,
            "merchant": merchant.name,
            "mcc": merchant.mcc,
            "city": merchant.city,
            "country": merchant.country,
            "type": "purchase",
        }
        tails.append(orjson.dumps(swipe)[1:] + b"\n")
    return tails
