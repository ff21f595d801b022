"""``python -m dispatcher`` is the ``swipebell`` command."""

from dispatcher.cli import main

main()
