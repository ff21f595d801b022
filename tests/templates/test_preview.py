"""The page that shows a template: what stands on it, that values stay values, and that it asks for nothing."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from templates.facts import FIELDS
from templates.findings import Finding
from templates.library import Library, load_template
from templates.limits import segments
from templates.preview import MAX_LOCALES, Look, preview_of, render_index, render_preview
from templates.preview_cases import cases_of
from templates.preview_labels import LABELS, TITLES
from templates.preview_view import PLACEHOLDER, channel_views, in_scheme, sources_of
from templates.template import Template
from templates.text import units
from tests.templates.conftest import MakeFacts

HOSTILE = (
    "</script><script>window.taken = 1</script>",
    "<img src=x onerror='window.taken = 1'>",
    '" onload="window.taken = 1" x="',
    "{{ 7 * 7 }}{% for i in range(9) %}x{% endfor %}",
    "</iframe></style></textarea><base href='https://evil.example/'>",
    "\u202e\u2066abc\r\nBcc: evil@example.com",
)

SHIPPED = sorted(Library.load(), key=lambda template: template.id)


class Reader(HTMLParser):
    """The tags of a page with the names of their attributes, its links, its mails and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.addresses: list[str] = []
        self.mails: list[str] = []
        self.sandboxes: set[str] = set()
        self.policy = ""
        self.scripts: list[str] = []
        self._texts: list[str] = []
        self._tag = ""
        self.feed(page)
        self.close()
        self.text = " ".join(" ".join(self._texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self._tag = tag
        self.tags.append((tag, tuple(values)))
        self.addresses += [values[name] for name in ("src", "href", "action", "srcset") if name in values]
        if tag == "iframe":
            self.mails.append(values["srcdoc"])
            self.sandboxes.add(values.get("sandbox", "none"))
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"]

    def handle_data(self, data: str) -> None:
        if self._tag == "script":
            self.scripts.append(data)
        elif self._tag != "style":
            self._texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._tag = ""


def page_of(template: Template, **settings: Any) -> Reader:
    return Reader(render_preview(preview_of(template, **settings)))


@pytest.mark.parametrize("template", SHIPPED, ids=lambda template: template.id)
def test_each_shipped_template_is_shown_on_all_its_channels(template: Template) -> None:
    """Given a shipped template, then no case of it is refused, and each has its mails in two widths, light and dark."""
    page = render_preview(preview_of(template))
    assert 'class="refused"' not in page
    cases, locales = 3, 2
    assert page.count("<iframe") == ("email" in template.channels) * cases * locales * 4
    for case in cases_of(template, ["zh-CN", "en"]):
        assert f'<section class="case" id="{case.id}">' in page


def test_the_page_says_what_the_cardholder_reads(swipe: Template, make_facts: MakeFacts) -> None:
    """Given a real event, then its renderings stand on the page word for word, the SMS with its sign and its parts."""
    facts = make_facts(amount=123456, merchant="南京西路店", city=None)
    page = page_of(swipe, facts=facts, look=Look(sign="【银行】"))
    for locale in ("zh-CN", "en"):
        for field in swipe.render_wechat(facts, locale).values():
            assert field["value"] in page.text
        sms = swipe.render_sms(facts, locale)
        assert sms in page.text
        whole = "【银行】" + sms
        parts = segments(whole)
        assert f"{parts} segment{'s' * (parts > 1)} {units(whole)} UCS-2 units with the sign" in page.text
        mail = swipe.render_email(facts, locale)
        assert mail.subject in page.text
        for scheme in ("light", "dark"):
            assert page.mails.count(in_scheme(mail.html, scheme)) == 2, "at two widths"


def test_the_page_asks_for_nothing(swipe: Template) -> None:
    """Given any page, then its policy allows no request, its one script is named by hash, and links stay inside."""
    index = Reader(render_index([preview_of(swipe)], ["preview-swipe.html"]))
    for page in (page_of(swipe, index="index.html"), index):
        (script,) = page.scripts
        digest = b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert page.policy.startswith("default-src 'none'; ")
        assert re.findall(r"script-src [^;]*", page.policy) == [f"script-src 'sha256-{digest}'"]
        assert {a for a in page.addresses if not a.startswith(("#", "data:image/svg+xml,"))} <= {
            "index.html",
            "preview-swipe.html",
        }
        assert not {tag for tag, _ in page.tags} & {"link", "object", "embed", "form", "base"}
    assert page_of(swipe).sandboxes == {"allow-same-origin"}, "no scripts, no forms, no windows"


@pytest.fixture(scope="module")
def show(swipe: Template, make_facts: MakeFacts) -> Callable[[str], Reader]:
    """The page of an event all of whose texts are this one."""

    @cache
    def shown(text: str) -> Reader:
        return page_of(swipe, facts=make_facts(merchant=text, city=text, status=text, mcc=text, country=text))

    return shown


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_values_stay_values(show: Callable[[str], Reader], hostile: str) -> None:
    """Given markup and template syntax in an event, then the page and its mails have the tags of a harmless one."""
    page, harmless = show(hostile), show("x" * 50)
    varying = ("li", "ul", "p", "i", "b", "small")  # lists of what is shortened, and an SMS's parts, are longer or not
    assert [tag for tag in page.tags if tag[0] not in varying] == [
        tag for tag in harmless.tags if tag[0] not in varying
    ]
    for one, other in zip(page.mails, harmless.mails, strict=True):
        assert Reader(one).tags == Reader(other).tags
    assert "49xxxxxxxxx" not in page.text
    assert "\u202e" not in page.text


def test_lint_stands_at_the_top(swipe: Template) -> None:
    """Given findings, then each is told with its line, place and remedy, as text, before the first case."""
    found = Finding("t.toml", 85, "[wechat.en] thing9", "<b>is too long</b>", "shorten it", "error")
    text = page_of(swipe, findings=[found]).text
    told = "error line 85: [wechat.en] thing9: <b>is too long</b>; shorten it"
    assert 0 < text.index(told) < text.index("An ordinary alert What")
    assert "lint found nothing" in page_of(swipe, findings=[]).text
    assert "lint" not in page_of(swipe).text.lower(), "nobody has looked"


def what_was_shortened(template: Template, **settings: Any) -> dict[str, list[tuple[str, str]]]:
    """By locale, for the first case."""
    preview = preview_of(template, **settings)
    found = {}
    for locale in preview.locales:
        view = channel_views(template, preview.cases[0], locale, sources_of(template), "【银行】")
        found[locale] = [(one["channel"], one["what"]) for one in view["shortened"]]
    return found


def test_what_was_shortened_is_told(swipe: Template, make_facts: MakeFacts) -> None:
    """Given a merchant of 30 characters and an amount of ten digits, then the page says which lost what, where."""
    facts = make_facts(merchant="国" * 30, amount=9_999_999_999, day_total_minor=None)
    assert what_was_shortened(swipe, facts=facts)["zh-CN"] == [
        ("WeChat", "amount without its separators"),
        ("WeChat", "merchant cut from 30 to 19 characters"),
    ]
    assert what_was_shortened(swipe, facts=make_facts()) == {"zh-CN": [], "en": []}


def test_a_refusal_is_shown_in_the_alert_s_place(swipe: Template, make_facts: MakeFacts) -> None:
    """Given an amount that WeChat does not take, then the page says so there, and shows the other channels."""
    text = page_of(swipe, facts=make_facts(amount=99_999_999_999_999)).text
    assert "Refused. amount2: has more than 10 digits" in text
    assert "¥999,999,999,999.99" in text


def test_pictures_of_a_mail_are_stood_in_for(tmp_path: Path, swipe: Template) -> None:
    """Given a mail with a picture, then no frame names its address: one shows a drawing, on the phone it is missing."""
    text = swipe.path.read_text(encoding="utf-8")
    folder = tmp_path / "t" / "template.toml"
    folder.parent.mkdir()
    picture = "<img alt='Shop' src='https://bank.example/shop.png' width='9'>"
    html = f'html = "<p>{picture} {{{{ amount }}}}</p>"'
    changed = re.sub(r'^html = """.*?"""', lambda _: html, text, flags=re.DOTALL | re.MULTILINE)
    assert picture in changed
    folder.write_text(changed, encoding="utf-8")
    page = page_of(load_template(folder))
    assert not [mail for mail in page.mails if "bank.example" in mail]
    with_picture = [mail for mail in page.mails if f'src="{PLACEHOLDER}"' in mail]
    without = [mail for mail in page.mails if 'src=""' in mail]
    assert len(with_picture) == len(without) == len(page.mails) / 2 > 0


def test_a_mail_is_shown_in_the_colours_that_it_has() -> None:
    """Given a mail with colours for the dark, then they hold in the dark frame only; without any, it stays as it is."""
    mail = "<style>@media (prefers-color-scheme: dark) { p { color: #fff } }</style><p>text</p>"
    assert "@media all {" in in_scheme(mail, "dark")
    assert "@media not all {" in in_scheme(mail, "light")
    assert in_scheme("<p>text</p>", "dark") == "<p>text</p>"


def test_locales_can_be_chosen(swipe: Template) -> None:
    """Given other locales, then each is shown in its nearest translation; too many, or none, are refused."""
    page = page_of(swipe, locales=("zh-HK", "fr"))
    assert "Typed fields, zh-HK" in page.text
    assert "Typed fields, fr" in page.text
    assert "Typed fields, en" not in page.text
    for locales in ((), ("en",) * (MAX_LOCALES + 1)):
        with pytest.raises(ValueError, match=f"shows 1 to {MAX_LOCALES} locales"):
            preview_of(swipe, locales=locales)


def test_the_index_has_every_template_once() -> None:
    """Given the library, then its page links each template's page, and counts the errors of all."""
    error = Finding("t.toml", 1, "x", "y", "z", "error")
    previews = [preview_of(template, findings=[error]) for template in SHIPPED]
    names = [f"preview-{template.id}.html" for template in SHIPPED]
    page = Reader(render_index(previews, names))
    assert sorted(address for address in page.addresses if address.endswith(".html")) == sorted(names)
    assert f"{len(SHIPPED)} lint errors" in page.text
    assert Reader(render_index([], [])).text.startswith("Templates")


def test_likely_words_are_of_what_there_is() -> None:
    """Given the labels and titles that a preview knows, then each is of a field or a shipped notice."""
    assert not LABELS.keys() - FIELDS.keys()
    known = {name for template in SHIPPED for name in (template.id, template.category)}
    assert not TITLES.keys() - known
