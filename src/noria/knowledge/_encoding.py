"""Bytes to text, for files that do not say how they are encoded.

Order: byte-order mark, UTF-8, UTF-16 by its zero bytes, then the legacy encodings of Chinese, Japanese, Korean,
Cyrillic and Western texts, each tried strictly and scored by how ordinary the result looks. UTF-8 is tried on all of the data;
the others on a sample that begins where it is no UTF-8 any more, however far in that is. General detectors were passed over:
they guess from byte statistics, and short Chinese texts come out as some Western code page.
"""

from __future__ import annotations

import codecs
import re

from noria.knowledge._document import clean_text, unreadable

__all__ = ["decode_text"]

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Ties go to the earlier one: GB18030 decodes nearly anything, so a competitor must look clearly better.
_LEGACY = ("gb18030", "big5", "cp932", "cp949", "cp1251", "cp1252")
_SAMPLE_BYTES = 65_536
_NOT_ASCII = bytes(range(128, 256))
_UTF16_MIN_ORDINARY = 0.3  # binary data read as UTF-16 gives rare ideographs, a few per cent of them ordinary

# The characters that make up about half of any modern Chinese text, simplified and traditional.
_COMMON_HAN = frozenset(
    "的一是不了在人有我他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可她里后小么心多天"
    "而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动两长知民样现分将外但身些"
    "与高意进把法此实回二理美点月明其种声全工己话儿者向情部正名定女问力机给等几很业最间新什打便位因重被走电四第门相"
    "次东政海口使教西再平真听世气信北少关并内加化由却代军产入先山五太水万市眼体别处总才场师书比住员九笑性通目华报立"
    "這來國個說們為時會過學對後麼沒發當開經頭動兩長樣現將與進實點種聲話兒問機給幾業間電門東聽氣關內產萬體別處總場師"
    "書員華報請設數據檔檢資訊網"
)
_KANA = re.compile("[\u3040-\u30ff]")
_HALFWIDTH_KANA = re.compile("[\uff61-\uff9f]")
_HANGUL = re.compile("[\uac00-\ud7a3]")
_CYRILLIC = re.compile("[а-яё]")
_WESTERN = re.compile("[àâäáãåæçèéêëìíîïñòóôöõøœùúûüýÿßÀÁÂÄÅÆÇÈÉÊËÍÎÑÓÔÖØÙÚÜ’‘“”–—…€£°«»]")
_NON_ASCII = re.compile("[^\x00-\x7f]")
_CJK_PUNCTUATION = re.compile("[，。、；：？！「」《》（）]")
_SUSPECT = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ue000-\uf8ff\ufffd]")


