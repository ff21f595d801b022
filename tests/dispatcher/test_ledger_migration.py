"""A ledger written with an earlier layout is brought up to date when it is opened, and nothing of it is lost."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path

from pyroaring import BitMap

from dispatcher.ledger.sqlite_id_runs import find_seqs
from dispatcher.ledger.sqlite_open import APPLICATION_ID, digest_of
from dispatcher.ledger.worker import InlineLedger
from dispatcher.model.consent import ConsentChange, Consented
from dispatcher.model.heard import Heard
from dispatcher.model.recipient import Consent
from tests.dispatcher.ledger_kit import NOW, Tell, accepted, attempts_of, counted, owner_of, state_of, total_of


def first_layout(path: Path) -> None:
    """A ledger as the first version wrote it: two events, one delivered after a busy answer, one to be retried."""
    script = files("dispatcher.ledger.schema").joinpath("0001.sql").read_text(encoding="utf-8")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute("PRAGMA user_version=1")
        for seq in (1, 2):
            one = accepted(f"e-{seq}")
            connection.execute(
                "INSERT INTO events VALUES (?,?,?,?,?,?)",
                (seq, one.event.id, one.event.account, NOW, NOW, one.payload.decode()),
            )
        connection.execute(
            "INSERT INTO recipients (id, account, role, openid, phone, locale, timezone, channels, refused)"
            " VALUES (7, ?, 'primary', 'o-1', '+8613800000001', 'en', 'Asia/Shanghai', '[\"wechat\",\"sms\"]', ?)",
            (accepted("e-1").event.account, json.dumps({"wechat": {"code": "43004", "since": NOW}})),
        )
        columns = (
            "(id, recipient, template, route, channel, state, ruleset, attempts, msgid, expires_at, due_at, ended_at)"
        )
        connection.executemany(
            f"INSERT INTO alerts {columns} VALUES (?,7,'swipe@1','wechat,sms',?,?,0,?,?,?,?,?)",
            [
                (16, "wechat", "delivered", 2, "m-1", NOW + 1000, None, NOW),
                (32, "sms", "retrying", 1, None, NOW + 1000, NOW, None),
            ],
        )
        connection.executemany(
            "INSERT INTO attempts VALUES (?,?,1,?,?,5,?,?,?)",
            [
                (16, 1, "wechat", NOW, "retry", "-1", None),
                (16, 2, "wechat", NOW, "accepted", "0", "m-1"),
                (32, 1, "wechat", NOW, "recipient_gone", "43004", None),
            ],
        )
        connection.executemany(
            "INSERT INTO counters VALUES (?,?,?)",
            [
                ("day|Asia/Shanghai|2026-01-01|CNY|A-1", 500, NOW + 1000),
                ("day|Asia/Shanghai|2026-01-01|CNY|A-2", 70, NOW + 9000),
                ("bare", 3, NOW + 1000),
            ],
        )
        connection.commit()


async def test_a_ledger_of_the_first_layout_is_taken_over_whole(tmp_path: Path) -> None:
    # Given a ledger as the first version wrote it
    path = tmp_path / "ledger.db"
    first_layout(path)
    # When this version opens it
    ledger = InlineLedger(str(path))
    owner = await owner_of(ledger)
    # Then the books are what they were
    books = await ledger.books()
    assert (books.events, books.recipients, books.states) == (2, 1, {"delivered": 1, "retrying": 1})
    assert (books.attempts, books.balanced) == ({"wechat": 3}, True)
    assert await attempts_of(ledger, "e-1") == [(1, "wechat", "retry", "-1"), (2, "wechat", "accepted", "0")]
    # And an event that comes again is still known
    again = await ledger.admit([accepted("e-1"), accepted("e-2", amount=1)], NOW, owner, Tell())
    assert (again.accepted, again.duplicates, again.conflicts) == (0, [0], [1])
    # And what is due is brought back with its recipient whole
    (alert,) = await ledger.due("sms", NOW, owner, 10, "queued")
    assert (alert.id, alert.recipient.id, alert.recipient.locale, alert.recipient.openid) == (32, 7, "en", "o-1")
    assert alert.recipient.refused["wechat"].code == "43004"
    # And the counters go on
    assert await counted(ledger, owner, "day|Asia/Shanghai|2026-01-01|CNY|A-1") == 500
    assert await counted(ledger, owner, "bare") == 3
    assert await total_of(ledger, owner, "day|Asia/Shanghai|2026-01-01|CNY|A-1") == (500, 0)
    assert await state_of(ledger, "e-2") == "queued"
    # And whoever changes a recipient says so to what was planned before
    triggers = ledger.store.connection.execute("SELECT name FROM sqlite_schema WHERE type='trigger'").fetchall()
    assert {"recipients_added", "recipients_changed", "recipients_removed"} <= {name for (name,) in triggers}
    # And its recipients are found by their openid
    assert await ledger.heard([Heard("o-1", "follow", NOW + 1000)]) == 1
    # And what they agree to is kept
    account = accepted("e-1").event.account
    said = ConsentChange(account=account, key="promotion", consent=Consent(True, NOW, "form"))
    assert await ledger.consent([said], NOW) == Consented(1, 0, 0)
    assert [one.source for one in await ledger.consents_of(account)] == ["form", "wechat:subscribe"]
    await ledger.aclose()
    # And opening it once more changes nothing
    ledger = InlineLedger(str(path))
    assert (await ledger.books()).events == 2
    await ledger.aclose()


def tenth_layout(path: Path, ids: dict[str, int]) -> None:
    """A ledger whose segments were filed in place: these ids at their seqs, filed up to 2^20 + 2^15."""
    with closing(sqlite3.connect(path)) as connection:
        connection.create_function("crc32", 1, digest_of)
        for step in range(1, 11):
            script = files("dispatcher.ledger.schema").joinpath(f"{step:04}.sql").read_text(encoding="utf-8")
            connection.executescript(script)
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute("PRAGMA user_version=10")
        filed = (1 << 20) + (1 << 15) - 1
        for event_id, seq in ids.items():
            one, digest = accepted(event_id), digest_of(event_id)
            row = (seq, event_id, digest, one.event.account, NOW, NOW, one.payload.decode())
            connection.execute("INSERT INTO events VALUES (?,?,?,?,?,?,?)", row)
            if seq <= filed:
                key = seq >> 20 << 52 | digest << 20 | seq & (1 << 20) - 1
                connection.execute("INSERT INTO ids VALUES (?)", (key,))
        for segment, upto in ((0, (1 << 20) - 1), (1, filed)):
            digests = BitMap([digest_of(event_id) for event_id, seq in ids.items() if seq >> 20 == segment])
            connection.execute("INSERT INTO id_segments VALUES (?,?,?)", (segment, upto, digests.serialize()))
        connection.commit()


async def test_ids_that_were_filed_in_place_are_known_in_runs(tmp_path: Path) -> None:
    # Given a ledger with ids of a whole segment, of one that is being filed, and of none
    ids = {"e-first": 1, "e-whole": (1 << 20) - 1, "e-filed": (1 << 20) + 7, "e-recent": (1 << 20) + (1 << 15) + 9}
    path = tmp_path / "ledger.db"
    tenth_layout(path, ids)
    # When this version opens it
    ledger = InlineLedger(str(path))
    owner = await owner_of(ledger)
    # Then each id is known, and stands in the file once at most
    again = await ledger.admit([accepted(event_id) for event_id in (*ids, "e-new")], NOW, owner, Tell())
    assert (again.accepted, again.duplicates) == (1, [0, 1, 2, 3])
    places = find_seqs(ledger.store.connection, digest_of("e-filed"))
    assert places == [ids["e-filed"]]
    assert find_seqs(ledger.store.connection, digest_of("e-whole")) == [ids["e-whole"]]
    assert ledger.store.recent_ids == 2
    # And the set of the whole segment is in pieces, each with the digests that are its own
    sets = ledger.store.connection.execute("SELECT piece, digests FROM id_sets").fetchall()
    assert [piece for piece, _ in sets] == list(range(64))
    found = {(piece, digest) for piece, digests in sets for digest in BitMap.deserialize(digests)}
    assert found == {(digest >> 26, digest) for digest in map(digest_of, ("e-first", "e-whole"))}
    await ledger.aclose()


async def test_two_ids_of_one_digest_are_two_events() -> None:
    # Given two ids whose CRC-32 is the same
    first, second = "plumless", "buckeroo"
    ledger = InlineLedger()
    owner = await owner_of(ledger)
    # When both come, and then come again
    assert (await ledger.admit([accepted(first)], NOW, owner, Tell())).accepted == 1
    assert (await ledger.admit([accepted(second)], NOW, owner, Tell())).accepted == 1
    again = await ledger.admit([accepted(second), accepted(first)], NOW, owner, Tell())
    # Then each is known as itself
    assert (again.accepted, again.duplicates, again.conflicts) == (0, [0, 1], [])
    assert (await ledger.explain(second)) is not None
    await ledger.aclose()
