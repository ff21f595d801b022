"""Settings of the simulated providers."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec

from dispatcher.model.private import Secret
from loadtest.providers.errors import SettingsTextError
from loadtest.providers.faults import Faults, parse_numbers
from loadtest.providers.sealing import Mode

DEFAULT_APPID: Final = "wxsimulated000000"
DEFAULT_SECRET: Final = Secret("simulated-secret")

STATUSES: Final = {
    "success": "success",
    "user-block": "failed:user block",
    "system-failed": "failed: system failed",  # the space is WeChat's own
    "freq-limit": "failed:freq limit",
}
"""Our name for a delivery report's status, and the text that WeChat sends (providers.md section 3)."""


DuplicateAnswer = Literal["first", "new", "zero"]


class ReceiptSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Delivery reports: where they are posted, when, and how faithfully.

    ``lost`` and ``duplicated`` are probabilities; ``weights`` gives the share of each status by the names of
    ``STATUSES`` (an SMS is ``failed`` with the weight of all but ``success``). ``mode`` is how WeChat's events come;
    compat and safe need the account's EncodingAESKey as ``aes_key``.
    """

    wechat_url: str | None = None
    sms_url: str | None = None
    token: Secret = Secret("simulated-token")
    earliest_seconds: float = 0.2
    latest_seconds: float = 5.0
    lost: float = 0.0
    duplicated: float = 0.0
    weights: dict[str, float] = msgspec.field(default_factory=lambda: {"success": 1.0})
    mode: Mode = "plain"
    aes_key: Secret | None = None
    max_pending: int = 400_000
    """Reports that wait for their time or a slow receiver: a day of the pilot. More are counted as lost."""


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the simulated providers are told at their start. Times in seconds; rates in requests a second.

    ``rate_per_second`` 0 is unlimited, ``daily_quota`` None too, and with no ``template_ids`` any non-empty
    one is good. ``keep_bodies`` is how many messages of a channel keep their rendered text in the book.
    ``sms_windows``: Aliyun's and Tencent's gateways keep their limits for one number (the generic one has none).

    ``duplicate_answer`` is what a message gets that WeChat has had within ten minutes, which is not documented
    (providers.md section 2.1): ``first`` the msgid of the first, ``new`` one of its own, which no event will name,
    ``zero`` the first one's, while the events of all messages with a ``client_msg_id`` name msgid 0.
    ``same_content``: the same words to the same user within a minute get 40241 (section 2.4).
    """

    appid: str = DEFAULT_APPID
    secret: Secret = DEFAULT_SECRET
    sms_secret: Secret = DEFAULT_SECRET
    rate_per_second: float = 0.0
    daily_quota: int | None = None
    template_ids: frozenset[str] = frozenset()
    banned_template_ids: frozenset[str] = frozenset()
    duplicate_answer: DuplicateAnswer = "first"
    same_content: bool = False
    latency_seconds: float = 0.0
    token_lifetime_seconds: int = 7200
    faults: Faults = Faults()
    seed: int = 0
    book_file: Path | None = None
    keep_bodies: int = 1000
    sms_windows: bool = True
    receipts: ReceiptSettings | None = None


def parse_weights(text: str) -> dict[str, float]:
    """Weights of the delivery statuses from ``success=97,user-block=3``; raises ``SettingsTextError``."""
    weights = parse_numbers(text, dict.fromkeys(STATUSES, 1e9), what="status")
    if not sum(weights.values()) > 0.0:
        raise SettingsTextError(f"no status has a weight; known are {', '.join(STATUSES)}")
    return weights
