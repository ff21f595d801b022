"""What the demonstration stands on: its folder, its configuration, its cardholders and the simulated providers."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from dispatcher.model.recipient import RecipientLine
from dispatcher.synth import synthesize
from loadtest import children
from loadtest.folder import CONFIG_NAME, LEDGER_NAME, claimed_folder, private_file, told_as_ours, write_private
from loadtest.providers.settings import DEFAULT_APPID, DEFAULT_SECRET

FAULTS: Final = (
    "busy=0.01,bad_gateway=0.003,reset=0.004,slow=0.004,slow_seconds=0.3"  # each a share of the requests
    ",unsubscribed=0.02,refused=0.01"  # of the users
)
"""No quota fault: it lasts until midnight, and the demonstration has to end."""

LATENCY_S: Final = 0.004
SMS_SIGN: Final = "示例银行"

MARK: Final = "# Written by `swipebell demo`, and written anew by the next one in this folder."
"""First line of our configuration: without it a folder belongs to somebody, and nothing in it is touched."""

SHARE_UNKNOWN: Final = 0.03
SHARE_SMS_ONLY: Final = 0.05
SHARE_TWO_CARDS: Final = 0.08
"""Of the accounts: nobody to tell; a recipient without WeChat; a second cardholder. All others have one recipient who
is reached by WeChat first and by SMS."""

_CONFIG: Final = """\
{mark}
# Simulated providers listened at {url} while it ran.

[ledger]
url = "sqlite:///ledger.db"

[rules]
file = "rules.toml"

[channels.wechat]
appid = "{appid}"
secret_file = "secret"
base_url = "{url}"
rate_per_second = 50000
daily_quota = 1000000000
connections = 64

[channels.sms]
base_url = "{url}/sms"
secret_file = "secret"
sign = "{sign}"
rate_per_second = 5000
connections = 16

[engine]
# Small lanes: as fast as the file is read, what waits in them is the latency.
batch_events = 128
lane_capacity = 512
in_flight = 256

[retry]
# Short, so that the demonstration ends quickly; the default begins at half a second.
base_seconds = 0.15
cap_seconds = 2.0

[log]
level = "error"
"""

_RULES: Final = """\
# The rules of the demonstration: the shipped ones, but a swipe of yesterday is not yet too old to be told.

version = 1

[[rule]]
id = "sms-from-100"
effect = "min_amount"
channel = "sms"
amounts = { CNY = 10000 }

[[rule]]
id = "swipe-expiry"
effect = "expire_after"
category = "swipe"
hours = 72
"""


class World:
    """The folder of a demonstration; made by ``open_world``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / CONFIG_NAME
        self.events = folder / "events.ndjson"
        self.ledger = folder / LEDGER_NAME
        self.log = folder / "providers.log"

    def prepare(self, url: str) -> Path:
        """Write the configuration for providers at ``url``; returns its path."""
        with told_as_ours(self.folder):
            write_private(self.folder / "secret", DEFAULT_SECRET.reveal())
            write_private(self.folder / "rules.toml", _RULES)
            write_private(self.config, _CONFIG.format(mark=MARK, url=url, appid=DEFAULT_APPID, sign=SMS_SIGN))
        return self.config

    def write_events(self, lines: Iterator[bytes]) -> None:
        """Write the day's lines to ``events``. Blocks."""
        # Some of the lines hold (invented) full card numbers, as a careless core system's would.
        with told_as_ours(self.folder), private_file(self.events) as file:
            file.writelines(lines)


@contextmanager
def open_world(folder: Path) -> Iterator[World]:
    """Take a folder for one demonstration and remove what an earlier one has left of its ledger.

    Raises ``ConfigurationError`` when it holds a configuration or a ledger that no demonstration wrote (nothing is
    touched then), when another demonstration runs in it, and when it cannot be written.
    """
    with claimed_folder(folder, mark=MARK, command="swipebell demo", run="demonstration"):
        yield World(folder)


def invent_recipients(accounts: Sequence[str], seed: int) -> list[RecipientLine]:
    """Who is told about the swipes of these accounts; the same for the same seed."""
    lines = []
    for account in accounts:
        digest = hashlib.blake2b(f"{seed}/mix/{account}".encode(), digest_size=8).digest()
        draw = int.from_bytes(digest, "big") / 2**64
        if draw < SHARE_UNKNOWN:
            continue
        line = synthesize(account, seed)
        if draw < SHARE_UNKNOWN + SHARE_SMS_ONLY:
            line = msgspec.structs.replace(line, openid=None, channels=("sms",))
        lines.append(line)
        if draw >= 1.0 - SHARE_TWO_CARDS:
            other = synthesize(f"{account}/supplementary", seed)
            lines.append(msgspec.structs.replace(other, account=account, role="supplementary"))
    return lines


@asynccontextmanager
async def running_providers(world: World, seed: int, faults: str = FAULTS) -> AsyncIterator[str]:
    """The simulated providers as a process of their own, with these faults; gives their URL.

    They are stopped on leaving, whatever happens; see `loadtest.children.running_providers`.
    """
    with told_as_ours(world.folder):
        log = private_file(world.log)
    options = ["--faults", faults, "--latency", str(LATENCY_S), "--seed", str(seed)]
    with log:
        async with children.running_providers(log, world.log, options) as url:
            yield url
