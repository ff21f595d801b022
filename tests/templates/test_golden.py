"""Golden renderings: what a template is known to make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from templates.golden import differences, renderings, update
from templates.loader import load_template
from tests.templates.lint_kit import GOOD, write


def test_all_channels_locales_and_cases_are_rendered(tmp_path: Path, make_facts: Any) -> None:
    # Given a template with four parts in two locales, and two events of which one cannot be rendered
    template = load_template(write(tmp_path, GOOD))
    events = {"lunch": make_facts(), "odd": make_facts(currency="QQQ")}
    # When it is rendered
    made = renderings(template, events)
    # Then each case, channel and locale has a text, and a failure is one, too
    assert len(made) == 4 * 4 * 2
    assert made["examples.wechat.zh-CN.txt"] == "thing1: 在Starbucks\namount2: ¥1.00\n"
    assert made["lunch.sms.en.txt"] == "¥38.00 at 星巴克南京西路店\n"
    assert made["lunch.email.en.txt"].startswith("Subject: ¥38.00 spent\n\n¥38.00 at 星巴克")
    assert made["bare.card.en.txt"] == "Starbucks\n¥1.00\npicture: https://bank.example/a.png\nlink: -\n"
    assert made["odd.sms.en.txt"] == "cannot be rendered: amount: is in an unknown currency\n"


def test_what_differs_is_told_and_updated(tmp_path: Path) -> None:
    # Given files of which one is missing, one has changed, and one is of a locale that is gone
    folder = tmp_path / "golden"
    made = renderings(load_template(write(tmp_path, GOOD)), {})
    update(folder, made, list(differences(folder, made)))
    assert list(differences(folder, made)) == []
    (folder / "examples.sms.en.txt").unlink()
    (folder / "bare.sms.en.txt").write_text("¥2.00 at Starbucks\n")
    (folder / "examples.sms.fr.txt").write_text("¥1.00\n")
    # When they are compared, Then each is told for what it is, the change as a unified diff
    found = list(differences(folder, made))
    assert [(Path(one.file).name, one.state) for one in found] == [
        ("bare.sms.en.txt", "changed"), ("examples.sms.en.txt", "new"), ("examples.sms.fr.txt", "stale"),
    ]  # fmt: skip
    assert found[0].diff.splitlines()[-2:] == ["-¥2.00 at Starbucks", "+¥1.00 at Starbucks"]
    # And an update makes them all the same again
    update(folder, made, found)
    assert list(differences(folder, made)) == []
