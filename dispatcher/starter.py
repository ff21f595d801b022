"""What ``swipebell init DIR`` writes: an annotated configuration, rules and a template to start from."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path

from dispatcher.errors import ConfigurationError

PRIVATE_FOLDER_MODE = 0o700
"""Secrets will be put there; the files in it are the operator's to write."""


def starter_files() -> dict[str, str]:
    """The text of each file, by its path relative to the folder; copies of what the packages ship."""
    ours = resources.files("dispatcher").joinpath("config_files")
    return {
        "swipebell.toml": ours.joinpath("swipebell.toml").read_text("utf-8"),
        "rules.toml": resources.files("ratelimit").joinpath("default_rules.toml").read_text("utf-8"),
        "templates/swipe/template.toml": (
            resources.files("templates").joinpath("library", "swipe", "template.toml").read_text("utf-8")
        ),
        "secrets/README": ours.joinpath("secrets_readme.txt").read_text("utf-8"),
    }


def write_starter(directory: Path, *, force: bool = False) -> list[Path]:
    """Writes the starter files below ``directory``, which is made if need be; returns their paths.

    Without ``force`` nothing is written when one of them exists already. Raises ConfigurationError.
    """
    files = {directory / name: text for name, text in starter_files().items()}
    there = [str(path.relative_to(directory)) for path in files if os.path.lexists(path)]
    if there and not force:
        raise ConfigurationError(
            f"{directory}: {', '.join(there)} would be overwritten, so nothing was written; "
            "name another folder or say --force"
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "secrets").mkdir(mode=PRIVATE_FOLDER_MODE, exist_ok=True)
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    except (FileExistsError, NotADirectoryError) as error:
        raise ConfigurationError(f"{error.filename}: is not a folder; name another one") from None
    except OSError as error:
        raise ConfigurationError(f"{error.filename or directory}: cannot be written: {error.strerror}") from None
    return list(files)
