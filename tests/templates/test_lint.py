"""Lint: everything that is wrong with a template is said, with file, line and remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from templates.errors import TemplateError
from templates.layouts import SHIPPED
from templates.limits import check
from templates.lint import lint_file, lint_folder
from templates.loader import load_template
from templates.longest import longest_values
from tests.templates.lint_kit import GOOD, line_of, write


def test_a_good_template_and_the_shipped_ones_are_without_errors(tmp_path: Path) -> None:
    # Given a small good template and the shipped library, When they are linted
    (good,) = lint_file(write(tmp_path, GOOD))
    shipped = lint_folder(SHIPPED)
    # Then nothing is found in the one, and no error in the others
    assert (good.id, good.version, good.findings) == ("hello", 3, ())
    assert good.sms["en"].example == 1
    assert [str(finding) for one in shipped for finding in one.findings if finding.severity == "error"] == []
    assert "swipe" in {one.id for one in shipped}


MISTAKES = [
    # what is replaced, by what, on the line of which mark, what is said, and the remedy
    ("在{{ merchant }}\n消费", "在{{ merchant }}\n消费{{ ", "消费{{ ", r"\[sms.zh-CN\] text: SyntaxError",
     r"\{\{ field \}\}"),
    ("\n消费{{ amount }}", "\n消费{{ amuont }}", "amuont", "unknown field 'amuont'", "did you mean 'amount'"),
    ("\n消费{{ amount }}", "\n{{ city }}", "{{ city }}", "unknown field 'city'", r"add it to \[\[fields\]\]"),
    ("\n消费{{ amount }}", "\n{{ amount | shout }}", "shout", "shout", "filter"),
    ("\n消费{{ amount }}", "\n{% for i in range(9999) %}x{% endfor %}", "{% for", r"\[sms.zh-CN\] text: .*OutOfFuel",
     "remove the loop"),
    ('"{{ amount }} at {{ merchant }}"\n\n[email', '"{{ \'x\' * 1000000 }}"\n\n[email', "1000000", "is not available",
     "leave it out"),
    ("在{{ merchant }}\n", "{% for i in range(90) %}" + "x" * 60 + "{% endfor %}\n", "text = '''",
     "more than 4096 characters of output", "write less"),
    ("[sms.zh-CN]", "[sms.zh-HK]", "[sms.zh-HK]", r"\[sms.zh-CN\]: is missing", "translate"),
    ("[card.en]", "[card.fr]", "[card.zh-CN]", r"\[card.en\]: is missing", "translate"),
    ('amount2 = "{{ amount }}"\n\n[wechat.en]', 'amount2 = "{{ merchant }}"\n\n[wechat.en]', 'amount2 = "{{ m',
     r"\[wechat.zh-CN\] amount2: is a key of type amount and shows 'merchant', which is a text", "field of type money"),
    ('type = "money"', 'type = "word"', '[[fields]]\nname = "amount"', "has type 'word'", "of type 'money'"),
    ('thing1 = "at', 'thin1 = "at', "thin1", "is not a typed key", "types are thing, short_thing"),
    ('picture = "https:', 'picture = "http:', 'picture = "http:', r"\[card.zh-CN\] picture: is not an https address",
     "https://"),
    ("<p>在", '<p><a href="http://bank.example">账单</a>在', "<p><a", "its href is not https", "https://"),
    ("<p>在", '<img src="https://bank.example/a.png"><p>在', "<img", "has no alt text", "alt="),
    ("<p>在", '<p style="color:#999">在', "#999",
     r"text #999999 on #ffffff has a contrast of 2.8:1 in light", "darker"),
    ('amount2 = "{{ amount }}"\n\n[sms', 'amount2 = "{{ amount }}"\nthing3 = "a"\nthing4 = "b"\nthing5 = "c"\n'
     'thing6 = "d"\n\n[sms', "[wechat.en]", "has 6 keys", "remove 1"),
    ('subject = "{{ amount }} spent"', 'subject = "{{ amount }}\\nBcc: all"', "Bcc", "has a line break", "one line"),
    ('subject = "{{ amount }} spent"', 'subject = "<b>{{ amount }}</b>"', "<b>", "has markup", "plain text"),
    ("\n消费", "\n消\u0085费", "\u0085", r"holds a control character \('.x85'\)", "remove"),
    ("\n消费", "\n消\u202e费", "\u202e", "holds a control character", "remove"),
    ("\n消费", "\n{{ '\\u202e' }}消费", "u202e", "UnknownEscape", "the character itself"),
    ('id = "hello"', 'id = "hello\\n"', "id =", "id: Expected `str` matching", "library/swipe"),
    ('id = "hello"', 'id = "hello"\nowner = "a\\u001b[31m"', "owner", "owner: holds a control character",
     "remove it"),
    ('id = "hello"', 'id = "hello"\nauthor = "me"', "author", "unknown field `author`", "known are id, version"),
    ("version = 3", "version = = 3", "version", "is not TOML", "correct that line"),
    ("version = 3", "version = " + "[" * 20_000, "id", "nested too deep", "tables and texts"),
    ("version = 3", "version = " + "9" * 5_000, "id", "thousands of digits", "shorten it"),
    ("version = 3", "version = 0", "version", "Expected `int` >= 1", "library/swipe"),
    ('category = "branch"', 'category = "promotion"', 'text = "{{', "does not say how to leave", "unsubscribe"),
    ('category = "branch"', 'category = "branch"\n[match]\ncategory = ["branch", "promotion"]', 'text = "{{',
     "does not say how to leave", "unsubscribe"),
    ('"{{ amount }} at {{ merchant }}"\n\n[email', '"支出{{ amount }} at {{ merchant }}"\n\n[email', "支出",
     "is Chinese", "translate"),
    ('[wechat.zh-CN]', '[[fields]]\nname = "tail"\ntype = "word"\nexample = "1"\n\n[wechat.zh-CN]',
     '[[fields]]\nname = "tail"', "is used in no part", "remove it"),
    ('thing1 = "at {{ merchant }}"', 'thing1 = "the whole sum: {{ amount }}"', "whole sum",
     r"\{\{ amount \}\} has no room and is shown as --", "shorten the words"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "mark", "what", "remedy"), MISTAKES)
def test_a_mistake_is_told_with_file_line_and_remedy(
    tmp_path: Path, old: str, new: str, mark: str, what: str, remedy: str
) -> None:
    # Given one mistake in a good template
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    path = write(tmp_path, text)
    # When it is linted, Then one finding names it with its file, its line and what to do
    (linted,) = lint_file(path)
    found = [
        one
        for one in linted.findings
        if one.line == line_of(text, mark) and re.search(what, f"{one.where}: {one.what}")
    ]
    assert found, "\n".join(map(str, linted.findings))
    assert all(one.file == str(path) for one in found)
    assert any(re.search(remedy, one.remedy) for one in found), found


def test_what_an_editor_writes_first_of_all_is_no_mistake(tmp_path: Path) -> None:
    # Given a file with a byte order mark
    path = write(tmp_path, "\ufeff" + GOOD)
    # Then it is as without
    (linted,) = lint_file(path)
    assert linted.findings == ()
    assert load_template(path).text == GOOD


def test_all_mistakes_are_told_and_not_only_the_first(tmp_path: Path) -> None:
    # Given three mistakes in three parts
    text = (
        GOOD.replace("{{ merchant }}消费", "{{ merchnat }}消费")
        .replace("thing1 =", "thin1 =")
        .replace("https:", "http:")
    )
    # When the template is linted, Then all of them are named, in the order of the file
    (linted,) = lint_file(write(tmp_path, text))
    told = " ".join(map(str, linted.findings))
    assert "merchnat" in told
    assert told.count("is not a typed key") == 2
    assert told.count("is not an https address") == 2
    lines = [one.line or 0 for one in linted.findings]
    assert lines == sorted(lines)
    assert linted.errors == len(linted.findings)


LOOP = "{% for i in range(600) %}{% endfor %}"
LONG = "{{ merchant }}" * 5


@pytest.mark.parametrize(
    ("first", "second", "what", "remedy"),
    [
        ("{% block a %}x{% endblock %}", "{% block a %}y{% endblock %}", "SyntaxError: block 'a' defined twice", ""),
        (f"a{LOOP}", f"b{LOOP}", "OutOfFuel", "remove the loop"),
        (f"{{% if true %}}{LONG}{{% endif %}}", f"{{% if true %}}{LONG}{{% endif %}}",
         "more than 4096 characters of output", "write less"),
    ],
    ids=["two blocks of one name", "too much fuel", "too much text"],
)  # fmt: skip
def test_keys_of_wechat_that_are_well_alone_and_not_together_are_a_finding(
    tmp_path: Path, first: str, second: str, what: str, remedy: str
) -> None:
    # Given two keys of which each alone could be told, and an alert that renders both as one text
    keys = f'thing1 = "{first}"\nthing2 = "{second}"\n'
    text = GOOD.replace('thing1 = "在{{ merchant }}"\n', keys).replace('thing1 = "at {{ merchant }}"\n', keys)
    # When it is linted, Then each locale's table is named once, and that they are meant together
    (linted,) = lint_file(write(tmp_path, text))
    found = [one for one in linted.findings if "cannot be rendered together" in one.what]
    assert [(one.where, one.severity) for one in found] == [("[wechat.zh-CN]", "error"), ("[wechat.en]", "error")]
    assert [one.line for one in found] == [line_of(text, "[wechat.zh-CN]"), line_of(text, "[wechat.en]")]
    assert all(what in one.what and remedy in one.remedy for one in found), found
    # And no other error is told
    assert linted.errors == 2, linted.findings
    # And where an example shows it already, the library that an engine holds says so, too, and ends nothing
    if what.startswith(("Syntax", "Out")):
        with pytest.raises(TemplateError, match="cannot be rendered together"):
            load_template(tmp_path / "hello" / "template.toml")


def test_two_templates_with_one_id_are_both_named(tmp_path: Path) -> None:
    first, second = write(tmp_path, GOOD, "a"), write(tmp_path, GOOD, "b")
    findings = [finding for one in lint_folder(tmp_path) for finding in one.findings]
    assert [(one.file, one.line) for one in findings] == [(str(second), 1)]
    assert str(first) in findings[0].what


def test_a_broken_layout_and_a_missing_folder_are_findings(tmp_path: Path) -> None:
    # Given a good template beside a layout with a syntax error
    write(tmp_path, GOOD)
    (tmp_path / "_layout").mkdir()
    (tmp_path / "_layout" / "ours.html").write_text("<p>\n{% block }</p>")
    # When the folder is linted, Then the layout is named, and the template is looked at all the same
    layout, template = lint_folder(tmp_path)
    assert layout.findings[0].line == 2
    assert layout.errors == 1
    assert template.findings == ()
    # And a folder that is not there is one finding
    assert "is not a folder" in str(lint_folder(tmp_path / "nowhere")[0].findings[0])


def test_the_longest_values_are_within_what_wechat_takes(tmp_path: Path) -> None:
    # Given a good template, When it is filled with each set of longest values
    template = load_template(write(tmp_path, GOOD))
    sets = list(longest_values(template.examples("en"), "en"))
    # Then no field is refused, and the sets do reach the limits
    assert [check(template.fill_wechat(one.values, "en")) for one in sets] == [[]] * len(sets)
    assert max(len(one.values["merchant"]) for one in sets) == 512
    assert max(sum(sign.isdigit() for sign in one.values["amount"]) for one in sets) == 10


def test_two_templates_for_the_same_events_are_warned_of(tmp_path: Path) -> None:
    # Given a copy of the shipped refund under another id, and one that replaces it
    refund = (SHIPPED / "refund" / "template.toml").read_text("utf-8")
    write(tmp_path, refund.replace('id = "refund"', 'id = "my-refund"'), "copy")
    write(tmp_path, refund, "refund")
    # When they are linted, Then the copy is named, since only one of the two is ever told
    copy, replacement = lint_folder(tmp_path)
    (finding,) = (one for one in copy.findings if one.where == "[match]")
    assert finding.what == "is for the same events as 'refund', and 'my-refund' is the one that is used"
    assert (finding.line, finding.severity) == (line_of(refund, "[match]"), "warning")
    assert replacement.findings == ()
