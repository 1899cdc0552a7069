"""Texts as HTML: nothing acts, nothing is lost that is no markup, the exact view is the source."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from labeling_ui.web.markup import MAX_FORMATTED, exact, formatted
from tests.labeling_ui.web.snippets import SNIPPETS

ALLOWED = {
    "div", "p", "br", "em", "strong", "s", "code", "pre", "span", "ul", "ol", "li", "blockquote", "hr",
    "h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td",
    "math", "mrow", "mi", "mn", "mo", "mfrac", "msup", "msub", "msubsup", "msqrt", "mtext", "mtable", "mtr", "mtd",
    "mspace", "mstyle", "munder", "mover", "munderover",
}  # fmt: skip
ATTRIBUTES = {"class", "dir", "title", "style", "start", "display", *["mathvariant", "stretchy", "fence", "form"]}


class _Reader(HTMLParser):
    """Text, elements and attributes of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text, self.tags, self.attributes = "", set[str](), set[str]()
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("text", SNIPPETS)
def test_the_exact_view_is_the_source(text: str) -> None:
    read = _Reader(exact(text))
    assert read.text == text
    assert read.tags == {"div"}


@pytest.mark.parametrize("text", SNIPPETS)
def test_the_formatted_view_acts_on_nothing_and_loses_nothing_but_markup(text: str) -> None:
    html = formatted(text)
    read = _Reader(html)
    assert read.tags <= ALLOWED
    assert read.attributes <= ATTRIBUTES
    titles = "".join(re.findall(r'title="([^"]*)"', html))  # of formulas: their source
    shown = re.sub(r"\s", "", read.text + _Reader(titles).text)
    for character in set(re.sub(r"[\s*_`~#|\\\\$>+\-=:.)(\[\]0-9]", "", text)):
        assert character in shown, character
    words = re.findall(r"[^\W\d_]{2,}", text)
    missing = [word for word in words if word not in shown]
    assert not missing, missing


def test_signs_lines_and_tables_come_through() -> None:
    """`->` had become an arrow, `:streamlit:` a picture, an address a link, a single line break a space."""
    html = formatted("a -> b >= c\n  :streamlit: http://x.example/y :material/home:\n\n| h |\n|---|\n| 1 |")
    assert "a -&gt; b &gt;= c<br />" in html
    assert "\u00a0\u00a0:streamlit: http://x.example/y :material/home:" in html
    assert '<td dir="auto">1</td>' in html
    assert "<a" not in html


def test_formulas_are_mathml_and_money_is_not() -> None:
    html = formatted(r"$x^2$ and \(a_1\) cost $5 or $10, \( open")
    assert html.count("<math") == 2
    assert "cost $5 or $10, \\( open" in html
    assert '<math display="block">' in formatted("\\[\n\\frac{1}{2}\n\\]")
    hostile = formatted(r"$\text{<img src=x onerror=alert(1)>}$ $\href{javascript:alert(1)}{x}$ $\text{<img/>}$")
    assert _Reader(hostile).tags <= ALLOWED
    assert "href" not in _Reader(hostile).attributes


def test_a_text_from_right_to_left_says_so_and_a_very_long_one_is_exact() -> None:
    assert '<p dir="auto">שלום' in formatted("שלום עולם")
    assert formatted("*a* " * MAX_FORMATTED) == exact("*a* " * MAX_FORMATTED)
    assert exact("a\x1b[2J\r\nb") == '<div class="exact" dir="auto">a\\x1b[2J&#13;\nb</div>'
