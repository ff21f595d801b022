"""A folder that one run at a time may take for its configuration, its ledger and its logs, and that stays its own."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dispatcher.errors import ConfigurationError

CONFIG_NAME = "swipebell.toml"
LEDGER_NAME = "ledger.db"


@contextmanager
def claimed_folder(folder: Path, *, mark: str, command: str, run: str) -> Iterator[None]:
    """Take a folder for one run and remove what an earlier one has left of its ledger.

    ``mark`` is the first line of the configurations that ``command`` writes: a folder whose configuration does not
    begin with it belongs to somebody, and nothing in it is touched. ``run`` says in errors what it is taken for
    ("demonstration"). Raises ``ConfigurationError`` for such a folder, when another run is in it, and when it cannot be
    written.
    """
    config, ledger = folder / CONFIG_NAME, folder / LEDGER_NAME
    with told_as_ours(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(f"--dir {folder}: another {run} runs there; name another folder") from None
        if (config.exists() or ledger.exists()) and not _begins_with(config, mark):
            raise ConfigurationError(
                f"--dir {folder}: holds a configuration or a ledger that `{command}` did not write, and the {run}"
                " would overwrite it; name another folder"
            )
        with told_as_ours(folder):
            # First the mark, so that an interrupted run leaves a folder that the next one knows for its own.
            write_private(config, mark + "\n")
            for suffix in ("", "-wal", "-shm", ".owners"):
                ledger.with_name(ledger.name + suffix).unlink(missing_ok=True)
        yield
    finally:
        os.close(lock)


def _begins_with(config: Path, mark: str) -> bool:
    try:
        with config.open("rb") as file:
            return file.read(len(mark.encode())) == mark.encode()
    except OSError:
        return False


@contextmanager
def told_as_ours(folder: Path) -> Iterator[None]:
    """What the system refuses inside is said as a fault of ``--dir``."""
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"--dir {folder}: {error.strerror}; name a folder that can be written") from None


def private_file(path: Path) -> BinaryIO:
    """A new or emptied file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)  # it may have been there before, with other rights
    return os.fdopen(descriptor, "wb")


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    with private_file(path) as file:
        file.write(text.encode())
