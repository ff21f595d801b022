"""All that can be measured, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from loadtest.bench.backlog import Backlog
from loadtest.bench.contest import Contestant
from loadtest.bench.full import BankLedger, EmptyLedger
from loadtest.bench.intake import Intake, post_batches, post_singly, stream
from loadtest.bench.latency import HalfLoad, IntoProviders, LoneSwipes
from loadtest.bench.renderings import Renderings
from loadtest.bench.rule_files import BEFORE
from loadtest.bench.rules import Rulings
from loadtest.bench.sends import FEW_RULES, ONE_PROCESS, TWO_PROCESSES, RawNetwork, Send
from loadtest.bench.stages import Stages


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """``heavy``: takes minutes, so only where it is asked for. ``alone``: its contestants take turns among themselves
    and not with those of the others. ``once``: one round is enough."""

    what: str
    contestants: Callable[[], Sequence[Contestant]]
    heavy: bool = False
    alone: bool = False
    once: bool = False


SCENARIOS: Final[dict[str, Scenario]] = {
    "raw": Scenario(what="the network alone, a fixed body", contestants=lambda: [RawNetwork()]),
    "one": Scenario(what="one process", contestants=lambda: [Send(ONE_PROCESS, 1)]),
    "two": Scenario(what="two processes", contestants=lambda: [Send(TWO_PROCESSES, 2, base=ONE_PROCESS)]),
    "tls": Scenario(
        what="one process, the sink speaks TLS 1.3",
        contestants=lambda: [Send("one process, TLS", 1, base=ONE_PROCESS, tls=True)],
    ),
    "receipts": Scenario(
        what="every message is reported over HTTP in the same run",
        contestants=lambda: [
            Send("one process, receipts over HTTP", 1, base=ONE_PROCESS, receipts=True),
            Send("two processes, receipts over HTTP", 2, base=TWO_PROCESSES, receipts=True),
        ],
    ),
    "faults": Scenario(
        what="one answer in a hundred is busy, a bad gateway, or lost",
        contestants=lambda: [Send("one process, 1 % faults", 1, base=ONE_PROCESS, answers="one-percent")],
    ),
    "http": Scenario(
        what="intake over HTTP, 200 lines a post and one",
        contestants=lambda: [
            Intake("intake over HTTP, 200 lines a post", post_batches),
            Intake("intake over HTTP, one line a post", post_singly, single=True),
        ],
    ),
    "stream": Scenario(
        what="intake over one stream connection", contestants=lambda: [Intake("intake over the stream", stream)]
    ),
    "latency": Scenario(
        what="at half load, into simulated providers, and lone swipes",
        contestants=lambda: [LoneSwipes(), HalfLoad(), IntoProviders()],
        alone=True,
        once=True,
    ),
    "stages": Scenario(what="each stage alone", contestants=lambda: [Stages()], alone=True, once=True),
    "rules": Scenario(
        what="the send rules: their own time, and what the shipped ones take of the engine's throughput",
        contestants=lambda: [
            Rulings(),
            Send(FEW_RULES, 1, rules=BEFORE),
            Send("one process, the shipped rules", 1, base=FEW_RULES),
        ],
        alone=True,
    ),
    "render": Scenario(
        what="a message of each channel, of the swipe and of the dearest template, and each filter",
        contestants=lambda: [Renderings()],
        alone=True,
        once=True,
    ),
    "full": Scenario(
        what="a ledger with 1.2 million recipients and 10 million past alerts, beside an empty one",
        contestants=lambda: [BankLedger(2, full=False), BankLedger(2, full=True), EmptyLedger(2)],
        heavy=True,
        alone=True,
    ),
    "backlog": Scenario(
        what="memory while a million alerts wait",
        contestants=lambda: [Backlog("a provider that is busy, two processes")],
        heavy=True,
        alone=True,
        once=True,
    ),
}


def choose(only: Sequence[str], everything: bool) -> list[str]:
    """The names to run, in the order of ``SCENARIOS``."""
    if only:
        return [name for name in SCENARIOS if name in only]
    return [name for name, scenario in SCENARIOS.items() if everything or not scenario.heavy]
