"""`Totals` in Prometheus' words. No label comes from event data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from dispatcher.totals import Totals

LATENCY_BUCKETS_MS = (5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 15_000, 60_000, 300_000, 3_600_000)


def registry_of(
    totals: Callable[[], Totals], processes: Callable[[], tuple[int, int]] | None = None
) -> CollectorRegistry:
    """A registry that shows what ``totals`` returns at the moment of each scrape.

    ``processes`` of a fleet: (ready now, died since the start).
    """
    registry = CollectorRegistry()
    registry.register(_TotalsCollector(totals))
    if processes is not None:
        registry.register(_ProcessesCollector(processes))
    return registry


class _ProcessesCollector(Collector):
    def __init__(self, processes: Callable[[], tuple[int, int]]) -> None:
        self._processes = processes

    def collect(self) -> Iterable[Metric]:
        ready, died = self._processes()
        yield GaugeMetricFamily("swipebell_processes_ready", "Processes that can admit events", value=ready)
        yield CounterMetricFamily("swipebell_process_deaths", "Processes that ended without being told to", value=died)


class _TotalsCollector(Collector):
    def __init__(self, totals: Callable[[], Totals]) -> None:
        self._totals = totals

    def collect(self) -> Iterable[Metric]:
        totals = self._totals()
        yield from _counters(totals)
        yield from _gauges(totals)
        for name, help_text, (buckets, total) in (
            (
                "swipebell_delivery_latency_seconds",
                "From the event's acceptance to the provider's acceptance",
                totals.latencies.cumulative(LATENCY_BUCKETS_MS),
            ),
            (
                "swipebell_swipe_to_acceptance_seconds",
                "From the swipe's own time to the provider's acceptance",
                totals.swipe_latencies.cumulative(LATENCY_BUCKETS_MS),
            ),
            ("swipebell_ledger_commit_seconds", "One commit, fsync included", totals.commits.cumulative()),
        ):
            family = HistogramMetricFamily(name, help_text)
            family.add_metric([], buckets=buckets, sum_value=total)
            yield family


def _counters(totals: Totals) -> Iterable[Metric]:
    by_name: tuple[tuple[str, str, str, Mapping[str, int]], ...] = (
        (
            "swipebell_events",
            "Events by what became of them at the door",
            "result",
            {name: count for name, count in totals.events.items() if name != "read"},
        ),
        ("swipebell_alerts_ended", "Alerts that ended", "state", dict(totals.ended.items())),
        ("swipebell_unknown_codes", "Answers whose code no table knows", "channel", totals.unknown_codes),
        ("swipebell_callbacks_refused", "Callbacks that were not taken", "reason", totals.callbacks_refused),
        ("swipebell_suppressed", "Alerts that a rule suppressed", "rule", totals.suppressed_by),
        ("swipebell_held", "Alerts that a rule held until later", "rule", totals.held_by),
        ("swipebell_folded", "Alerts that a rule folded into a digest", "rule", totals.folded_by),
        ("swipebell_storm_held", "Alerts that a storm rule held until a person decides", "rule", totals.storm_held),
        ("swipebell_rules_reloads", "Changed rule files by what became of them", "result", totals.rules_reloads),
    )
    for name, help_text, label, counts in by_name:
        family = CounterMetricFamily(name, help_text, labels=[label])
        for value, count in sorted(counts.items()):
            family.add_metric([value], count)
        yield family
    attempts = CounterMetricFamily("swipebell_attempts", "Answers of providers by class", labels=["channel", "outcome"])
    for labels, count in sorted(totals.outcomes.items()):
        attempts.add_metric(labels, count)
    yield attempts
    doubles = CounterMetricFamily(
        "swipebell_known_doubles", "Alerts that a channel delivered after they had rung on the next one"
    )
    doubles.add_metric([], totals.known_doubles)
    yield doubles
    refreshes = CounterMetricFamily("swipebell_token_refreshes", "New access tokens fetched", labels=["channel"])
    for channel, count in sorted(totals.token_refreshes.items()):
        refreshes.add_metric([channel], count)
    yield refreshes
    browned_out = CounterMetricFamily(
        "swipebell_browned_out", "Alerts degraded because the day's quota ran low", labels=["channel", "step"]
    )
    for labels, count in sorted(totals.browned_out.items()):
        browned_out.add_metric(labels, count)
    yield browned_out
    wrong_zones = CounterMetricFamily(
        "swipebell_recipients_wrong_zone", "Alerts for recipients whose time zone is not known (the default one holds)"
    )
    wrong_zones.add_metric([], totals.wrong_zones)
    yield wrong_zones
    calls = CounterMetricFamily("swipebell_ledger_calls", "Calls committed (group commit shares one)")
    calls.add_metric([], totals.commits.calls)
    yield calls


def _gauges(totals: Totals) -> Iterable[Metric]:
    queued = {channel: lengths[0] for channel, lengths in totals.lanes.items()}
    in_flight = {channel: lengths[1] for channel, lengths in totals.lanes.items()}
    for name, help_text, values in (
        ("swipebell_lane_queued_alerts", "Alerts waiting in a lane", queued),
        ("swipebell_lane_in_flight_alerts", "Alerts handed to the network", in_flight),
        (
            "swipebell_channel_misconfigured",
            "1 while a channel waits for a person",
            totals.waiting_channels,
        ),
        (
            "swipebell_breaker_open",
            "1 while a channel's provider is down and nothing but probes is sent (in a fleet: in any process)",
            totals.open_breakers,
        ),
        ("swipebell_token_refresh_storm", "1 while access tokens are fetched far too often", totals.token_storms),
        (
            "swipebell_brownout_level",
            "Brown-out level: 0 none, 1 raise-minimum, 2 digest, 3 shift",
            {channel: quota[3] for channel, quota in totals.quotas.items()},
        ),
    ):
        family = GaugeMetricFamily(name, help_text, labels=["channel"])
        for channel, value in sorted(values.items()):
            family.add_metric([channel], value)
        yield family
    for channel, (_, limit, remaining, _) in sorted(totals.quotas.items()):
        # Named by the provider, each of which counts in its own way.
        yield GaugeMetricFamily(f"swipebell_{channel}_quota_limit", "Attempts a day", value=limit)
        yield GaugeMetricFamily(f"swipebell_{channel}_quota_remaining", "Attempts left today", value=remaining)
    storms = GaugeMetricFamily(
        "swipebell_storm_active", "1 while a storm rule holds alerts (in a fleet: in any process)", labels=["rule"]
    )
    for rule, active in sorted(totals.storms.items()):
        storms.add_metric([rule], active)
    yield storms
    yield GaugeMetricFamily(
        "swipebell_rules_broken",
        "1 while the rule file cannot be put in force and the rules before it stay",
        value=totals.rules_broken,
    )
    yield GaugeMetricFamily(
        "swipebell_templates_broken",
        "1 while a template cannot be put in force and the versions before it stay",
        value=totals.templates_broken,
    )
    rules = GaugeMetricFamily("swipebell_rules_info", "Processes that decide by these rules", labels=["version"])
    for version, processes in sorted(totals.rules_versions.items()):
        rules.add_metric([version], processes)
    yield rules
    open_alerts = GaugeMetricFamily("swipebell_open_alerts", "Alerts in the ledger that have not ended")
    open_alerts.add_metric([], totals.open_alerts)
    yield open_alerts
