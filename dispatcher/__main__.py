"""``python -m dispatcher``, and the console script ``swipebell``."""

from __future__ import annotations

import sys


def start() -> None:
    """Run the command line. Imported late, so that Ctrl-C during the imports (half a second) shows no traceback."""
    try:
        from dispatcher.cli.main import main
    except KeyboardInterrupt:
        sys.exit(130)
    main()


if __name__ == "__main__":
    start()
