"""Contrast, alt text and links in the HTML of mails."""

from __future__ import annotations

import pytest

from templates.contrast import colour_in, contrast, named
from templates.mail_look import flaws
from templates.stylesheet import Element, Stylesheet, style_of

DARK = "<style>@media (prefers-color-scheme: dark) { %s }</style>"


def told(html: str) -> list[str]:
    return [flaw.what for flaw in flaws(html)]


def test_contrast_is_wcag_s() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((119, 119, 119), (255, 255, 255)) == pytest.approx(4.48, abs=0.01)  # the well-known #777
    assert [colour_in(text) for text in ("#FFF url(x)", "rgb(1, 2,3)", "navy", "var(--x)", "")] == [
        (255, 255, 255), (1, 2, 3), (0, 0, 128), None, None,
    ]  # fmt: skip
    assert named((31, 41, 55)) == "#1f2937"


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<body style="background:#fff;color:#111"><p>a</p></body>', []),
        ('<p style="color:#aaa">a</p>', ["text #aaaaaa on #ffffff has a contrast of 2.3:1 in light mode"]),
        ('<p style="color:#aaa"> \n&nbsp;</p>', []),  # nothing to read
        ('<div style="display:none;color:#fff;background:#fff">a</div>', []),
        ('<td bgcolor="#000000"><b style="color:#222">a</b></td>',
         ["text #222222 on #000000 has a contrast of 1.3:1 in light mode"]),
        ('<div style="background:#333"><p style="background:#fff;color:#000">a</p><i style="color:#fff">b</i></div>',
         []),
        # in dark mode the client lays its own ground behind a text whose colour alone is given
        ('<p style="color:#222">a</p>', ["text #222222 on #121212 has a contrast of 1.2:1 in dark mode"]),
        ('<style>.a{color:#ccc}</style><p class="a" style="background:#fff">a</p>',
         ["text #cccccc on #ffffff has a contrast of 1.6:1 in light mode"]),
        (DARK % ".a{background:#000!important}" + '<p class="a" style="color:#222;background:#fff">a</p>',
         ["text #222222 on #000000 has a contrast of 1.3:1 in dark mode"]),
        (DARK % ".a{background:#000!important;color:#fff!important}"
         + '<p class="a" style="color:#222;background:#fff">a</p>', []),
        (DARK % ".a{color:#fff}" + '<p class="a" style="color:#222;background:#fff">a</p>', []),  # inline wins
        (DARK % ".a b{color:#333!important}" + '<p class="a" style="color:#eee;background:#000"><b>x</b></p>',
         ["text #333333 on #000000 has a contrast of 1.7:1 in dark mode"]),
    ],
)  # fmt: skip
def test_contrast_is_seen_in_light_and_in_dark_mode(html: str, expected: list[str]) -> None:
    assert told(html) == expected


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ('<img src="https://a.example/x.png">', ["a picture has no alt text"]),
        ('<img src="https://a.example/x.png" alt="">', []),
        ('<img src="cid:logo" alt="Logo"/>', []),
        ('<img src="http://a.example/x.png" alt="a">', ["its src is not https"]),
        ('<a href="javascript:alert(1)">a</a>', ["its href is not https"]),
        ('<a href="">a</a>', ["its href is not https"]),
        ('<a href="HTTPS://a.example">a</a><a href="mailto:a@b.example">b</a><a href="tel:95555">c</a>', []),
        ('<table background="http://a.example/x.png">', ["its background is not https"]),
        ('<img alt="" src="https://a.example/x.png" srcset="https://a.example/y.png 2x, http://a.example/z.png 3x">',
         ["its srcset is not https"]),
        ('<img alt="" src="https://a.example/x.png" srcset="https://a.example/y.png 2x, https://a.example/z.png">', []),
        ('<video poster="//a.example/x.png"></video>',
         ["<video> is taken out by mail clients", "its poster is not https"]),
        ('<p style="background:url(http://a.example/x.png)">a</p>', ["its style takes something that is not https"]),
        ("<p style=\"background: URL( 'HTTP://a.example/x.png')\">a</p>",
         ["its style takes something that is not https"]),
        ('<p style="background:u\\72l(//a.example)">a</p>', ["its style takes something that is not https"]),
        ('<p style="background:url(https://a.example/x.png)">a</p>', []),
        ("<p style='content:\"\\2022\"'>a</p>", []),
        ('<style>p{background:url("//a.example/x.png")}</style>',
         ["its style sheet takes something that is not https"]),
        ('<style>@import "http://a.example/x.css";</style>', ["its style sheet takes something that is not https"]),
        ("<style>@font-face{src:url(https://a.example/x.woff)}</style>", []),
        ('<meta http-equiv="Refresh" content="0;url=http://a.example">', ["it leads the reader to another page"]),
        ("<script>1</script>", ["<script> is taken out by mail clients"]),
    ],
)  # fmt: skip
def test_pictures_have_words_and_links_are_https(html: str, expected: list[str]) -> None:
    assert told(html) == expected


@pytest.mark.parametrize(
    "html",
    ["<a " * 10_000, "<p>" * 10_000, "<style>" + "p b i{color:red}" * 300 + "</style>" + "<b>" * 7_000],
    ids=["tags that do not end", "tags inside of each other", "and rules for each"],
)
def test_a_mail_that_would_take_long_to_look_at_is_a_flaw_itself(html: str) -> None:
    assert told(html) == ["the mail has over 1,000 tags and was not looked at"]


def test_a_flaw_is_told_once_with_its_tag() -> None:
    (flaw,) = flaws('<div><img src="https://a.example/x.png"></div>' * 3)
    assert flaw.tag == '<img src="https://a.example/x.png">'


def test_rules_win_by_weight_order_and_importance() -> None:
    sheet = Stylesheet(
        "/* p{color:#000} */ #i{color:red} .a.b{color:blue} p{color:green!important} p:hover{color:navy}"
    )
    p = Element("p", frozenset({".a", ".b", "#i"}))
    assert sheet.style([p], {}, dark=False) == {"color": "green!important"}
    assert sheet.style([Element("i", p.marks)], {}, dark=False) == {"color": "red"}
    assert sheet.style([Element("i", p.marks)], style_of("color:#123"), dark=False) == {"color": "#123"}
    assert style_of("COLOR: Red !important; color: blue; bad") == {"color": "red !important"}
    assert not sheet.has_dark
