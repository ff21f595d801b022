"""What the engine counts: for ``/metrics``, and for the summary that ``send``, ``demo`` and ``loadtest`` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from dispatcher.delivery import LATE
from dispatcher.ledger.api import Admission
from dispatcher.model.alert import State, Step
from dispatcher.totals import Latencies, Totals

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class Meter:
    """Counts of one process since it started, advanced by the batch; ``totals`` is all of it."""

    def __init__(self) -> None:
        self.totals = totals = Totals()
        # The same tables by shorter names, for those who read one of them.
        self.events = totals.events
        self.ended = totals.ended
        self.suppressed_by = totals.suppressed_by
        self.failed_by = totals.failed_by
        self.attempts = totals.attempts
        self.delivered_by = totals.delivered_by
        self.outcomes = totals.outcomes

    @property
    def latencies(self) -> Latencies:
        """From the event's acceptance to the provider's."""
        return self.totals.latencies

    @property
    def retries(self) -> int:
        """Steps after which an alert is to be tried again."""
        return self.totals.retries

    @cached_property
    def registry(self) -> CollectorRegistry:
        """These counts for Prometheus. Imported when it is wanted: most processes of a fleet never ask."""
        from dispatcher.exposition import registry_of

        return registry_of(lambda: self.totals)

    def read(self, count: int) -> None:
        """Lines or items were read at the door."""
        self.events["read"] += count

    def rejected(self, count: int) -> None:
        """Events were refused at the door, or conflict with an accepted one."""
        if count:
            self.events["rejected"] += count

    def admitted(self, admission: Admission, own: bool = False) -> None:
        """A batch went through admission (its conflicts are counted by ``rejected``). Events of our ``own`` have not
        been read at any door, so they are not counted; what became of their alerts is."""
        for result, count in (("accepted", admission.accepted), ("duplicate", len(admission.duplicates))):
            if count and not own:
                self.events[result] += count
        for (state, reason), count in admission.ended.items():
            self._end(state, reason, count)
        noted = admission.noted
        if admission.held:
            self.totals.held_by.update(admission.held)
        if noted.storms:
            self.totals.storm_held.update(noted.storms)
        if noted.folded:
            self.totals.folded_by.update(noted.folded)
        self.totals.wrong_zones += noted.wrong_zones

    def recorded(self, steps: Sequence[Step]) -> None:
        """Steps are in the ledger."""
        # One pass, which only sorts the steps into kinds: a batch has thousands of steps and a handful of kinds.
        kinds: dict[tuple[str, str | None, State, str | None, bool], int] = {}
        from_acceptance: list[int] = []
        from_swipe: list[int] = []
        resends: dict[str, int] = {}
        for step in steps:
            alert = step.alert
            outcome = step.outcome
            channel = alert.route[alert.position]
            kind = channel, outcome, step.state, step.reason, step.ended
            kinds[kind] = kinds.get(kind, 0) + 1
            if outcome == "accepted":
                at_ms = step.at_ms
                from_acceptance.append(at_ms - alert.accepted_ms)
                from_swipe.append(at_ms - int(alert.event.time.timestamp() * 1000))
            if step.resends and outcome is not None:
                resends[channel] = resends.get(channel, 0) + step.resends
        for (channel, outcome, state, reason, ended), count in kinds.items():
            if outcome is not None:
                self._attempted(channel, outcome, count)
            if ended:
                self._end(state, reason or "", count)
                if state == "delivered":
                    # Seen on a channel that it had left already: that one delivered it.
                    by = reason.removeprefix(LATE) if reason and reason.startswith(LATE) else channel
                    self.delivered_by[by] += count
            elif state != "awaiting":
                self.totals.retries += count
        for channel, count in resends.items():
            self._attempted(channel, "unknown", count)
        self.totals.latencies.add(from_acceptance)
        self.totals.swipe_latencies.add(from_swipe)

    def _attempted(self, channel: str, outcome: str, count: int) -> None:
        self.attempts[channel] += count
        self.outcomes[channel, outcome] += count

    def _end(self, state: State, reason: str, count: int) -> None:
        self.ended[state] += count
        if state == "suppressed":
            self.suppressed_by[reason] += count
        elif state == "failed":
            self.failed_by[reason] += count

    def known_doubles(self, count: int) -> None:
        """A channel reported success of alerts that had rung on the next one meanwhile."""
        self.totals.known_doubles += count

    def unknown_code(self, channel: str) -> None:
        """A provider answered with a code that its table does not know."""
        self.totals.unknown_codes[channel] += 1

    def callback_refused(self, reason: str) -> None:
        """A callback was not taken; ``reason`` is one of `receipts.REASONS`."""
        self.totals.callbacks_refused[reason] += 1

    def misconfigured(self, channel: str, value: bool) -> None:
        """A channel waits for a person, or no longer."""
        self.totals.waiting_channels[channel] = int(value)

    def breaker(self, channel: str, value: bool) -> None:
        """A channel's breaker is open (or feels its way back), or closed."""
        self.totals.open_breakers[channel] = int(value)

    def token_refreshed(self, channel: str) -> None:
        """This process got the fleet a new access token."""
        self.totals.token_refreshes[channel] += 1

    def token_storm(self, channel: str, storm: bool) -> None:
        """The fleet gets new tokens far too often, or no longer."""
        self.totals.token_storms[channel] = int(storm)

    def storm(self, rule: str, active: bool) -> None:
        """A storm rule holds alerts, or does so no longer."""
        self.totals.storms[rule] = int(active)

    def quota(self, channel: str, *, used: int, limit: int, remaining: int, level: int) -> None:
        """How a provider's quota of the day stands, and the brown-out level."""
        self.totals.quotas[channel] = used, limit, remaining, level

    def browned_out(self, channel: str, step: str, count: int) -> None:
        """So many alerts were degraded because the quota ran low."""
        if count:
            self.totals.browned_out[channel, step] += count

    def rules_in_force(self, version: str) -> None:
        """This process decides by these rules now."""
        self.totals.rules_versions = {version: 1}

    def rules_reload(self, result: str) -> None:
        """A changed rule file was looked at; ``result`` is one of `rules_watch.RESULTS`."""
        self.totals.rules_reloads[result] += 1

    def rules_broken(self, value: bool) -> None:
        """The rule file cannot be put in force, or can be again."""
        self.totals.rules_broken = int(value)

    def templates_broken(self, value: bool) -> None:
        """A template cannot be put in force, or all can be again."""
        self.totals.templates_broken = int(value)

    def lanes(self, lengths: Mapping[str, tuple[int, int]], open_alerts: int) -> None:
        """Set the gauges: (queued, in flight) by channel, and the ledger's open alerts."""
        self.totals.lanes = dict(lengths)
        self.totals.open_alerts = open_alerts

    def committed(self, calls: int, seconds: float) -> None:
        """The ledger committed; called from its thread, the only one that touches these counts."""
        self.totals.commits.add(calls, seconds)


class _Lane(Protocol):
    @property
    def queue(self) -> Sized: ...
    @property
    def in_flight(self) -> int: ...


def lane_lengths(lanes: Mapping[str, _Lane]) -> dict[str, tuple[int, int]]:
    """(queued, in flight) by channel, as `Meter.lanes` takes it."""
    return {name: (len(lane.queue), lane.in_flight) for name, lane in lanes.items()}
