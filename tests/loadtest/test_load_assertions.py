"""What ``--assert`` understands, and what it says when it does not."""

from __future__ import annotations

import pytest

from loadtest.load.assertions import METRICS, parse_assertion


@pytest.mark.parametrize(
    ("text", "measured", "holds"),
    [
        ("p99<200ms", {"p99": 199.9}, True),
        ("p99<200ms", {"p99": 200.0}, False),
        ("p99 <= 0.2s", {"p99": 200.0}, True),
        ("p999<1s", {"p999": 1000.1}, False),
        ("max>500us", {"max": 0.6}, True),
        ("ack_p50<5ms", {"ack_p50": 4.0, "p50": 50.0}, True),
        ("lost==0", {"lost": 0}, True),
        ("lost==0", {"lost": 1}, False),
        ("unknown!=0", {"unknown": 3}, True),
        ("rate_out>=2,000/s", {"rate_out": 1999.5}, False),
        ("rate_in>1_000", {"rate_in": 1000.5}, True),
        ("mb<=200MB", {"mb": 199.0}, True),
        ("mb<200", {"mb": 200.0}, False),
        ("delivered>=10", {"delivered": 10}, True),
    ],
)
def test_a_condition_is_held_against_what_was_measured(text: str, measured: dict[str, float], holds: bool) -> None:
    assert parse_assertion(text).judge(measured).holds is holds


@pytest.mark.parametrize("metric", METRICS)
def test_what_was_not_measured_does_not_hold(metric: str) -> None:
    unit = "s" if "p" in metric.removeprefix("ack_")[:1] or metric.endswith("max") or metric == "recovery" else ""
    for operator in ("<", ">", "==", "!=", "<=", ">="):
        try:
            verdict = parse_assertion(f"{metric}{operator}1{unit}").judge({})
        except ValueError:
            verdict = parse_assertion(f"{metric}{operator}1").judge({})
        assert (verdict.holds, verdict.measured) == (False, "not measured")


@pytest.mark.parametrize(
    "text",
    ["", "p99", "p99<", "p99<200ms<1s", "<5", "p99<-1ms", "p99<ms", "lost=0", "lost=<0", "p99<0x10ms", "p99<1e3ms"],
)
def test_what_cannot_be_read_is_refused_with_all_that_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be read; allowed is .*p99<200ms.*lost.*<= >="):
        parse_assertion(text)


def test_an_unknown_metric_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match=r"unknown metric 'p98'; .*p50, p90, p95, p99, p999, max"):
        parse_assertion("p98<1s")


@pytest.mark.parametrize("text", ["p99<200", "p99<200m", "p99<3h", "ack_max<1"])
def test_a_latency_needs_its_unit(text: str) -> None:
    with pytest.raises(ValueError, match="needs its unit, us, ms or s"):
        parse_assertion(text)


@pytest.mark.parametrize("text", ["lost==0ms", "mb<200s", "rate_in>5mb"])
def test_a_number_has_none(text: str) -> None:
    with pytest.raises(ValueError, match="without the unit"):
        parse_assertion(text)


def test_it_is_shown_as_it_was_written_and_measured_in_words() -> None:
    verdict = parse_assertion(" p99 < 20 s ").judge({"p99": 12_345.6})
    assert (verdict.text, verdict.measured, verdict.holds) == ("p99 < 20 s", "12.35 s", True)
    assert parse_assertion("p50<20ms").judge({"p50": 12.345}).measured == "12.3 ms"
    assert parse_assertion("delivered>1").judge({"delivered": 1_200_000}).measured == "1,200,000"
