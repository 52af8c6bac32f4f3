"""Small files of each format, made here: a real PDF and DOCX without a committed binary."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence

import docx

ARTICLE = [
    ("The water wheel", 24),
    ("A noria is a water wheel that the stream itself turns. It lifts the water into an aque-", 11),
    ("duct, from which fields are watered. No animal and no engine is needed.", 11),
    ("History", 16),
    ("The oldest ones are known from Hama in Syria. Seventeen of them still stand.", 11),
]


def make_pdf(pages: Sequence[Sequence[tuple[str, int]]], *, encrypt_marker: bool = False) -> bytes:
    """A PDF with Helvetica lines of `(text, font size)`, one page per item."""
    objects: list[bytes] = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids: list[str] = []
    for lines in pages:
        content, y = ["BT"], 780
        for text, size in lines:
            escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
            content.append(f"/F1 {size} Tf 1 0 0 1 50 {y} Tm ({escaped}) Tj")
            y -= size + 4
        content.append("ET")
        stream = "\n".join(content).encode("latin-1")
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        kids.append(f"{len(objects) + 1} 0 R")
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents %d 0 R"
            b" /Resources << /Font << /F1 3 0 R >> >> >>" % len(objects)
        )
    objects[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>".encode()
    if encrypt_marker:
        key = b"<" + b"41" * 32 + b">"
        objects.append(b"<< /Filter /Standard /V 1 /R 2 /O %s /U %s /P -4 >>" % (key, key))
    return _assemble(objects, encrypt_marker)


def _assemble(objects: list[bytes], encrypted: bool) -> bytes:
    out = io.BytesIO()
    out.write(b"%PDF-1.4\n")
    offsets: list[int] = []
    for number, body in enumerate(objects, start=1):
        offsets.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    start = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    out.writelines(b"%010d 00000 n \n" % offset for offset in offsets)
    extra = b" /Encrypt %d 0 R /ID [<00><00>]" % len(objects) if encrypted else b""
    out.write(b"trailer\n<< /Size %d /Root 1 0 R%s >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, extra, start))
    return out.getvalue()


def make_docx() -> bytes:
    document = docx.Document()
    document.add_heading("Wheels", 1)
    document.add_paragraph("A noria lifts water. 水车提水。")
    document.add_heading("Parts", 2)
    document.add_paragraph("rim", style="List Bullet")
    document.add_paragraph("spokes", style="List Bullet")
    table = document.add_table(2, 2)
    for row, cells in zip(table.rows, (("part", "price"), ("rim", "7")), strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


HTML = """<!doctype html><html><head><title>Wheels</title><style>p{}</style><script>var x = "nav";</script></head>
<body><nav>Home | About</nav><main><h1>Wheels</h1><p>A noria lifts<br>water. <b>It</b> turns.</p>
<h2>Parts</h2><ul><li>rim</li><li>spokes<ul><li>outer</li></ul></li></ul>
<table><tr><th>part</th><th>price</th></tr><tr><td>rim</td><td>7</td></tr></table>
<pre>def turn():
    return 1</pre></main><footer>Imprint</footer></body></html>"""

MARKDOWN = """---
title: Wheels
---

# The `noria`

A noria lifts
water.

## Parts

- rim
- spokes

| part | price |
|------|-------|
| rim  | 7     |

```python
def turn():

    return 1
```
"""

CSV = 'part;price;note\nrim;7;"wood; oak"\nspokes;3;\n'
TEXT = "A noria lifts water.\nIt turns.\n\n水车提水。\n"


def seeds() -> dict[str, bytes]:
    """One sound file of each format."""
    return {
        "a.pdf": make_pdf([ARTICLE, ARTICLE]),
        "a.docx": make_docx(),
        "a.html": HTML.encode(),
        "a.md": MARKDOWN.encode(),
        "a.csv": CSV.encode(),
        "a.txt": TEXT.encode(),
    }


def mutate(data: bytes, seed: int) -> bytes:
    """Truncate, flip, cut, repeat or overwrite, as the seed says."""
    random_ = random.Random(seed)
    broken = bytearray(data)
    for _ in range(random_.randint(1, 8)):
        if not broken:
            break
        at = random_.randrange(len(broken))
        length = random_.randint(1, max(1, len(broken) // 4))
        match random_.randrange(6):
            case 0:
                del broken[at:]
            case 1:
                broken[at] ^= 1 << random_.randrange(8)
            case 2:
                del broken[at : at + length]
            case 3:
                broken[at:at] = broken[at : at + length] * random_.randint(1, 20)
            case 4:
                broken[at : at + length] = random_.randbytes(min(length, len(broken) - at))
            case _:
                broken[at : at + 8] = random_.choice([b"\xff" * 8, b"\x00" * 8, b"99999999", b"<<<<<<<<", b"[[[[[[[["])
    return bytes(broken)
