"""What is written about the tables: docs/channels.md, their notes, and what ``explain`` calls unknown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dispatcher.channels.document import FILE, document
from dispatcher.channels.table import AnswerTable
from dispatcher.channels.tables import TABLES, is_known
from dispatcher.ledger.stories import AttemptStory
from replay.explain import _attempt

ROOT = Path(__file__).parents[3]
ALL = [(channel, table) for channel, tables in TABLES.items() for table in tables]


def test_the_page_is_what_the_tables_say() -> None:
    assert (ROOT / FILE).read_text("utf-8") == document(), "run: python -m dispatcher.channels.document"


def test_the_module_writes_the_page(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "dispatcher.channels.document", tmp_path / "x.md"], cwd=ROOT, check=True)
    assert (tmp_path / "x.md").read_text("utf-8") == document()


@pytest.mark.parametrize(("channel", "table"), ALL, ids=lambda one: getattr(one, "provider", one))
def test_every_code_stands_on_the_page_with_its_meaning(channel: str, table: AnswerTable) -> None:
    page = document()
    for code, row in table.rows.items():
        assert row.note, code
        assert f"| `{code}` | {row.kind} | {row.scope} |" in page
        assert "|" not in row.note


def test_no_code_is_in_two_tables_of_a_channel() -> None:
    for tables in TABLES.values():
        codes = [code for table in tables for code in table.rows]
        assert len(codes) == len(set(codes))


@pytest.mark.parametrize(
    ("channel", "code", "known"),
    [
        ("wechat", "43004", True),
        ("wechat", "43119", False),
        ("wechat", "isv.SMS_CONTENT_ILLEGAL", False),
        ("sms", "4", True),
        ("sms", "43004", False),
        ("sms", "isv.SMS_CONTENT_ILLEGAL", True),
        ("sms", "aliyun:isv.NEW", False),
        ("sms", "http-400", True),
        ("carrier-pigeon", "42", True),
    ],
)
def test_explain_asks_the_table_of_the_channel(channel: str, code: str, known: bool) -> None:
    assert is_known(channel, code) is known


@pytest.mark.parametrize(
    ("channel", "code", "alarm"),
    [
        ("sms", "isv.NEW", True),
        ("sms", "isv.SMS_CONTENT_ILLEGAL", False),
        ("wechat", "43119", True),
        ("sms", "4", False),
    ],
)
def test_the_story_of_an_alert_says_which_code_no_table_knows(channel: str, code: str, alarm: bool) -> None:
    attempt = AttemptStory(n=1, channel=channel, at=0, took=5, outcome="permanent", code=code, msgid=None)
    assert ("a code that no table knows" in _attempt(attempt)) is alarm
