"""Files that change while somebody watches them."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

_moments = itertools.count(1_800_000_000_000_000_000, 1_000_000_000)


def write(path: Path, text: str) -> None:
    """Write the file, a second later than the time before: the file system's clock stands still for milliseconds, and
    within them another text of the same length would look like the same state."""
    path.write_text(text)
    moment = next(_moments)
    os.utime(path, ns=(moment, moment))
