"""Versions of templates in the ledger: what is told, who said so, and that a version never says something else."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.ledger.api import Ledger
from dispatcher.ledger.people import ChangeRefused, Person
from dispatcher.ledger.template_changes import (
    MAX_OPEN_PROPOSALS,
    Approve,
    Offered,
    Reject,
    Rollback,
    Rollout,
    TemplateText,
    TemplateVersion,
)
from tests.dispatcher.ledger_kit import NOW

ANNA, BEN = Person("Anna Li", "anna"), Person("Ben", "ops")


def version(number: int, template: str = "swipe", *, approval: bool = False, says: str = "") -> Offered:
    content = says or f"{template}, version {number}"
    return Offered(
        id=template,
        version=number,
        digest=f"digest of {content}",
        content=content,
        layouts={"mail": "<p>"},
        by=ANNA,
        approval=approval,
    )


async def offered(ledger: Ledger, *versions: Offered, at_ms: int = NOW) -> list[str]:
    return [one.state for one in await ledger.templates_offered(versions, at_ms)]


async def approved(ledger: Ledger, number: int, percent: int = 100, by: Person = BEN) -> TemplateVersion:
    return await ledger.template_act(
        Approve(id="swipe", version=number, percent=percent, by=by, at_ms=NOW + 9, note="looks right")
    )


async def rolled_out(ledger: Ledger, number: int, percent: int) -> TemplateVersion:
    return await ledger.template_act(Rollout(id="swipe", version=number, percent=percent, by=BEN, at_ms=NOW + 9))


async def rolled_back(ledger: Ledger, template: str = "swipe") -> TemplateVersion:
    return await ledger.template_act(Rollback(id=template, by=BEN, at_ms=NOW + 9, note="odd"))


async def told(ledger: Ledger) -> dict[str, int]:
    """Per cent of the accounts by version."""
    now = await ledger.templates_in_use(-1)
    assert now is not None
    return {one.pinned: one.percent for one in now.versions}


async def test_what_a_library_brings_is_told_at_once_and_an_older_version_only_kept(ledger: Ledger) -> None:
    # Given a ledger that knows no templates, and a library
    assert await told(ledger) == {}
    assert await offered(ledger, version(2), version(1, "refund")) == ["active", "active"]
    # When an older version comes, and the next one
    assert await offered(ledger, version(1)) == ["retired"]
    assert await told(ledger) == {"swipe@2": 100, "refund@1": 100}
    assert await offered(ledger, version(3), version(2)) == ["active", "retired"]
    # Then the newest is told, and what each of them says is kept
    assert await told(ledger) == {"swipe@3": 100, "refund@1": 100}
    assert await ledger.template_texts(["swipe@1", "swipe@3", "swipe@4", "nothing", "swipe@x"]) == {
        "swipe@1": TemplateText("swipe, version 1", {"mail": "<p>"}),
        "swipe@3": TemplateText("swipe, version 3", {"mail": "<p>"}),
    }


async def test_whoever_knows_the_last_act_is_told_nothing(ledger: Ledger) -> None:
    await offered(ledger, version(1))
    now = await ledger.templates_in_use(0)
    assert now is not None
    assert await ledger.templates_in_use(now.act) is None
    # Another start with the same library is no news
    await offered(ledger, version(1), at_ms=NOW + 5)
    assert await ledger.templates_in_use(now.act) is None
    await offered(ledger, version(2))
    assert await ledger.templates_in_use(now.act) is not None


@pytest.mark.parametrize("approval", [False, True])
async def test_a_version_with_another_content_is_not_taken(ledger: Ledger, approval: bool) -> None:
    await offered(ledger, version(1))
    (kept,) = await ledger.templates_offered([version(1, says="something else", approval=approval)], NOW + 5)
    assert (kept.digest, kept.state) == ("digest of swipe, version 1", "active")
    assert (await ledger.template_texts(["swipe@1"]))["swipe@1"].content == "swipe, version 1"


async def test_what_a_ledger_begins_with_needs_no_approval_and_what_comes_later_does(ledger: Ledger) -> None:
    # Given the first library of a ledger, with approval asked for
    assert await offered(ledger, version(1, approval=True), version(1, "refund", approval=True)) == ["active"] * 2
    # When a version and a whole template are new
    assert await offered(ledger, version(2, approval=True), version(1, "large", approval=True)) == ["proposed"] * 2
    # Then they wait, however often they are offered
    await offered(ledger, version(2, approval=True))
    assert await told(ledger) == {"swipe@1": 100, "refund@1": 100}
    # And nobody lets his own through, however he spells himself
    for name in ("Anna Li", "ANNA LI", "Anna\u200bLi"):
        with pytest.raises(ChangeRefused, match=r"^template swipe@2: .* has proposed it and cannot approve it"):
            await approved(ledger, 2, by=Person(name))
    # When somebody else does
    done = await approved(ledger, 2)
    # Then it is told to all, and who said so is kept
    assert (done.state, done.before, done.note) == ("active", 1, "looks right")
    assert (done.proposed_by, done.proposed_as, done.proposed_at) == ("Anna Li", "anna", NOW)
    assert (done.approved_by, done.approved_as, done.approved_at) == ("Ben", "ops", NOW + 9)
    assert await told(ledger) == {"swipe@2": 100, "refund@1": 100}


async def test_a_version_is_rolled_out_step_by_step(ledger: Ledger) -> None:
    await offered(ledger, version(1))
    await offered(ledger, version(2, approval=True))
    # Given an approval for a tenth of the accounts
    assert (await approved(ledger, 2, 10)).state == "approved"
    assert await told(ledger) == {"swipe@1": 100, "swipe@2": 10}
    # When it goes to half of them, and to all
    await rolled_out(ledger, 2, 50)
    assert await told(ledger) == {"swipe@1": 100, "swipe@2": 50}
    assert (await rolled_out(ledger, 2, 100)).state == "active"
    assert await told(ledger) == {"swipe@2": 100}
    # And back to a tenth, though it was told to all
    await rolled_out(ledger, 2, 10)
    assert await told(ledger) == {"swipe@1": 100, "swipe@2": 10}
    # Then each step is kept with what was told from then on
    acts = (await ledger.template_history(9, "swipe")).acts
    assert [(one.act, one.version, one.active, one.rolling, one.percent) for one in reversed(acts)] == [
        ("load", 1, 1, None, 0),
        ("propose", 2, 1, None, 0),
        ("approve", 2, 1, 2, 10),
        ("rollout", 2, 1, 2, 50),
        ("rollout", 2, 2, None, 0),
        ("rollout", 2, 1, 2, 10),
    ]


async def test_a_rollback_goes_to_the_version_before_and_the_next_start_does_not_undo_it(ledger: Ledger) -> None:
    for number in (1, 2, 3):
        await offered(ledger, version(number))
    # When the newest is taken back
    assert (await rolled_back(ledger)).pinned == "swipe@3"
    assert await told(ledger) == {"swipe@2": 100}
    # Then the library that brings it again does not put it back
    assert await offered(ledger, version(3)) == ["withdrawn"]
    assert await told(ledger) == {"swipe@2": 100}
    # And the next rollback goes further back, to the first and no further
    await rolled_back(ledger)
    assert await told(ledger) == {"swipe@1": 100}
    with pytest.raises(ChangeRefused, match=r"^template swipe@1 has no version before it"):
        await rolled_back(ledger)
    # And a person may bring one forth again, and a newer one comes by itself
    await rolled_out(ledger, 3, 20)
    assert await told(ledger) == {"swipe@1": 100, "swipe@3": 20}
    assert await offered(ledger, version(4)) == ["active"]
    assert await told(ledger) == {"swipe@4": 100}


async def test_a_rollback_never_tells_what_was_taken_back_before(ledger: Ledger) -> None:
    # Given three versions, of which the first was brought forth again and taken back
    for number in (1, 2, 3):
        await offered(ledger, version(number))
    await rolled_out(ledger, 1, 100)
    await rolled_back(ledger)
    assert await told(ledger) == {"swipe@3": 100}
    # When the third is taken back, then the second is told, and after that there is nothing to go back to
    await rolled_back(ledger)
    assert await told(ledger) == {"swipe@2": 100}
    with pytest.raises(ChangeRefused, match=r"^template swipe@2 has no version before it"):
        await rolled_back(ledger)


async def test_a_rollback_during_a_rollout_leaves_all_on_the_version_before(ledger: Ledger) -> None:
    await offered(ledger, version(1))
    await offered(ledger, version(2, approval=True))
    await approved(ledger, 2, 10)
    assert (await rolled_back(ledger)).pinned == "swipe@2"
    assert await told(ledger) == {"swipe@1": 100}


async def test_of_a_template_one_version_is_rolled_out_at_a_time(ledger: Ledger) -> None:
    await offered(ledger, version(1))
    await offered(ledger, version(2, approval=True), version(3, approval=True))
    await approved(ledger, 2, 10)
    with pytest.raises(ChangeRefused, match=r"^template swipe@2 is told to 10 % of the accounts: roll it out to all"):
        await approved(ledger, 3, 10)
    await rolled_out(ledger, 2, 100)
    await approved(ledger, 3, 10)
    assert await told(ledger) == {"swipe@2": 100, "swipe@3": 10}


async def test_a_new_template_may_be_told_to_some_before_there_is_anything_for_the_others(ledger: Ledger) -> None:
    await offered(ledger, version(1, "refund"))
    await offered(ledger, version(1, approval=True))
    await approved(ledger, 1, 10)
    assert await told(ledger) == {"refund@1": 100, "swipe@1": 10}
    with pytest.raises(ChangeRefused, match=r"^template refund@1 has no version before it that the others"):
        await ledger.template_act(Rollout(id="refund", version=1, percent=50, by=BEN, at_ms=NOW))
    assert await told(ledger) == {"refund@1": 100, "swipe@1": 10}


async def test_a_rejected_version_is_refused_for_good(ledger: Ledger) -> None:
    await offered(ledger, version(1))
    await offered(ledger, version(2, approval=True))
    done = await ledger.template_act(Reject(id="swipe", version=2, by=BEN, at_ms=NOW, note="too long"))
    assert (done.state, done.note) == ("rejected", "too long")
    assert await offered(ledger, version(2)) == ["rejected"]
    with pytest.raises(ChangeRefused, match=r"^template swipe@2 was rejected; give the next try a higher version$"):
        await approved(ledger, 2)
    with pytest.raises(ChangeRefused, match=r"^template swipe@2 is rejected; it has to be approved"):
        await rolled_out(ledger, 2, 10)
    assert await told(ledger) == {"swipe@1": 100}


async def test_once_nobody_is_asked_any_more_what_waited_is_told(ledger: Ledger) -> None:
    await offered(ledger, version(1))
    await offered(ledger, version(2, approval=True))
    assert await offered(ledger, version(2)) == ["active"]
    assert await told(ledger) == {"swipe@2": 100}


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (
            Approve(id="swipe", version=9, percent=100, by=BEN, at_ms=NOW),
            r"there is no template swipe@9 .* versions are 1 \(told to 100 % of the accounts\)$",
        ),
        (Approve(id="large", version=1, percent=100, by=BEN, at_ms=NOW), r"there is no template large in this ledger"),
        (Approve(id="swipe", version=1, percent=100, by=BEN, at_ms=NOW), r"template swipe@1 is told to 100 %"),
        (Reject(id="swipe", version=1, by=BEN, at_ms=NOW, note="x"), r"template swipe@1 is told to 100 %"),
        (Rollout(id="swipe", version=1, percent=100, by=BEN, at_ms=NOW), r"template swipe@1 is told .* already$"),
        (Rollback(id="large", by=BEN, at_ms=NOW), r"there is no template large in this ledger"),
    ],
)
async def test_what_cannot_be_done_is_said_and_changes_nothing(ledger: Ledger, act: Any, words: str) -> None:
    await offered(ledger, version(1))
    with pytest.raises(ChangeRefused, match=f"^{words}"):
        await ledger.template_act(act)
    assert await told(ledger) == {"swipe@1": 100}
    assert len((await ledger.template_history(9)).acts) == 1


async def test_a_file_that_is_written_again_and_again_does_not_fill_the_ledger(ledger: Ledger) -> None:
    await offered(ledger, version(1))
    await offered(ledger, *(version(2 + number, approval=True) for number in range(MAX_OPEN_PROPOSALS)))
    with pytest.raises(ChangeRefused, match=f"^{MAX_OPEN_PROPOSALS} versions of template swipe wait"):
        await offered(ledger, version(999, approval=True))


async def test_the_history_tells_of_all_of_a_template_or_of_a_version(ledger: Ledger) -> None:
    await offered(ledger, version(1), version(1, "refund"))
    await offered(ledger, version(2))
    whole = await ledger.template_history(2)
    assert [one.pinned for one in whole.versions] == ["refund@1", "swipe@2", "swipe@1"]
    assert [(one.id, one.version) for one in whole.acts] == [("swipe", 2), ("refund", 1)]
    one = await ledger.template_history(9, "swipe", 1)
    assert ([row.pinned for row in one.versions], [row.version for row in one.acts]) == (["swipe@1"], [1])
