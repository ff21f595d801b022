"""One process's share of what a configuration allows the whole fleet."""

from __future__ import annotations

from typing import TypeVar

from msgspec.structs import replace

from dispatcher.config import Config
from dispatcher.config_channels import ChannelSection, SmsConfig
from dispatcher.errors import ConfigurationError

_Section = TypeVar("_Section", bound=ChannelSection)

MAX_PROCESSES = 64
"""Each wants a core of its own and has the one ledger to write to; a larger number is a slip of the finger."""


def check_processes(config: Config, processes: int) -> None:
    """Raises `ConfigurationError` when a channel allows less than one request a second, or connection, a process."""
    for name, section in config.channels.accounts().items():
        for key in ("rate_per_second", "connections"):
            allowed = getattr(section, key)
            if allowed < processes:
                raise ConfigurationError(
                    f"--processes {processes}: channels.{name}.{key} is {allowed}, which cannot be shared by so many; "
                    f"say --processes {allowed} at most"
                )


def share_of(config: Config, index: int, processes: int) -> Config:
    """The configuration of process ``index`` (from 0): its part of every channel's rate and connections.

    A provider counts what the whole account sends, and does not care by how many processes. The parts sum up to the
    whole.
    """
    parts = {name: _share_of(section, index, processes) for name, section in config.channels.configured().items()}
    return replace(config, channels=replace(config.channels, **parts))


def _share_of(section: _Section, index: int, processes: int) -> _Section:
    share = replace(
        section,
        rate_per_second=_part(section.rate_per_second, index, processes),
        connections=_part(section.connections, index, processes),
    )
    if isinstance(share, SmsConfig) and share.second is not None:
        return replace(share, second=_share_of(share.second, index, processes))
    return share


def _part(whole: int, index: int, processes: int) -> int:
    return whole // processes + (index < whole % processes)
