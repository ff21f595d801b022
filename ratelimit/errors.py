"""What can go wrong in this package, and whose fault it is."""

from __future__ import annotations


class RulesError(ValueError):
    """The rule file's author's fault: the text cannot be put in force. The rules in force stay in force.

    One line that names the file, and as far as known the ``rule`` and the ``key``. Not for a defect of the
    rules' evaluation, which has no way to fail.
    """

    def __init__(self, source: str, message: str, *, rule: str | None = None, key: str | None = None) -> None:
        where = source if rule is None else f"{source}: rule {rule}"
        super().__init__(f"{where}: {message}" if key is None else f"{where}: {key}: {message}")
        self.source = source
        self.rule = rule
        self.key = key
