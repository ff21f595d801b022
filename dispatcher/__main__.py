"""``python -m dispatcher``, and the console script ``swipebell``."""

from __future__ import annotations

import os
import signal
import sys


def start() -> None:
    """Run the command line. Imported late, so that Ctrl-C during the imports (half a second) shows no traceback."""
    try:
        # An exception raised in the middle of an import may be swallowed by it. Nothing is open yet, so leave at once.
        before = signal.signal(signal.SIGINT, lambda *_: os._exit(130))
        from dispatcher.cli.main import main

        signal.signal(signal.SIGINT, before)
    except KeyboardInterrupt:
        sys.exit(130)
    main()


if __name__ == "__main__":
    start()
