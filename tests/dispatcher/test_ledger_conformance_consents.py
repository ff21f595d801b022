"""What every ledger keeps of what recipients agreed to."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dispatcher.delivery import Answer, AnswerClass, ChannelPolicy, after_answer
from dispatcher.ledger.api import Decisions, Draft, Imported, Ledger
from dispatcher.ledger.sqlite import SqliteStore
from dispatcher.ledger.sqlite_consents import REPEATED_MS
from dispatcher.ledger.worker import InlineLedger
from dispatcher.model.consent import ConsentChange, Consented, ConsentEntry
from dispatcher.model.heard import Heard
from dispatcher.model.recipient import MAX_CONSENTS, Consent, ConsentWord, Recipient
from ratelimit.retry import RetryPolicy
from replay.explain import as_data, tell
from tests.dispatcher.ledger_kit import NOW, Tell, accepted, admitted, in_halves, owner_of, recipient

POLICY = ChannelPolicy(RetryPolicy(), resend_unknown=False, receipt_ms=None)
LATER = NOW + 5_000
DAY_MS = 24 * 3_600_000


def yes(at: int, source: str = "form") -> Consent:
    return Consent(True, at, source)


def no(at: int, source: str = "call") -> Consent:
    return Consent(False, at, source)


def change(word: Consent, key: str = "promotion", **fields: Any) -> ConsentChange:
    return ConsentChange(**({"account": "A-1", "key": key, "consent": word, "by": "li"} | fields))


def as_line(word: Consent) -> ConsentWord:
    return ConsentWord(word.given, datetime.fromtimestamp(word.at / 1000, UTC), word.source)


_looks = itertools.count()


async def card(ledger: Ledger, account: str = "A-1", role: str = "primary") -> Recipient:
    """A recipient as an admission finds it."""
    tell_all = Tell()
    await ledger.admit([accepted(f"look-{next(_looks)}", account=account)], NOW, await owner_of(ledger), tell_all)
    return next(one for one in tell_all.told[account] if one.role == role)


async def words(ledger: Ledger, account: str = "A-1") -> list[tuple[str, bool, int, str]]:
    return [(one.key, one.given, one.at, one.source) for one in await ledger.consents_of(account)]


async def test_the_later_word_holds_and_every_word_is_in_the_log(ledger: Ledger) -> None:
    await ledger.import_recipients([recipient(), recipient(role="spouse")])
    # When somebody agrees, takes it back, and an older word comes after that
    given = change(yes(NOW - 3000))
    assert await ledger.consent([given], NOW) == Consented(1, 0, 0)
    assert await ledger.consent([change(no(NOW - 1000))], LATER) == Consented(1, 0, 0)
    assert await ledger.consent([change(yes(NOW - 2000, "late post"))], LATER) == Consented(0, 0, 1)
    # Then the last one holds, for that recipient alone
    assert (await card(ledger)).consents == {"promotion": no(NOW - 1000)}
    assert (await card(ledger, role="spouse")).consents == {}
    # And the history has all three, in the order in which they were said, with who wrote them down and when
    assert await words(ledger) == [
        ("promotion", True, NOW - 3000, "form"),
        ("promotion", True, NOW - 2000, "late post"),
        ("promotion", False, NOW - 1000, "call"),
    ]
    first = (await ledger.consents_of("A-1"))[0]
    whole = {"account": "A-1", "role": "primary", "key": "promotion", "given": True, "at": NOW - 3000}
    assert first == ConsentEntry(**whole, source="form", written_at=NOW, by="li")
    assert await ledger.consents_of("A-2") == []
    # And the same again changes nothing, whoever brings it
    assert await ledger.consent([change(no(NOW - 1000), by="wang")], LATER) == Consented(0, 1, 0)
    assert len(await words(ledger)) == 3


async def test_a_word_of_nobody_and_one_too_many_are_named_and_the_others_are_kept(ledger: Ledger) -> None:
    await ledger.import_recipients([recipient()])
    many = [change(yes(NOW), f"c{number}") for number in range(MAX_CONSENTS + 1)]
    done = await ledger.consent([change(yes(NOW), account="A-9"), *many, change(yes(NOW), role="spouse")], NOW)
    assert done == Consented(MAX_CONSENTS, 0, 0, [0, MAX_CONSENTS + 2], [MAX_CONSENTS + 1])
    assert len((await card(ledger)).consents) == len(await words(ledger)) == MAX_CONSENTS
    # And what a full card knows already can still be taken back
    assert await ledger.consent([change(no(NOW + 1), "c0")], NOW) == Consented(1, 0, 0)
    # And an import that would add to it is named, and leaves no word
    more = recipient(consents={"new": as_line(yes(NOW))})
    assert await ledger.import_recipients([more], NOW) == Imported(0, 0, 0, [], 0, [0])
    assert await words(ledger, "A-9") == []
    assert "new" not in [key for key, *_ in await words(ledger)]


async def test_an_import_brings_words_and_keeps_those_that_it_does_not_name(ledger: Ledger) -> None:
    line = recipient(consents={"promotion": as_line(yes(NOW - 2000))})
    assert await ledger.import_recipients([line], NOW, "li") == Imported(1, 0, 0)
    # When other words come, and another import knows nothing of them
    await ledger.consent([change(no(NOW - 1000)), change(yes(NOW), "service/sms")], NOW)
    assert await ledger.import_recipients([recipient()], NOW) == Imported(0, 0, 1)
    # Then all of them hold
    holding = {"promotion": no(NOW - 1000), "service/sms": yes(NOW)}
    assert (await card(ledger)).consents == holding
    # And the old import, once more, changes nothing and says so
    assert await ledger.import_recipients([line], NOW, "li") == Imported(0, 0, 1, [], 1)
    # And a new address takes nothing of it away
    assert (await ledger.import_recipients([recipient(openid="o-new")], NOW)).changed == 1
    assert (await card(ledger)).consents == holding
    assert len(await words(ledger)) == 3


async def test_words_without_a_time_of_writing_are_refused_whole(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="now_ms"):
        await ledger.import_recipients([recipient(), recipient("A-2", consents={"x": as_line(yes(NOW))})])
    assert (await ledger.books()).recipients == 0


async def test_a_template_switched_off_on_wechat_is_in_the_log_and_the_refusal_decides(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    both = await admitted(ledger, owner, accepted("e-1"), accepted("e-2"))
    off = Answer(AnswerClass.OPTED_OUT, "43101")
    # When WeChat says it of two alerts that were on their way, and of a third one days later
    await ledger.record([after_answer(alert, off, POLICY, NOW + n, 0.0) for n, alert in enumerate(both)], owner)
    (third,) = (await ledger.admit([accepted("e-3")], NOW, owner, Tell())).alerts
    await ledger.record([after_answer(third, off, POLICY, NOW + REPEATED_MS, 0.0)], owner)
    # Then the log has it once for each time, and no consent is on the card
    assert await words(ledger) == [
        ("*/wechat/swipe", False, NOW, "wechat:43101"),
        ("*/wechat/swipe", False, NOW + REPEATED_MS, "wechat:43101"),
    ]
    kept = await card(ledger)
    assert (set(kept.refused), kept.consents) == ({"wechat/swipe"}, {})


async def test_a_refusal_of_an_address_that_was_mended_or_of_a_channel_is_no_word(ledger: Ledger) -> None:
    owner = await owner_of(ledger)
    (alert,) = await admitted(ledger, owner, accepted("e-1"))
    await ledger.import_recipients([recipient(openid="o-mended")])
    await ledger.record([after_answer(alert, Answer(AnswerClass.OPTED_OUT, "43101"), POLICY, NOW, 0.0)], owner)
    (other,) = (await ledger.admit([accepted("e-2")], NOW, owner, Tell())).alerts
    await ledger.record([after_answer(other, Answer(AnswerClass.RECIPIENT_GONE, "43004"), POLICY, NOW, 0.0)], owner)
    assert await words(ledger) == []


async def test_follows_and_unfollows_are_in_the_log_and_scans_and_messages_are_not(ledger: Ledger) -> None:
    await ledger.import_recipients([recipient("A-1", openid="o-1"), recipient("A-2", openid="o-1")])
    facts = [
        Heard("o-1", "follow", NOW + 9000),
        Heard("o-1", "unfollow", NOW + 4000),
        Heard("o-1", "scan", NOW + 9500),
        Heard("o-1", "message", NOW + 9600),
        Heard("o-9", "unfollow", NOW),
    ]
    # When they come in one order and again in another
    await ledger.heard(facts, LATER)
    await ledger.heard(facts[::-1], LATER + DAY_MS)
    # Then each is there once for every recipient of the openid, with the time at which it was heard
    for account in ("A-1", "A-2"):
        about = {"account": account, "role": "primary", "key": "*/wechat", "written_at": LATER, "by": "provider"}
        assert await ledger.consents_of(account) == [
            ConsentEntry(given=False, at=NOW + 4000, source="wechat:unsubscribe", **about),  # type: ignore[arg-type]
            ConsentEntry(given=True, at=NOW + 9000, source="wechat:subscribe", **about),  # type: ignore[arg-type]
        ]
    # And what decides is the refusal, as it was
    kept = await card(ledger)
    assert (kept.refused, kept.consents, kept.followed_ms) == ({}, {}, NOW + 9500)


async def test_explain_tells_which_word_kept_an_alert_back(ledger: Ledger) -> None:
    await ledger.import_recipients([recipient(), recipient(role="spouse")])
    said = no(NOW - 3000, "call 7 <li>")
    others = [change(said, "service"), change(said, role="spouse"), change(yes(NOW - 9000), "promotion/sms")]
    await ledger.consent([change(said, "promotion/sms"), *others], NOW - 2000)

    @in_halves
    def by_consent(*arguments: Any) -> Decisions:
        (one, other) = arguments[1]["A-1"]
        draft = Draft(one, "suppressed", "no-promotion", (), NOW, "swipe@1", {"consent": -1, "consent_at": said.at})
        never = Draft(other, "suppressed", "no-promotion", (), NOW, "swipe@1", {"consent": 0})
        return Decisions([[draft, never]], {})

    # Given two alerts that consent kept back: one because it was withdrawn, one because nobody ever gave it
    await ledger.admit([accepted("e-1", category="promotion")], NOW, await owner_of(ledger), by_consent)
    # And a word that came after the decision
    await ledger.consent([change(yes(NOW + 1000), "promotion/sms")], LATER)
    story = await ledger.explain("e-1")
    assert story is not None
    # Then the story has the word that decided, and no other
    assert [(one.key, one.at, one.source) for one in story.alerts[0].consents] == [
        ("promotion/sms", said.at, "call 7 <li>")
    ]
    assert story.alerts[1].consents == []
    told = [text for text in tell(story) if "consent promotion/sms" in text]
    assert told == [
        "  consent promotion/sms: withdrawn 2024-01-01 09:59:57.000+00:00, source call 7 <li>;"
        " written down by li 2024-01-01 09:59:58.000+00:00"
    ]
    assert as_data(story)["alerts"][0]["consents"][0]["source"] == "call 7 <li>"


async def test_the_log_lets_nothing_be_changed_or_taken_out(tmp_path: Path) -> None:
    ledger = InlineLedger(str(tmp_path / "ledger.db"))
    await ledger.import_recipients([recipient()])
    await ledger.consent([change(yes(NOW))], NOW)
    for statement in ("DELETE FROM consent_log", "UPDATE consent_log SET given=0"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            ledger.store.connection.execute(statement)
    assert len(await words(ledger)) == 1
    await ledger.aclose()


@pytest.fixture(scope="module")
def store() -> Iterator[SqliteStore]:
    """An empty ledger, left empty by whoever uses it."""
    made = SqliteStore(":memory:")
    yield made
    made.close()


WORDS = st.lists(
    st.tuples(
        st.sampled_from(["promotion", "promotion/sms", "service"]),
        st.builds(Consent, st.booleans(), st.integers(NOW, NOW + 3), st.sampled_from(["form", "call"])),
    ),
    max_size=6,
)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(WORDS, st.data())
def test_the_order_in_which_words_come_does_not_matter(
    store: SqliteStore, said: list[tuple[str, Consent]], data: st.DataObject
) -> None:
    # Given words in two orders, by an import each or by the command, one of them with some words twice
    again = data.draw(st.permutations(said + said[:2]))
    by_import = data.draw(st.lists(st.booleans(), min_size=len(again), max_size=len(again)))
    kept, kept_again = _keep(store, said, [False] * len(said)), _keep(store, again, by_import)
    # Then the card and the history are the same
    assert kept == kept_again
    # And of each thing what was said last holds, and of two words of one moment the no
    for key in {key for key, _ in said}:
        last = max(word.at for about, word in said if about == key)
        of_last = {word.given for about, word in said if about == key and word.at == last}
        assert kept[0][key].at == last
        assert kept[0][key].given is (of_last == {True})


def _keep(
    store: SqliteStore, said: list[tuple[str, Consent]], by_import: list[bool]
) -> tuple[dict[str, Consent], list[ConsentEntry]]:
    store.begin()
    store.import_recipients([recipient()])
    for (key, word), imported in zip(said, by_import, strict=True):
        if imported:
            store.import_recipients([recipient(consents={key: as_line(word)})], NOW, "li")
        else:
            store.consent([change(word, key)], NOW)
    text = store.connection.execute("SELECT card FROM recipients").fetchall()[0][0]
    history = store.consents_of("A-1")
    store.rollback()
    return msgspec.json.decode(text, type=Recipient).consents, history
