"""Caps and day totals against a naive oracle that remembers everything and looks it all up again each
time."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.model.event import Event
from dispatcher.model.recipient import Recipient
from ratelimit.rules import Decider, Tally, load_rules
from ratelimit.tally import keys_of

LIMIT = 3
RULES = load_rules(
    "version = 1\n[[rule]]\nid = 'age'\neffect = 'expire_after'\ncategory = 'swipe'\nhours = 72\n"
    f"[[rule]]\nid = 'cap'\neffect = 'cap'\nlimit = {LIMIT}\nper = 'account'\nwindow = 'day'",
    "rules.toml",
)
ZONES = (
    "Asia/Shanghai",
    "America/New_York",
    "Asia/Kolkata",
    "Pacific/Apia",
    "America/St_Johns",
    "Nowhere/Known",
)
# Both daylight-saving changes of New York, the day that Apia left out, a clock set back at one minute past
# midnight, and a plain day.
CORNERS = tuple(
    datetime.fromisoformat(text)
    for text in (
        "2026-11-01T04:00Z",
        "2026-11-02T05:00Z",
        "2026-03-08T05:00Z",
        "2026-03-09T04:00Z",
        "2011-12-30T10:00Z",
        "2010-11-07T02:31Z",
        "2026-06-30T18:30Z",
    )
)


class Oracle:
    """Remembers each alert that was sent and each event that came, and counts by looking at all of them."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, date]] = []
        self.events: list[tuple[str, str, int, datetime]] = []

    def is_sent(self, account: str, zone: str, now: datetime) -> bool:
        today = local(zone, now)
        allowed = self.sent.count((account, today)) < LIMIT
        if allowed:
            self.sent.append((account, today))
        return allowed

    def day_total(self, account: str, currency: str, zone: str, swiped: datetime) -> int:
        mine = [event for event in self.events if event[:2] == (account, currency)]
        return sum(amount for _, _, amount, when in mine if local(zone, when) == local(zone, swiped))


def local(zone: str, moment: datetime) -> date:
    return moment.astimezone(ZoneInfo("Asia/Shanghai" if zone == "Nowhere/Known" else zone)).date()


moments = st.builds(
    lambda corner, minutes, ms: corner + timedelta(minutes=minutes, milliseconds=ms),
    st.sampled_from(CORNERS),
    st.integers(-26 * 60, 26 * 60) | st.integers(-2, 2),
    st.integers(-1, 1),
)
events = st.tuples(
    st.sampled_from(["A", "B"]),
    st.sampled_from(["CNY", "USD"]),
    st.sampled_from([("purchase", 100), ("refund", -30), ("decline", 7), ("cash", 1), ("reversal", -100)]),
    moments,
)
batches = st.lists(st.tuples(moments, st.lists(events, min_size=1, max_size=4)), min_size=1, max_size=8)
households = st.dictionaries(
    st.sampled_from(["A", "B"]), st.lists(st.sampled_from(ZONES), min_size=1, max_size=3), min_size=1
)


@settings(max_examples=150, deadline=None)
@given(batches=batches, households=households)
def test_caps_and_day_totals_equal_the_oracles(
    batches: list[tuple[datetime, list[tuple[str, str, tuple[str, int], datetime]]]],
    households: dict[str, list[str]],
) -> None:
    # Given accounts with recipients in several zones, and counters that outlive each batch (and each restart)
    stored: dict[str, int] = {}
    totals: dict[str, tuple[int, int]] = {}
    oracle = Oracle()
    for now, batch in batches:
        decider = Decider(RULES, ("wechat",))
        now_ms = epoch_ms(now)
        given_events = [event_of(each) for each in batch]
        plans = [
            [
                decider.plan(
                    event,
                    epoch_ms(event.time),
                    Recipient(id=1, account="", openid="o", timezone=zone),
                    now_ms,
                )
                for zone in households.get(event.account, [])
            ]
            for event in given_events
        ]
        tally = Tally(
            lambda keys: {key: stored[key] for key in keys if key in stored},
            lambda keys: {},
            lambda keys: {key: totals[key] for key in keys if key in totals},
        )
        tally.prefetch(keys_of(plans))
        # When the batch is decided with the counters that its plans asked for
        for event, several in zip(given_events, plans, strict=True):
            decisions = tally.decide_event(event, several)
            moved = 0 if event.type == "decline" else event.amount
            oracle.events.append((event.account, event.currency, moved, event.time))
            # Then every decision and every total is the oracle's
            for zone, decision in zip(households.get(event.account, []), decisions, strict=True):
                if decision.state != "expired":
                    wanted = "send" if oracle.is_sent(event.account, zone, now) else "suppressed"
                    assert decision.state == wanted
                total = tally.day_total(decision.day_total_key)
                assert total == oracle.day_total(event.account, event.currency, zone, event.time)
        stored.update((key, value) for key, (value, _) in tally.changed.items())
        totals.update((key, (total, events)) for key, (total, events, _) in tally.changed_totals.items())


def test_the_long_and_the_short_day_of_new_york_are_one_day_each() -> None:
    # Given a cap, a recipient in New York, and an alert every half hour around both clock changes
    for first, hours in (
        (datetime(2026, 11, 1, 4, tzinfo=UTC), 25),
        (datetime(2026, 3, 8, 5, tzinfo=UTC), 23),
    ):
        sent = []
        tally = Tally(lambda keys: {}, lambda keys: {}, lambda keys: {})
        decider = Decider(RULES, ("wechat",))
        recipient = Recipient(id=1, account="A", openid="o", timezone="America/New_York")
        for half_hours in range(-1, 2 * hours + 1):
            now_ms = epoch_ms(first) + half_hours * 1800 * 1000
            event = event_of(("A", "USD", ("purchase", 1), first))
            (decision,) = tally.decide_event(event, [decider.plan(event, now_ms, recipient, now_ms)])
            if decision.state == "send":
                sent.append(half_hours)
        # Then three are sent from the day's first minute on, and the next one only when its 25 or 23 hours
        # are over
        assert sent == [-1, 0, 1, 2, 2 * hours]


def epoch_ms(moment: datetime) -> int:
    return round((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1))


def event_of(drawn: tuple[str, str, tuple[str, int], datetime]) -> Event:
    account, currency, (kind, amount), time = drawn
    return Event(id="e", account=account, amount=amount, currency=currency, time=time, type=kind)
