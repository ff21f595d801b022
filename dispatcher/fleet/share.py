"""One process's part of what a configuration allows the whole fleet: its connections.

The rates are not divided here: the processes share them by leases, as they need them (`dispatcher.rates`).
"""

from __future__ import annotations

from msgspec.structs import replace

from dispatcher.config import Config
from dispatcher.errors import ConfigurationError

MAX_PROCESSES = 64
"""Each wants a core of its own and has the one ledger to write to; a larger number is a slip of the finger."""


def check_processes(config: Config, processes: int) -> None:
    """Raises `ConfigurationError` when a channel allows less than one connection a process."""
    for name, section in config.channels.configured().items():
        allowed = section.connections
        if allowed < processes:
            raise ConfigurationError(
                f"--processes {processes}: channels.{name}.connections is {allowed}, which cannot be shared by so many;"
                f" say --processes {allowed} at most"
            )


def share_of(config: Config, index: int, processes: int) -> Config:
    """The configuration of process ``index`` (from 0): its part of every channel's connections.

    A provider counts what the whole account opens, and does not care by how many processes. The parts sum up to the
    whole.
    """
    parts = {
        name: replace(section, connections=_part(section.connections, index, processes))
        for name, section in config.channels.configured().items()
    }
    return replace(config, channels=replace(config.channels, **parts))


def _part(whole: int, index: int, processes: int) -> int:
    return whole // processes + (index < whole % processes)
