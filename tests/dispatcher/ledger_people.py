"""What the stateful test of the ledger knows of rules that hold, and of people who release or discard what is held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from dispatcher.ledger.worker import InlineLedger
from tests.dispatcher.ledger_kit import Tell
from tests.dispatcher.ledger_model import EXPIRES, HOLDS, Modelled


class Holds:
    """Rules that hold for some time or until a person decides, and that person."""

    alerts: dict[int, Modelled]
    ledger: InlineLedger
    now: int
    _ask: Callable[..., Any]

    def _decide(self, first: str) -> Tell:
        if first not in HOLDS:
            return Tell("queued" if first == "queued" else "sending", expires_ms=EXPIRES)
        return Tell("held", reason=first, expires_ms=EXPIRES, due_ms=self._held_until(first))

    def _held_until(self, rule: str) -> int:
        ms = HOLDS[rule]
        return EXPIRES if ms is None else self.now + ms

    @rule(who=st.sampled_from(["ada", "bo"]), rule_id=st.sampled_from([*HOLDS]), act=st.sampled_from(["let go", "end"]))
    def somebody_decides(self, who: str, rule_id: str, act: str) -> None:
        kept = {
            alert_id: one
            for alert_id, one in sorted(self.alerts.items())
            if one.state == "held" and one.held_by == rule_id
        }
        view = self._ask(self.ledger.held, rule_id).rules
        assert [(one.rule, one.alerts, one.up_to) for one in view] == (
            [(rule_id, len(kept), max(kept))] if kept else []
        )
        if not kept:
            return
        waiting = {alert_id for alert_id, one in kept.items() if one.due == EXPIRES}
        assert view[0].waiting == len(waiting)
        if act == "let go":
            assert self._ask(self.ledger.release_held, rule_id, self.now, who, max(kept)) == len(waiting)
            assert self._ask(self.ledger.release_held, rule_id, self.now, who, max(kept)) == 0
            for alert_id in waiting:
                kept[alert_id].due = self.now
            return
        assert self._ask(self.ledger.discard_held, rule_id, self.now, who, max(kept)) == len(kept)
        for one in kept.values():
            one.state, one.due, one.ended = "cancelled", None, True
