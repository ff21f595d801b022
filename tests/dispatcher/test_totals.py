"""Totals: counting in several processes and adding up gives what one process would have counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from dispatcher.exposition import registry_of
from dispatcher.ledger.api import Admission, Noted
from dispatcher.metrics import Meter
from dispatcher.model.alert import Step
from dispatcher.totals import MAX_LATENCY_MS, MAX_PENDING, Latencies, Totals, decode_hook, encode_hook, merged
from tests.dispatcher.metrics_kit import a_step, shown

Act = Callable[[Meter], None]

STEPS = st.lists(
    st.builds(
        a_step,
        outcome=st.sampled_from(["accepted", "busy", "unknown", None]),
        state=st.sampled_from(["delivered", "awaiting", "retrying", "failed", "expired"]),
        channel=st.sampled_from(["wechat", "sms"]),
        waited_ms=st.integers(-5, 2 * MAX_LATENCY_MS),
        swipe_age_ms=st.integers(-5_000, 2 * MAX_LATENCY_MS),
        resends=st.integers(0, 2),
    ),
    max_size=8,
)
# Sixteenths add up without rounding, whatever the order.
SECONDS = st.integers(0, 100).map(lambda n: n / 16)


def _recorded(steps: list[Step]) -> Act:
    return lambda meter: meter.recorded(steps)


def _admitted(accepted: int, duplicates: int, suppressed: int) -> Act:
    ended: Any = {("suppressed", "no-recipient"): suppressed} if suppressed else {}
    held = {"night": suppressed} if duplicates else {}
    noted = Noted(held, {"cap": suppressed} if accepted else {}, duplicates)
    return lambda meter: meter.admitted(Admission(accepted, list(range(duplicates)), [], [], ended, held, noted))


ACTS: st.SearchStrategy[list[Act]] = st.lists(
    st.one_of(
        STEPS.map(_recorded),
        st.builds(_admitted, st.integers(0, 300), st.integers(0, 9), st.integers(0, 9)),
        st.integers(0, 300).map(lambda n: lambda meter: meter.read(n)),
        st.integers(0, 9).map(lambda n: lambda meter: meter.rejected(n)),
        st.sampled_from(["wechat", "sms"]).map(lambda name: lambda meter: meter.unknown_code(name)),
        st.tuples(st.integers(1, 32), SECONDS).map(lambda one: lambda meter: meter.committed(*one)),
    ),
    max_size=12,
)


def sent(totals: Totals) -> Totals:
    """As it arrives in another process."""
    wire = msgspec.msgpack.encode(totals, enc_hook=encode_hook)
    return msgspec.msgpack.decode(wire, type=Totals, dec_hook=decode_hook)


@given(ACTS, st.data())
def test_counting_apart_and_adding_up_is_counting_in_one(acts: list[Act], data: st.DataObject) -> None:
    # Given the same work done by one process, and dealt to three in any way
    one = Meter()
    several = [Meter() for _ in range(3)]
    for act in acts:
        act(one)
        act(data.draw(st.sampled_from(several)))
    # When the three have sent their totals, and these are added in any order
    parts = [sent(meter.totals) for meter in data.draw(st.permutations(several))]
    split = data.draw(st.integers(0, 3))
    whole = merged([merged(parts[:split]), merged(parts[split:])])
    # Then /metrics shows the same, and so does the summary
    assert shown(whole) == shown(one.totals)
    assert whole.latencies.summary() == one.latencies.summary()
    assert (whole.events, whole.failed_by, whole.retries) == (one.events, one.totals.failed_by, one.retries)
    # And the parts are as they were
    assert shown(merged(parts)) == shown(one.totals)


def test_gauges_are_added_where_each_process_has_its_own_and_not_where_they_are_of_all() -> None:
    # Given two processes with lanes of their own, one ledger, and one channel that waits for a person
    first, second = Meter(), Meter()
    first.lanes({"wechat": (3, 2), "sms": (1, 0)}, 40)
    second.lanes({"wechat": (4, 1)}, 38)
    second.misconfigured("wechat", True)
    second.storm("burst", True)
    first.storm("burst", False)
    # When they are added up
    whole = merged([sent(first.totals), sent(second.totals)])
    # Then lane lengths are sums, and of the others the worse is shown
    assert whole.lanes == {"wechat": (7, 3), "sms": (1, 0)}
    assert (whole.open_alerts, whole.waiting_channels) == (40, {"wechat": 1})
    assert whole.storms == {"burst": 1}
    # And what was true only while a process lived goes with it, its counts do not
    second.read(9)
    second.totals.drop_gauges()
    assert merged([second.totals]).lanes == {"wechat": (0, 0)}
    assert merged([second.totals]).waiting_channels == {"wechat": 0}
    assert merged([second.totals]).storms == {"burst": 0}
    assert merged([second.totals]).events["read"] == 9


def test_latencies_stay_within_a_day_and_in_bounded_memory() -> None:
    # Given latencies from a clock that runs ahead to a backlog of a week, and many that differ
    latencies = Latencies()
    latencies.add([-3, 0, 1, 7 * MAX_LATENCY_MS])
    latencies.add(range(1, 3 * MAX_PENDING))
    assert len(latencies._pending) <= 3 * MAX_PENDING
    latencies.add([5])
    assert len(latencies._pending) <= MAX_PENDING
    # Then the first count as a millisecond and the last as a day
    buckets, total_s = latencies.cumulative((1, 1000))
    assert buckets == [("0.001", 4.0), ("1.0", 1004.0), ("+Inf", 3 * MAX_PENDING + 4.0)]
    assert total_s == (3 + MAX_LATENCY_MS + sum(range(1, 3 * MAX_PENDING)) + 5) / 1000
    assert latencies.summary()["max"] == pytest.approx(MAX_LATENCY_MS, rel=0.001)


@pytest.mark.parametrize("value", [1, 5, 6, 999, 1000, 1001, 2048, 60_000, 60_031])
def test_a_latency_is_in_the_bucket_of_its_bound(value: int) -> None:
    latencies = Latencies()
    latencies.add([value])
    buckets = dict(latencies.cumulative((5, 1000, 60_000))[0])
    # To three digits: a value counts to a bound only when everything that looks like it does
    assert buckets["0.005"] == (value <= 5)
    assert buckets["1.0"] == (value <= 1000)
    assert buckets["60.0"] == (value < 59_969)
    assert buckets["+Inf"] == 1


def test_the_metrics_have_the_names_that_dashboards_rely_on() -> None:
    # Given a process that has done a little of everything
    meter = Meter()
    meter.read(5)
    meter.rejected(1)
    noted = Noted({"burst": 2}, {"night": 4}, 1)
    meter.admitted(Admission(3, [3], [], [], {("suppressed", "night"): 1}, {"night": 5, "burst": 2}, noted))
    meter.storm("burst", True)
    meter.recorded([a_step(outcome="accepted", waited_ms=12, swipe_age_ms=700, resends=1), a_step(outcome="busy")])
    meter.unknown_code("sms")
    meter.misconfigured("wechat", False)
    meter.lanes({"wechat": (2, 1)}, 3)
    meter.committed(2, 0.004)
    meter.rules_in_force("3f2a9c01b7de")
    meter.rules_reload("applied")
    text = generate_latest(registry_of(lambda: meter.totals, lambda: (2, 1))).decode()
    samples = {line for line in text.splitlines() if not line.startswith("#") and "_bucket" not in line}
    assert samples == {
        'swipebell_events_total{result="accepted"} 3.0',
        'swipebell_events_total{result="duplicate"} 1.0',
        'swipebell_events_total{result="rejected"} 1.0',
        'swipebell_alerts_ended_total{state="suppressed"} 1.0',
        'swipebell_alerts_ended_total{state="delivered"} 2.0',
        'swipebell_attempts_total{channel="wechat",outcome="accepted"} 1.0',
        'swipebell_attempts_total{channel="wechat",outcome="busy"} 1.0',
        'swipebell_attempts_total{channel="wechat",outcome="unknown"} 1.0',
        'swipebell_unknown_codes_total{channel="sms"} 1.0',
        'swipebell_suppressed_total{rule="night"} 1.0',
        'swipebell_held_total{rule="night"} 5.0',
        'swipebell_held_total{rule="burst"} 2.0',
        'swipebell_folded_total{rule="night"} 4.0',
        'swipebell_storm_held_total{rule="burst"} 2.0',
        'swipebell_storm_active{rule="burst"} 1.0',
        "swipebell_recipients_wrong_zone_total 1.0",
        "swipebell_rules_broken 0.0",
        "swipebell_templates_broken 0.0",
        "swipebell_known_doubles_total 0.0",
        "swipebell_ledger_calls_total 2.0",
        'swipebell_lane_queued_alerts{channel="wechat"} 2.0',
        'swipebell_lane_in_flight_alerts{channel="wechat"} 1.0',
        'swipebell_channel_misconfigured{channel="wechat"} 0.0',
        'swipebell_rules_info{version="3f2a9c01b7de"} 1.0',
        'swipebell_rules_reloads_total{result="applied"} 1.0',
        "swipebell_open_alerts 3.0",
        "swipebell_delivery_latency_seconds_count 1.0",
        "swipebell_delivery_latency_seconds_sum 0.012",
        "swipebell_swipe_to_acceptance_seconds_count 1.0",
        "swipebell_swipe_to_acceptance_seconds_sum 0.7",
        "swipebell_ledger_commit_seconds_count 1.0",
        "swipebell_ledger_commit_seconds_sum 0.004",
        "swipebell_processes_ready 2.0",
        "swipebell_process_deaths_total 1.0",
    }
    # And each has its help and buckets
    assert 'swipebell_delivery_latency_seconds_bucket{le="0.025"} 1.0' in text
    assert 'swipebell_delivery_latency_seconds_bucket{le="0.01"} 0.0' in text
    assert 'swipebell_ledger_commit_seconds_bucket{le="0.005"} 1.0' in text
    assert 'swipebell_ledger_commit_seconds_bucket{le="0.0025"} 0.0' in text
    assert "# HELP swipebell_swipe_to_acceptance_seconds From the swipe's own time" in text


def test_known_doubles_of_several_processes_add_up() -> None:
    assert merged([Totals(known_doubles=1), Totals(known_doubles=2)]).known_doubles == 3
