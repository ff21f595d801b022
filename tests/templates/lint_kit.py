"""A template that lint finds nothing in, to make one mistake in."""

from __future__ import annotations

from pathlib import Path

GOOD = """\
id = "hello"
version = 3
category = "branch"

[[fields]]
name = "merchant"
type = "text"
example = "Starbucks"

[[fields]]
name = "amount"
type = "money"
example = "¥1.00"

[wechat.zh-CN]
thing1 = "在{{ merchant }}"
amount2 = "{{ amount }}"

[wechat.en]
thing1 = "at {{ merchant }}"
amount2 = "{{ amount }}"

[sms.zh-CN]
text = '''
在{{ merchant }}
消费{{ amount }}'''

[sms.en]
text = "{{ amount }} at {{ merchant }}"

[email.zh-CN]
subject = "消费{{ amount }}"
text = "在{{ merchant }}消费{{ amount }}"
html = '''
<html lang="zh-CN"><body style="color:#111111;background:#ffffff">
<p>在{{ merchant }}消费{{ amount }}</p>
</body></html>
'''

[email.en]
subject = "{{ amount }} spent"
text = "{{ amount }} at {{ merchant }}"
html = '''
<html lang="en"><body style="color:#111111;background:#ffffff">
<p>{{ amount }} at {{ merchant }}</p>
</body></html>
'''

[card.zh-CN]
title = "{{ merchant }}"
description = "{{ amount }}"
picture = "https://bank.example/a.png"

[card.en]
title = "{{ merchant }}"
description = "{{ amount }}"
picture = "https://bank.example/a.png"
"""


def line_of(text: str, mark: str) -> int:
    """The line on which ``mark`` stands, from 1."""
    return text[: text.index(mark)].count("\n") + 1


def write(folder: Path, text: str, name: str = "hello") -> Path:
    """The template as a library has it."""
    path = folder / name / "template.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path
