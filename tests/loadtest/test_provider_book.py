"""The book: what is kept, what is written to its file, and what does not print."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from loadtest.providers import book as book_module
from loadtest.providers import latest as latest_module
from loadtest.providers.book import Book


def deliver(book: Book, number: int) -> None:
    book.deliver_wechat(openid="oSecret", client_msg_id=f"a{number}", msgid=number, data={"thing1": "x"}, now=5.0)


def test_only_the_first_bodies_are_kept() -> None:
    book = Book(keep_bodies=2)
    for number in range(3):
        deliver(book, number)
        book.deliver_sms(message_id=f"s{number}", to="+8613800138000", text="x", now=5.0)
    assert [row.data is not None for row in book.wechat_messages] == [True, True, False]
    assert [row.text for row in book.sms_messages] == ["x", "x", None]


def test_rows_do_not_print_whom_they_are_for() -> None:
    book = Book(keep_bodies=1)
    deliver(book, 1)
    book.deliver_sms(message_id="s", to="+8613800138000", text="x", now=5.0)
    shown = f"{book.wechat_messages} {book.sms_messages}"
    assert "oSecret" not in shown
    assert "+86" not in shown


def test_each_acceptance_is_a_line_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "book.ndjson"
    book = Book(keep_bodies=1, file=file)
    deliver(book, 1)
    (message,) = book.wechat_messages
    book.repeat_wechat(message, 6.0)
    book.deliver_sms(message_id="s", to="+8613800138000", text="x", now=7.0)
    assert file.read_bytes() == b""
    book.flush()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["channel"], line["delivered"], line["at"]) for line in lines] == [
        ("wechat", True, 5.0),
        ("wechat", False, 6.0),
        ("sms", True, 7.0),
    ]
    assert lines[0]["data"] == {"thing1": "x"}
    # And what is not flushed yet is written at the close, after what an earlier run wrote.
    deliver(book, 2)
    book.close()
    book.close()
    assert len(file.read_text().splitlines()) == 4
    again = Book(keep_bodies=1, file=file)
    deliver(again, 3)
    again.close()
    assert len(file.read_text().splitlines()) == 5
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_full_buffer_is_written_without_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "MAX_BUFFER_BYTES", 300)
    book = Book(keep_bodies=0, file=tmp_path / "book.ndjson")
    for number in range(10):
        deliver(book, number)
    assert (tmp_path / "book.ndjson").stat().st_size >= 300
    book.close()


def test_messages_beyond_the_bound_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_module, "MAX_MESSAGES", 2)
    monkeypatch.setattr(latest_module, "MAX_INDEXED", 2)
    book = Book(keep_bodies=0)
    for number in range(5):
        deliver(book, number)
    assert (len(book.wechat_messages), book.wechat.delivered, book.wechat.unlisted) == (2, 5, 3)
    # And at least the latest are still recognised, the oldest forgotten.
    known = [book.same_message("oSecret", f"a{number}", 0.0) is not None for number in range(5)]
    assert known == [False, False, True, True, True]
