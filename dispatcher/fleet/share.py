"""One process's part of what a configuration allows the whole fleet: its connections.

The rates are not divided here: the processes share them by leases, as they need them (`dispatcher.rates`).
"""

from __future__ import annotations

from typing import TypeVar

from msgspec.structs import replace

from dispatcher.config import Config
from dispatcher.config_channels import ChannelSection, SecondSmsVendor, SmsConfig
from dispatcher.errors import ConfigurationError

_Section = TypeVar("_Section", bound=ChannelSection)

MAX_PROCESSES = 64
"""Each wants a core of its own and has the one ledger to write to; a larger number is a slip of the finger."""


def check_processes(config: Config, processes: int) -> None:
    """Raises `ConfigurationError` when a channel allows less than one connection a process (or, where it is divided,
    one request a second)."""
    for name, section in config.channels.accounts().items():
        divided = ("connections", "rate_per_second") if isinstance(section, SecondSmsVendor) else ("connections",)
        for key in divided:
            allowed = getattr(section, key)
            if allowed < processes:
                raise ConfigurationError(
                    f"--processes {processes}: channels.{name}.{key} is {allowed}, which cannot be shared by so many;"
                    f" say --processes {allowed} at most"
                )


def share_of(config: Config, index: int, processes: int) -> Config:
    """The configuration of process ``index`` (from 0): its part of every channel's connections.

    A provider counts what the whole account opens, and does not care by how many processes. The parts sum up to the
    whole.
    """
    parts = {name: _share_of(section, index, processes) for name, section in config.channels.configured().items()}
    return replace(config, channels=replace(config.channels, **parts))


def _share_of(section: _Section, index: int, processes: int) -> _Section:
    share = replace(section, connections=_part(section.connections, index, processes))
    if isinstance(share, SmsConfig) and share.second is not None:
        # The second vendor's rate bounds its part of the channel in each process, and no lease is taken for it.
        rate = _part(share.second.rate_per_second, index, processes)
        return replace(share, second=replace(_share_of(share.second, index, processes), rate_per_second=rate))
    return share


def _part(whole: int, index: int, processes: int) -> int:
    return whole // processes + (index < whole % processes)