def decode_text(data: bytes, *, filename: str, declared: str | None = None) -> str:
    """The text of `data`, cleaned; `declared` is what the file says of itself (an HTML meta tag).

    Raises InvalidRequest (`unreadable_file`) when the bytes are no text.
    """
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return clean_text(data[len(bom) :].decode(encoding, errors="replace"))
    encoding = _declared_that_fits(data, declared) or _detect(data)
    text = data.decode(encoding, errors="replace")
    sample = text[:_SAMPLE_BYTES]
    if len(_SUSPECT.findall(sample)) > max(2, len(sample) // 20):
        raise unreadable(filename, "the content is binary, not text.", hint="Upload a PDF, DOCX, HTML or text file.")
    return clean_text(text)


def _declared_that_fits(data: bytes, declared: str | None) -> str | None:
    if not declared:
        return None
    try:
        name = codecs.lookup(declared.strip().lower()).name
        if name == "gb2312":
            name = "gb18030"  # pages that declare GB2312 use its supersets
        "".encode(name)
        data[:_SAMPLE_BYTES].decode(name, errors="ignore")
    except (LookupError, ValueError):
        return None
    bad = _first_bad(data)
    if name == "utf-8":
        return name if bad is None else None
    return name if _fits(data[:_SAMPLE_BYTES], name) and (bad is None or _fits(_sample_at(data, bad), name)) else None


def _first_bad(data: bytes) -> int | None:
    """Where the data is no UTF-8 any more; None where all of it is, a character cut at its end apart."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError as error:
        return error.start
    return None


def _sample_at(data: bytes, bad: int) -> bytes:
    """Begins at a character: no encoding of several bytes has a blank, a line end or a control as its second one."""
    line = data[max(0, bad - _SAMPLE_BYTES) : bad]
    begin = bad - min(len(line) - 1 - line.rfind(blank) for blank in (b"\n", b" "))
    return data[begin : begin + _SAMPLE_BYTES]


def _fits(sample: bytes, encoding: str) -> bool:
    """Whether the sample decodes strictly, a character cut at its end apart."""
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        decoder.decode(sample)
    except (UnicodeDecodeError, ValueError):
        return False
    return True


def _is_damaged_utf8(data: bytes) -> bool:
    """Whether most of what is not ASCII is UTF-8 all the same: by chance that does not happen."""
    text = data.decode("utf-8", errors="replace")
    bad = text.count("\ufffd")
    good = len(text) - bad - len(data.translate(None, _NOT_ASCII))
    return good > 2 * bad


def _detect(data: bytes) -> str:
    bad = _first_bad(data)
    if bad is None:
        return "utf-8"
    head = data[:_SAMPLE_BYTES]
    if 0 in head:  # no text in a byte-oriented encoding holds zeros
        best = max(("utf-16-le", "utf-16-be"), key=lambda encoding: _ordinary(head, encoding))
        return best if _ordinary(head, best) > _UTF16_MIN_ORDINARY else "utf-8"
    if _is_damaged_utf8(data):
        return "utf-8"
    sample = _sample_at(data, bad)
    scores = {encoding: _plausibility(sample, encoding) for encoding in _LEGACY if _fits(sample, encoding)}
    if scores and max(scores.values()) > 0:
        return max(scores, key=lambda encoding: scores[encoding])
    # Nothing fits: broken UTF-8 is far likelier than a text in an encoding of the last century.
    return "utf-8"


def _ordinary(sample: bytes, encoding: str) -> float:
    """The share of characters that are ASCII or common Chinese ones."""
    text = sample.decode(encoding, errors="ignore")
    usual = sum(" " <= c <= "~" or c in "\n\r\t" or c in _COMMON_HAN for c in text) + len(_CJK_PUNCTUATION.findall(text))
    return usual / max(len(text), 1)


def _plausibility(sample: bytes, encoding: str) -> float:
    """0..1: how much of what is not ASCII is what a text in this encoding would be made of."""
    text = codecs.getincrementaldecoder(encoding)().decode(sample)
    foreign = _NON_ASCII.findall(text)
    if not foreign:
        return 0.0
    joined = "".join(foreign)
    if encoding in ("gb18030", "big5"):
        usual = sum(character in _COMMON_HAN for character in foreign) + len(_CJK_PUNCTUATION.findall(joined))
        # Common characters are half of a Chinese text, so half counts as wholly plausible.
        return min(1.0, 2.0 * usual / len(foreign))
    if encoding == "cp932":
        return max(0.0, min(1.0, 2.0 * len(_KANA.findall(joined)) / len(foreign)) - 2 * _ratio(_HALFWIDTH_KANA, joined))
    if encoding == "cp949":
        return _ratio(_HANGUL, joined)
    if encoding == "cp1251":
        return _ratio(_CYRILLIC, joined)
    # Accents in a Western text are scattered; when most of the text is «accented» it is another alphabet.
    return _ratio(_WESTERN, joined) * (1.0 if len(foreign) < len(text) / 4 else 0.2)


def _ratio(pattern: re.Pattern[str], text: str) -> float:
    return len(pattern.findall(text)) / len(text)
