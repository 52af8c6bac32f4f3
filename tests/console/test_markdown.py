"""Whatever a model writes, no HTML of its own comes out."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from noria.console._markdown import answer_html, markdown_html, marked_html

ALLOWED = {
    "p", "br", "em", "strong", "s", "code", "pre", "a", "ul", "ol", "li", "blockquote", "hr",
    "h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td",
}  # fmt: skip
ATTRIBUTES = {"href", "title", "class", "start", "style", "data-cite"}
PIECES = st.sampled_from(
    [
        "<img src=x onerror=alert(1)>", "<script>", "</p>", "![a](https://e.example/x.png)", "[a](javascript:alert(1))",
        "[a](https://e.example 'x\" onclick=alert(1)')", "<a href=https://e.example>", "`", "```html\n", "\n\n", "|a|b|\n|-|-|\n",
        "&lt;img&gt;", "\ue0001\ue001", "<!--", "<svg/onload=alert(1)>", "* ", "# ", "> ", "**", "[x]: data:text/html,a\n", "[x]",
        "<https://e.example>", "<javascript:alert(1)>", "\\<b>",
    ]
)  # fmt: skip
HOSTILE = st.lists(PIECES | st.text(max_size=12), max_size=12).map("".join)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def assert_safe(html: str) -> None:
    parser = Tags()
    parser.feed(html)
    for tag, attributes in parser.found:
        assert tag in ALLOWED
        assert attributes.keys() <= ATTRIBUTES
        if "style" in attributes:
            assert re.fullmatch(r"text-align:(left|right|center)", attributes["style"] or "")
        if tag == "a":
            assert re.match(r"https?://|#cite-\d+$", attributes["href"] or "", re.IGNORECASE)


@given(HOSTILE)
def test_markdown_lets_no_html_through(text: str) -> None:
    assert_safe(markdown_html(text))


@given(HOSTILE, st.lists(st.tuples(st.integers(-5, 200), st.integers(0, 40)), max_size=5))
def test_citations_open_no_way_in(text: str, citations: list[tuple[int, int]]) -> None:
    html = answer_html(text, citations)
    assert_safe(html)
    shown = {int(number) for number in re.findall(r'data-cite="(\d+)"', html)}
    assert shown <= {number for _, number in citations}


@given(HOSTILE, st.lists(st.text(max_size=6), max_size=4))
def test_marking_words_keeps_the_text_and_adds_only_marks(text: str, words: list[str]) -> None:
    parser = Tags()
    html = marked_html(text, words)
    parser.feed(html)
    assert {tag for tag, _ in parser.found} <= {"mark"}
    import html as escaping

    assert escaping.unescape(re.sub(r"</?mark>", "", html)) == escaping.unescape(escaping.escape(text))


def test_a_citation_takes_the_place_of_its_number() -> None:
    html = answer_html("Leave is 28 days. [1]\nAsk your lead. [2]", [(21, 1), (40, 2)])
    assert "[1]" not in html
    assert re.findall(r'data-cite="(\d)"', html) == ["1", "2"]


def test_words_are_marked_in_any_case_and_in_chinese() -> None:
    assert marked_html("Leave leaves; 带薪年假", ["leave", "年假"]) == (
        "<mark>Leave</mark> <mark>leave</mark>s; 带薪<mark>年假</mark>"
    )
