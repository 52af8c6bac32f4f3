"""Passages are exact spans, cover everything, stay within their size and change only where the text did."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import InvalidRequest
from noria.knowledge import Chunking, Document, Limits, Passage, split
from noria.knowledge._sentences import sentence_spans
from noria.knowledge.loaders import load_document

_TOKEN = re.compile(r"\w{1,6}|[^\w\s]")


def count_tokens(text: str) -> int:
    """Like a sub-word tokenizer: long words are several tokens, a Chinese character is one."""
    return sum(len(word) if ord(word[0]) > 0x2E80 else 1 for word in _TOKEN.findall(text))


def markdown(text: str) -> Document:
    return load_document(text.encode(), filename="a.md", limits=Limits())


_WORDS = st.sampled_from(["river", "wheel", "Dr.", "3.14", "e.g.", "水车", "转动。", "Stop!", "why?", "“好”；", "x" * 50, "a_b"])
_PARAGRAPH = st.lists(_WORDS, min_size=1, max_size=60).map(" ".join)
_BLOCK = st.one_of(
    _PARAGRAPH,
    st.tuples(st.integers(1, 4), _WORDS).map(lambda pair: "#" * pair[0] + " " + pair[1]),
    st.lists(_PARAGRAPH, min_size=1, max_size=5).map(lambda items: "\n".join(f"- {item}" for item in items)),
    st.lists(_WORDS, min_size=1, max_size=30).map(lambda words: "```\n" + "\n".join(words) + "\n```"),
    st.lists(_WORDS, min_size=1, max_size=30).map(lambda w: "| a | b |\n|---|---|\n" + "\n".join(f"| {x} | 1 |" for x in w)),
    st.text(max_size=300),
)
_MARKDOWN = st.lists(_BLOCK, min_size=1, max_size=12).map("\n\n".join).filter(lambda text: bool(text.strip("\x00 \n\t")))


def place(passage: Passage, offset: int) -> tuple[int | None, tuple[str, ...]]:
    found = [each for each in passage.places if each.offset <= offset]
    return (found[-1].page, found[-1].heading_path) if found else (passage.page, passage.heading_path)


def assert_invariants(document: Document, passages: list[Passage], chunking: Chunking) -> None:
    covered = bytearray(len(document.text))
    for passage in passages:
        assert document.text[passage.start : passage.end] == passage.text
        assert passage.text.strip()
        assert passage.num_tokens == count_tokens(passage.text) <= chunking.max_tokens
        covered[passage.start : passage.end] = b"\1" * (passage.end - passage.start)
        for block in document.blocks:
            if block.kind != "heading" and passage.start <= block.start < passage.end:
                assert place(passage, block.start - passage.start) == (block.page, block.heading_path)
    lost = [character for character, seen in zip(document.text, covered, strict=True) if not seen and character.strip()]
    assert not lost
    starts = [passage.start for passage in passages]
    assert starts == sorted(set(starts))


@given(text=_MARKDOWN, max_tokens=st.integers(100, 300), overlap=st.integers(0, 50))
@settings(max_examples=150, deadline=None)
def test_passages_are_exact_cover_everything_and_fit(text: str, max_tokens: int, overlap: int) -> None:
    try:
        document = markdown(text)
    except InvalidRequest:
        return  # control characters only
    chunking = Chunking(max_tokens, overlap)
    passages = split(document, chunking, count_tokens)
    assert_invariants(document, passages, chunking)
    assert passages == split(document, chunking, count_tokens)


@given(text=st.text(min_size=1, max_size=3000), divisor=st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_any_text_is_covered_whatever_counts_tokens(text: str, divisor: int) -> None:
    try:
        document = load_document(text.encode("utf-8", "replace"), filename="a.txt", limits=Limits())
    except InvalidRequest:
        return
    chunking = Chunking(100, 30)
    passages = split(document, chunking, lambda piece: -(-len(piece.encode()) // divisor))
    covered = set().union(*(range(passage.start, passage.end) for passage in passages))
    assert all(index in covered for index, character in enumerate(document.text) if character.strip())
    assert all(passage.num_tokens <= 100 for passage in passages)


def _article(num_sections: int, num_paragraphs: int) -> list[list[str]]:
    return [
        [f"Paragraph {s}.{p} speaks of wheel {s * 31 + p}. " + "Water turns it slowly. " * 8 for p in range(num_paragraphs)]
        for s in range(num_sections)
    ]


def _render(sections: list[list[str]]) -> Document:
    return markdown("\n\n".join(f"## Part {i}\n\n" + "\n\n".join(paragraphs) for i, paragraphs in enumerate(sections)))


@pytest.mark.parametrize("num_sections", [1, 6])
def test_an_edit_changes_only_the_passages_near_it(num_sections: int) -> None:
    sections = _article(num_sections, 120 // num_sections)
    before = {passage.hash for passage in split(_render(sections), Chunking(), count_tokens)}
    sections[0][5] = "This paragraph was rewritten, and is longer. " * 7
    after = {passage.hash for passage in split(_render(sections), Chunking(), count_tokens)}
    assert len(before) > 15
    assert len(after - before) <= 4


def test_headings_and_table_headers_go_with_what_is_cut_from_them() -> None:
    rows = "\n".join(f"| part {i} | {i * 7} euros |" for i in range(80))
    document = markdown(f"# Catalogue\n\nIntroduction.\n\n## Prices\n\n| part | price |\n|---|---|\n{rows}\n")
    passages = split(document, Chunking(120), count_tokens)
    assert len(passages) > 3
    assert passages[-1].context == "Catalogue > Prices\n| part | price |"
    assert passages[-1].heading_path == ("Catalogue", "Prices")
    assert all("part" in passage.text_to_embed for passage in passages)


def test_a_passage_knows_where_each_part_of_it_stands() -> None:
    document = markdown("# Manual\n\n## Oil\n\nChange it monthly.\n\n## Belt\n\nTighten it yearly.\n")
    (passage,) = split(document, Chunking(200), count_tokens)
    assert passage.heading_path == ("Manual", "Oil")
    assert place(passage, passage.text.index("Change")) == (None, ("Manual", "Oil"))
    assert place(passage, passage.text.index("Tighten")) == (None, ("Manual", "Belt"))
    assert place(passage, passage.text.index("## Belt")) == (None, ("Manual", "Belt"))
    assert place(passage, 0) == (None, ("Manual", "Oil"))


@pytest.mark.parametrize("blank", [" ", "\t", "\xa0"])
def test_a_long_run_of_white_space_takes_no_time(blank: str) -> None:
    document = markdown("```\nx = 1\n" + blank * 20_000 + "\n" + blank * 20_000 + "y\n```\n")
    begun = time.process_time()
    passages = split(document, Chunking(100), count_tokens)
    assert time.process_time() - begun < 0.5
    assert_invariants(document, passages, Chunking(100))


def test_a_passage_of_few_tokens_is_not_long_for_its_white_space() -> None:
    document = markdown("```\n" + ("word\n" + "\n" * 500) * 60 + "```\n")
    passages = split(document, Chunking(100), count_tokens)
    assert_invariants(document, passages, Chunking(100))
    assert max(len(passage.text) for passage in passages) <= 1600


def test_places_stay_in_proportion_where_there_is_a_heading_for_each_word() -> None:
    titles = [f"{'#' * level} {'title ' * 30}{level}\n\n" for level in range(1, 6)]
    text = "".join(titles) + "".join(f"###### {i}\n\nword\n\n" for i in range(300))
    document = markdown(text)
    passages = split(document, Chunking(400), count_tokens)
    kept = sum(len(title) for passage in passages for place in passage.places for title in place.heading_path)
    assert kept < 10 * len(text)
    above = document.blocks[-1].heading_path[:5]
    for passage in passages[1:]:
        assert passage.heading_path[:5] == above
        assert all(place.heading_path[:5] == above for place in passage.places)


def test_static_chunks_overlap_and_never_end_with_a_heading() -> None:
    text = "\n\n".join(f"Sentence {i} says something about number {i}." for i in range(200))
    passages = split(markdown(text), Chunking(100, 50), count_tokens)
    overlaps = [above.end - below.start for above, below in pairwise(passages)]
    assert all(overlap > 0 for overlap in overlaps)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. Smith paid 3.5 USD. He left.", ["Dr. Smith paid 3.5 USD.", "He left."]),
        ("水车转动。真的吗？是的；好！", ["水车转动。", "真的吗？", "是的；", "好！"]),
        ("他说：“走吧。”然后走了。", ["他说：“走吧。”", "然后走了。"]),
        ("See e.g. Fig. 3 of J. Doe. Node.js is fine.", ["See e.g. Fig. 3 of J. Doe.", "Node.js is fine."]),
        ("One\ntwo three", ["One\ntwo three"]),
        ("Really?是的", ["Really?", "是的"]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert [text[start:end] for start, end in sentence_spans(text)] == expected


@pytest.mark.parametrize(
    ("strategy", "param"),
    [
        ({"type": "clever"}, "chunking_strategy.type"),
        ({"type": "static"}, "chunking_strategy.static"),
        ({"type": "static", "static": {"max_chunk_size_tokens": 99}}, "chunking_strategy.static.max_chunk_size_tokens"),
        ({"type": "static", "static": {"max_chunk_size_tokens": True}}, "chunking_strategy.static.max_chunk_size_tokens"),
        (
            {"type": "static", "static": {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 101}},
            "chunking_strategy.static.chunk_overlap_tokens",
        ),
        ({"type": "static", "static": {"size": 1}}, "chunking_strategy.static.size"),
    ],
)
def test_a_wrong_chunking_strategy_is_refused_by_name(strategy: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Chunking.from_openai(strategy)
    assert caught.value.param == param


def test_openai_chunking_strategies() -> None:
    assert Chunking.from_openai({"type": "auto"}) == Chunking.from_openai(None) == Chunking()
    static = {"max_chunk_size_tokens": 800, "chunk_overlap_tokens": 400}
    assert Chunking.from_openai({"type": "static", "static": static}) == Chunking(800, 400)
