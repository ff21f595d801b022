"""What the stateful test of the ledger knows of receipts and reversals, in terms of plain dictionaries."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dispatcher.events import Accepted
from dispatcher.model.alert import ALERT_ID_BITS, State
from tests.dispatcher.ledger_model import REVERSALS, Modelled


class Words:
    """What providers have said: ``tries`` and their ``messages`` by (alert, number, owner), ``words`` by (channel,
    message)."""

    alerts: dict[int, Modelled]
    tries: dict[tuple[int, int, int], tuple[str, str, str]]
    messages: dict[tuple[int, int, int], str | None]
    words: dict[tuple[str, str], dict[str, int]]

    def _word(self, alert_id: int) -> str | None:
        """What is known of an alert: a success wherever it was said, before a failure."""
        own = self._own_word(alert_id)
        return own if own == "delivered" else self._late_success(alert_id) or own

    def _late_success(self, alert_id: int) -> str | None:
        """The success of the first channel that the alert has left and that has one."""
        channel = self.alerts[alert_id].channel
        return next(
            (
                f"delivered:{told[0]}"
                for key, told in sorted(self.tries.items())
                if key[0] == alert_id and told[0] != channel and "delivered" in self._said(told[0], self.messages[key])
            ),
            None,
        )

    def _said(self, channel: str, msgid: str | None) -> dict[str, int]:
        return self.words.get((channel, msgid or ""), {})

    def _doubles(self) -> int:
        """Alerts that one channel delivered while a later one rang, or may have, and has not said that it failed."""

        def rang(alert_id: int, channel: str) -> bool:
            one = self.alerts[alert_id]
            return one.state == "sending" or any(
                told[1] in ("accepted", "unknown")
                and not any(status.startswith("failed") for status in self._said(told[0], self.messages[key]))
                for key, told in self.tries.items()
                # By the route: a process that had lost its lease may say something later of a channel left behind.
                if key[0] == alert_id and one.route.index(told[0]) > one.route.index(channel)
            )

        return len(
            {
                key[0]
                for key, told in self.tries.items()
                if told[0] != self.alerts[key[0]].channel
                and "delivered" in self._said(told[0], self.messages[key])
                and rang(key[0], told[0])
            }
        )

    def _own_word(self, alert_id: int) -> str | None:
        """The last word of the present channel; of several at one moment the better."""
        one = self.alerts[alert_id]
        said = self.words.get((one.channel, one.msgid or ""), {})
        return min(said, key=lambda status: (-said[status], status), default=None)


class Reversals:
    """What reversals take back: ``early`` by the event that was still to come."""

    alerts: dict[int, Modelled]
    events: dict[str, Accepted]
    tries: dict[tuple[int, int, int], tuple[str, str, str]]
    early: dict[str, str]

    def _reverse(self, fresh: dict[str, Accepted], seqs: dict[str, int]) -> set[int]:
        """Take back what the reversals among the new events take back, and what one had taken back before it came."""
        ended: set[int] = set()
        for event_id in fresh:
            if self.early.pop(event_id, None) is not None and fresh[event_id].event.amount == 1:
                ended |= self._end(seqs[event_id], "cancelled", _open)
        for event_id, one in fresh.items():
            of = one.event.refers_to
            if of is None:
                continue
            if of not in self.events:
                self.early[of] = event_id
            elif self.events[of].event.amount == 1:
                which = _open if of in fresh else self._untouched
                ended |= self._end(seqs[of], "cancelled", which)
                untold = {one.person for one in self._of(seqs[of]).values() if one.state == "cancelled"}
                ended |= self._end(seqs[event_id], "suppressed", partial(_one_of, untold))
        return ended

    def _reversal_of_an_open_event(self, which: int) -> list[Accepted]:
        """The reversal of one that is open and not taken back yet; none when there is no such event."""
        seqs = {event_id: seq for seq, event_id in enumerate(self.events, 1)}
        pool = [
            one
            for one in REVERSALS
            if one.event.id not in self.events
            and one.event.refers_to in self.events
            and any(not alert.ended for alert in self._of(seqs[one.event.refers_to or ""]).values())
        ]
        return [pool[which // 2 % len(pool)]] if pool else []

    def _of(self, seq: int) -> dict[int, Modelled]:
        return {alert_id: one for alert_id, one in self.alerts.items() if alert_id >> ALERT_ID_BITS == seq}

    def _end(self, seq: int, state: State, which: Callable[[Modelled], bool]) -> set[int]:
        """End those open alerts of an event."""
        ended = {alert_id: one for alert_id, one in self._of(seq).items() if not one.ended and which(one)}
        for one in ended.values():
            one.state, one.owner, one.due, one.ended = state, 0, None, True
        return set(ended)

    def _untouched(self, one: Modelled) -> bool:
        alert_id = next(key for key, value in self.alerts.items() if value is one)
        seen = any(key[0] == alert_id and told[1] in ("accepted", "unknown") for key, told in self.tries.items())
        return one.state in ("held", "queued", "retrying") and not seen


def _open(one: Modelled) -> bool:
    return not one.ended


def _one_of(people: set[tuple[str, str] | None], one: Modelled) -> bool:
    return one.person in people
