"""What-if: digests that a draft gathers and the record does not know."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from dispatcher.model.recipient import RecipientLine
from tests.replay.test_whatif import DAILY
from tests.replay.whatif_kit import START, Bank, event

NIGHT = """
[[rule]]
id = "night"
effect = "quiet_hours"
from = "12:00"
to = "23:00"
when = {{ category = "{category}" }}
"""


def test_a_digest_that_the_draft_would_gather_is_told_when_it_is_due(tmp_path: Path) -> None:
    # Given a day on which five swipes were all told
    bank = Bank(tmp_path / "ledger.db", "version = 1\n")
    bank.recipients(RecipientLine(account="A-0", openid="o-0", channels=("wechat",)))
    for number in range(5):
        moment = START + timedelta(hours=number)
        bank.admit(moment, event(number, moment, "A-0"))
    draft = (
        DAILY.format(limit=2)
        + 'at_cap = "digest"\ndigest = { after_minutes = 600 }\nwhen = { category = ["swipe", "service"] }\n'
    )
    # When a draft folds what is above two, Then three are folded, and one digest is told besides the two
    prediction = bank.what_if(draft, START, START + timedelta(days=1))
    assert prediction.predicted.counts == {("sent", "wechat"): 3, ("folded", "daily"): 3}
    assert (prediction.digests, prediction.digests_predicted, prediction.gathering) == (0, 1, 0)
    # And while it is not due, it is gathering
    prediction = bank.what_if(draft, START, START + timedelta(hours=6))
    assert (prediction.digests_predicted, prediction.gathering) == (0, 1)
    bank.store.close()


@pytest.mark.parametrize(("category", "state"), [("swipe", ("held", "night")), ("service", ("sent", "wechat"))])
def test_a_digest_that_the_draft_gathers_goes_by_the_category_of_its_members(
    tmp_path: Path, category: str, state: tuple[str, str]
) -> None:
    # Given a morning on which three swipes were told, where the recipient is in Shanghai
    bank = Bank(tmp_path / "ledger.db", "version = 1\n")
    bank.recipients(RecipientLine(account="A-0", openid="o-0", channels=("wechat",)))
    begin = START - timedelta(hours=3)  # 09:00
    for number in range(3):
        moment = begin + timedelta(minutes=number)
        bank.admit(moment, event(number, moment, "A-0"))
    # When a draft folds two of them till noon, and has quiet hours for their category or for another one
    draft = (
        DAILY.format(limit=1) + 'at_cap = "digest"\ndigest = { after_minutes = 240 }\nwhen = { category = "swipe" }\n'
    )
    prediction = bank.what_if(draft + NIGHT.format(category=category), begin, begin + timedelta(days=1))
    # Then their digest is held only by those of theirs
    assert prediction.predicted.counts == {("sent", "wechat"): 1, ("folded", "daily"): 2} | {
        state: 2 if state == ("sent", "wechat") else 1
    }
    bank.store.close()
