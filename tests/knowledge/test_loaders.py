"""Each loader: structure, spans, encodings, and clear refusals of what cannot be read."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.errors import InvalidRequest, NoriaError
from noria.knowledge import Document, Limits
from noria.knowledge.loaders import detect_format, load_document, supported_extensions

from . import sample_files


def load(data: bytes | str, filename: str) -> Document:
    encoded = data.encode() if isinstance(data, str) else data
    return load_document(encoded, filename=filename, limits=Limits())


def outline(document: Document) -> list[tuple[str, str]]:
    return [(block.kind, document.text[block.start : block.end]) for block in document.blocks]


def refused(data: bytes | str, filename: str) -> str:
    with pytest.raises(InvalidRequest) as caught:
        load(data, filename)
    assert caught.value.code == "unreadable_file"
    assert filename in caught.value.message
    return str(caught.value)


def test_markdown_keeps_its_source_and_marks_the_structure() -> None:
    document = load(sample_files.MARKDOWN, "a.md")
    assert document.text == sample_files.MARKDOWN
    assert document.title == "Wheels"
    assert [block.kind for block in document.blocks] == ["heading", "paragraph", "heading", "list", "table", "code"]
    assert document.blocks[-1].heading_path == ("The noria", "Parts")
    assert document.blocks[4].header == "| part | price |"


def test_html_drops_boilerplate_and_keeps_structure() -> None:
    document = load(sample_files.HTML, "a.html")
    assert document.title == "Wheels"
    assert outline(document) == [
        ("heading", "Wheels"),
        ("paragraph", "A noria lifts\nwater. It turns."),
        ("heading", "Parts"),
        ("list", "- rim\n- spokes\n  - outer"),
        ("table", "part | price\nrim | 7"),
        ("code", "def turn():\n    return 1"),
    ]
    assert document.blocks[-1].heading_path == ("Wheels", "Parts")


def test_html_may_nest_deeper_than_python_recurses() -> None:
    assert load("<div>" * 5_000 + "deep", "a.html").text == "deep"


def test_html_honours_the_declared_encoding() -> None:
    page = '<html><head><meta charset="gb2312"></head><body><p>水车</p></body></html>'
    assert load(page.encode("gb18030"), "a.html").text == "水车"


def test_docx_headings_lists_and_tables() -> None:
    document = load(sample_files.make_docx(), "a.docx")
    assert outline(document) == [
        ("heading", "Wheels"),
        ("paragraph", "A noria lifts water. 水车提水。"),
        ("heading", "Parts"),
        ("list", "- rim\n- spokes"),
        ("table", "part | price\nrim | 7"),
    ]
    assert document.blocks[3].heading_path == ("Wheels", "Parts")


def test_pdf_paragraphs_headings_and_pages() -> None:
    document = load(sample_files.make_pdf([sample_files.ARTICLE, [("Second page.", 11)]]), "a.pdf")
    assert outline(document)[:3] == [
        ("heading", "The water wheel"),
        (
            "paragraph",
            "A noria is a water wheel that the stream itself turns. It lifts the water into an aqueduct, from which "
            "fields are watered. No animal and no engine is needed.",
        ),
        ("heading", "History"),
    ]
    assert document.blocks[-1].page == 2
    assert [document.text[page.start : page.end] for page in document.pages][1] == "Second page."


def test_pdf_running_heads_are_dropped() -> None:
    pages = [[("Manual of wheels", 9), (f"Text of page {n} is here.", 11), (f"Page {n}", 9)] for n in range(1, 9)]
    document = load(sample_files.make_pdf(pages), "a.pdf")
    assert "Manual" not in document.text
    assert "Text of page 8" in document.text


def test_pdf_contents_are_dropped_and_forms_are_not() -> None:
    contents = [(f"1.{n} Wheels of kind {n} . . . . . . . . . . . {n}", 10) for n in range(1, 6)]
    document = load(sample_files.make_pdf([contents, [("Name: ..........", 10), ("Wheels turn.", 10)]]), "a.pdf")
    assert "kind" not in document.text
    assert "Name:" in document.text


def test_csv_rows_carry_their_header() -> None:
    document = load(sample_files.CSV, "a.csv")
    assert outline(document) == [("row", "part | price | note"), ("row", "rim | 7 | wood; oak"), ("row", "spokes | 3")]
    assert [block.header for block in document.blocks] == ["", "part | price | note", "part | price | note"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "gb18030", "gbk"])
def test_simplified_chinese_in_any_encoding(encoding: str) -> None:
    text = "水车是利用河水的力量转动的轮子，它把水提到高处，用来灌溉田地。Noria 2.0。"
    assert load(text.encode(encoding), "a.txt").text == text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("big5", "這個系統用來說明資料的格式，請參考下面的檔案。"),
        ("cp932", "これは水車についての短い文章です。川の力で回ります。"),
        ("cp949", "물레방아는 강물의 힘으로 돌아가는 바퀴입니다."),
        ("cp1251", "Водяное колесо вращается силой реки."),
        ("cp1252", "Das Wasserrad hebt das Wasser für die Gärten – größer als früher. Café."),
    ],
)
def test_legacy_encodings(encoding: str, text: str) -> None:
    assert load(text.encode(encoding), "a.txt").text == text


LATE = "Chapter 12. The wheel turns slowly, and lifts water to the gardens above the town.\n" * 900  # 74 KB of ASCII


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("gb18030", "附录：水车利用河水的力量转动，它把水提到高处，用来灌溉田地。"),
        ("big5", "附錄：這個系統用來說明資料的格式，請參考下面的檔案。"),
        ("cp932", "これは水車についての短い文章です。川の力で回ります。"),
        ("cp1251", "Водяное колесо вращается силой реки."),
        ("cp1252", "Das Wasserrad hebt das Wasser für die Gärten – größer als früher. Café."),
        ("utf-8", "附录：水车利用河水的力量转动。"),
    ],
)
@pytest.mark.parametrize("filename", ["a.txt", "a.html"])
def test_an_encoding_that_shows_late_is_found(encoding: str, text: str, filename: str) -> None:
    assert load((LATE + text).encode(encoding), filename).text.endswith(text)


def test_an_encoding_that_shows_late_is_not_what_the_page_declares() -> None:
    page = f'<meta charset="utf-8"><p>{LATE}</p><p>附录：水车利用河水的力量转动，它把水提到高处，用来灌溉田地。</p>'
    assert load(page.encode("gb18030"), "a.html").text.endswith("用来灌溉田地。")


def test_one_broken_character_does_not_make_another_encoding() -> None:
    text = "水车是利用河水的力量转动的轮子，它把水提到高处，用来灌溉田地。" * 3000
    broken = text.encode()[:200_000] + b"\xff" + text.encode()[200_000:]
    found = load(broken, "a.txt").text
    assert found.startswith(text[:1000]) and found.endswith(text[-1000:])


def test_a_page_that_stands_in_a_form_is_read() -> None:
    page = """<form method="post" action="./default.aspx"><input type="hidden" name="__VIEWSTATE" value="dDw">
    <h1>Opening hours</h1><p>The mill opens at nine.</p><select><option>Any day</option></select>
    <button>Search</button><textarea>Your question</textarea></form>"""
    assert outline(load(page, "a.html")) == [("heading", "Opening hours"), ("paragraph", "The mill opens at nine.")]


def test_content_wins_over_the_extension() -> None:
    assert detect_format(sample_files.make_pdf([[("x", 11)]]), filename="a.txt") == "pdf"
    assert detect_format(sample_files.make_docx(), filename="a.zip") == "docx"
    assert detect_format(b"<!DOCTYPE html><p>x", filename="page") == "html"
    assert detect_format(b"anything", filename="x.weird") == "txt"


def test_what_cannot_be_read_says_why() -> None:
    assert "empty" in refused(b"", "a.txt")
    assert "no text" in refused(" \n ", "a.md")
    assert "binary" in refused(bytes(range(32)) * 50, "a.txt")
    assert "damaged" in refused(b"%PDF-1.7\nrubbish", "a.pdf")
    assert "OCR" in refused(sample_files.make_pdf([[], []]), "a.pdf")
    assert "password" in refused(sample_files.make_pdf([[("x", 11)]], encrypt_marker=True), "a.pdf")
    assert "not" in refused("plain", "a.docx")
    assert "damaged" in refused(sample_files.make_docx()[:2000], "a.docx")
    assert "PowerPoint" in refused(b"PK\x03\x04" + b"\0" * 100, "a.pptx")
    assert "old binary Word" in refused(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 100, "a.doc")


def _docx_with(document_xml: bytes) -> bytes:
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(sample_files.make_docx())) as source,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for member in source.infolist():
            content = document_xml if member.filename == "word/document.xml" else source.read(member)
            target.writestr(member.filename, content)
    return out.getvalue()


def test_zip_bombs_and_entities_are_refused() -> None:
    assert "times its size" in refused(_docx_with(b"<a>" + b" " * 5_000_000), "bomb.docx")
    with pytest.raises(InvalidRequest, match="unpacks to"):
        load_document(_docx_with(b"\0" * 900_000), filename="bomb.docx", limits=Limits(max_uncompressed_bytes=500_000))
    laughs = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><x>&b;</x>'
    assert "entities" in refused(_docx_with(laughs), "laughs.docx")


def test_a_third_party_adds_a_format_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "srt_loader.py").write_text(
        "from noria.knowledge._document import DocumentBuilder\n"
        "def load(data, *, filename, limits):\n"
        "    builder = DocumentBuilder(format='srt', filename=filename, limits=limits)\n"
        "    builder.add('paragraph', data.decode().upper())\n"
        "    return builder.finish()\n"
    )
    info = tmp_path / "srt_loader-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: srt-loader\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[noria.loaders]\nsrt = srt_loader\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "srt" in supported_extensions()
    assert "srt_loader" not in sys.modules
    assert load("hello", "film.srt").text == "HELLO"


@given(data=st.binary(max_size=400), extension=st.sampled_from(["txt", "md", "csv", "html", "xyz"]))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_document_or_a_clear_refusal(data: bytes, extension: str) -> None:
    try:
        document = load(data, f"a.{extension}")
    except NoriaError as error:
        assert f"a.{extension}" in error.message  # noqa: PT017
        return
    assert document == Document.from_wire(document.to_wire())
    document.text.encode()  # no lone surrogates
    for block in document.blocks:
        assert 0 <= block.start < block.end <= len(document.text)
    assert all(a.end <= b.start for a, b in zip(document.blocks, document.blocks[1:], strict=False))


def test_headings_cross_a_process_border_once() -> None:
    titles = "".join(f"{'#' * level} {'title ' * 30}{level}\n\n" for level in range(1, 6))
    source = titles + "".join(f"###### {i}\n\nword\n\n" for i in range(1000))
    document = load(source.encode(), "a.md")
    wire = orjson.dumps(document.to_wire())
    assert len(wire) < 6 * len(source)
    back = Document.from_wire(orjson.loads(wire))
    assert back == document
    assert len({id(block.heading_path[0]) for block in back.blocks if block.heading_path}) == 1  # nor is it copied there


def test_markdown_comments_are_not_text() -> None:
    source = b"# A\n\n<!-- a note\nto editors -->\n\nWords.\n\n```html\n<!-- code -->\n```\n"
    document = load(source, "a.md")
    assert "note" not in document.text
    assert "<!-- code -->" in document.text
