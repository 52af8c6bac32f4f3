"""Personal data and secrets in text: e-mail addresses, phone numbers, identity and card numbers with their check digits,
addresses of machines, API keys. By pattern and check digit only; names and postal addresses are not found.

Boundaries are those of ASCII, since Chinese sets no spaces around an address or a number.

Sources: GB 11643-1999 (Chinese resident identity numbers), ISO/IEC 7812-1 (Luhn; the ranges of issuers as their networks publish
them), GitHub's and AWS's documented key prefixes.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["PersonalData", "find_personal_data"]

_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_ID_CHECKS = "10X98765432"


@dataclass(frozen=True, slots=True)
class PersonalData:
    """One find: what it seems to be, and `text[start:end]`."""

    kind: str
    start: int
    end: int


def is_resident_id(digits: str) -> bool:
    """A Chinese resident identity number: date of birth and check digit are right."""
    month, day = int(digits[10:12]), int(digits[12:14])
    if not (1900 <= int(digits[6:10]) <= 2100 and 1 <= month <= 12 and 1 <= day <= 31):
        return False
    total = sum(weight * int(digit) for weight, digit in zip(_ID_WEIGHTS, digits[:17], strict=True))
    return _ID_CHECKS[total % 11] == digits[17].upper()


def passes_luhn(number: str) -> bool:
    """The check digit of payment cards, which have 13 to 19 digits."""
    digits = [int(digit) for digit in number if digit.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


# Of the networks that are in use: digits that a number begins with, and how many it may have.
_ISSUERS = (
    (re.compile(r"4"), (13, 16, 19)),  # Visa
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), (16,)),  # Mastercard
    (re.compile(r"3[47]"), (15,)),  # American Express
    (re.compile(r"62"), (16, 17, 18, 19)),  # UnionPay
    (re.compile(r"6011|64[4-9]|65|35(?:2[89]|[3-8])|220[0-4]"), (16, 17, 18, 19)),  # Discover, JCB, Mir
    (re.compile(r"30[0-59]|3[689]"), (14,)),  # Diners Club
    (re.compile(r"5018|5020|5038|5893|6304|6759|676[1-3]"), (13, 14, 15, 16, 17, 18, 19)),  # Maestro
)
_DIGITS = re.compile(r"\d+")


def is_card(digits: str) -> bool:
    """A number that an issuer gives out, with its check digit; a time in milliseconds is none."""
    return any(len(digits) in lengths and begin.match(digits) for begin, lengths in _ISSUERS) and passes_luhn(digits)


def _cards(text: str) -> Iterator[tuple[int, int]]:
    """Cards in runs of digits: whole, or in groups of four to six as they are embossed; what follows (a date, a code) is not."""
    for run in _CARD_RUN.finditer(text):
        groups = [(run.start() + group.start(), run.start() + group.end()) for group in _DIGITS.finditer(run[0])]
        behind = 0
        for place, (start, _) in enumerate(groups):
            if start >= behind and (end := _card_from(text, groups[place : place + 5])):
                yield start, end
                behind = end


def _card_from(text: str, groups: Sequence[tuple[int, int]]) -> int:
    """Where the longest card that begins with the first group ends; 0 where there is none."""
    found, digits = 0, ""
    for place, (start, end) in enumerate(groups):
        digits += text[start:end]
        if len(digits) > 19:
            break
        if is_card(digits):
            found = end
        if not 4 <= end - start <= (6 if place else 4):  # the last group may be short, and a number may be one group
            break
    return found


def is_public_address(text: str) -> bool:
    """An address of a machine on the internet: private, loopback and documentation ones tell of nobody."""
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _is_phone(text: str) -> bool:
    digits = sum(character.isdigit() for character in text)
    return 9 <= digits <= 15


def _anything(_: str) -> bool:
    return True


_KEYS = (
    r"sk-[A-Za-z0-9_-]{20,}", r"(?:AKIA|ASIA)[0-9A-Z]{16}", r"gh[pousr]_[A-Za-z0-9]{36,}", r"github_pat_\w{50,}",
    r"AIza[0-9A-Za-z_-]{35}", r"xox[abprs]-[0-9A-Za-z-]{10,}", r"hf_[A-Za-z0-9]{30,}", r"glpat-[\w-]{20,}",
    r"noria_[A-Za-z0-9_-]{20,}", r"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}", r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
)  # fmt: skip
_KEY_SIGN = re.compile(r"sk-|A[KS]IA|gh[pousr]_|github_pat_|AIza|xox|hf_|glpat-|noria_|eyJ|-----BEGIN")
# Not after a digit, nor after a digit's dot or dash: that would be the rest of another number.
_ALONE = r"(?<!\d)(?<!\d[.-])"
_CARD_RUN = re.compile(r"(?<!\d)(?<!\d[.])\d{4,}(?:[ -]\d+)*", re.ASCII)
_Finder = Callable[[str], Iterable[tuple[int, int]]]


def _pattern(pattern: str, is_one: Callable[[str], bool] = _anything) -> _Finder:
    compiled = re.compile(pattern, re.ASCII)
    return lambda text: (match.span() for match in compiled.finditer(text) if is_one(match[0]))


# Every pattern begins with something fixed or a boundary, so that a long text costs time in proportion to its length.
_FINDERS: tuple[tuple[str, _Finder], ...] = (
    ("api_key", _pattern("|".join(rf"(?<![\w-]){key}" for key in _KEYS))),
    ("email", _pattern(r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])")),
    ("resident_id", _pattern(r"(?<!\d)\d{17}[\dXx](?![\dA-Za-z])", is_resident_id)),
    ("phone", _pattern(rf"{_ALONE}(?:(?:\+|00)?86[ -]?)?1[3-9]\d[ -]?\d{{4}}[ -]?\d{{4}}(?!\d)")),
    ("phone", _pattern(rf"{_ALONE}(?:\(0(?:10|2\d|[3-9]\d\d)\)[ -]?|0(?:10|2\d|[3-9]\d\d)[ -])[2-8]\d{{6,7}}(?![\d-])")),
    ("phone", _pattern(r"(?<![\w.+])\+\d{1,3}[ .-]?\(?\d{1,4}\)?(?:[ .-]?\d{2,4}){2,4}(?!\d)", _is_phone)),
    ("phone", _pattern(rf"(?<![A-Za-z_]){_ALONE}(?:1[ .-])?\(?[2-9]\d{{2}}\)?[ .-]\d{{3}}[.-]\d{{4}}(?!\d)")),
    ("credit_card", _cards),
    ("us_ssn", _pattern(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")),
    ("ip_address", _pattern(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]*\d)", is_public_address)),
    ("ip_address", _pattern(r"(?<![\w:])(?:[0-9a-fA-F]{1,4}:){2,7}(?::?[0-9a-fA-F]{1,4}){1,6}(?![\w:])", is_public_address)),
)
_RUN = re.compile(r"\d[\d .()-]{6,}", re.ASCII)
# Full-width digits, letters and signs, one for one, so that places stay.
_NARROW = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20, 0xA0: 0x20}


def find_personal_data(text: str) -> list[PersonalData]:
    """What is found, in order; of finds that overlap the first kind listed in this module wins."""
    if not text.isascii():
        text = text.translate(_NARROW)
    taken = bytearray(len(text))
    found: list[PersonalData] = []
    for find in _finds(text):
        if taken.find(1, find.start, find.end) < 0:
            taken[find.start : find.end] = b"\1" * (find.end - find.start)
            found.append(find)
    return sorted(found, key=lambda find: find.start)


def _finds(text: str) -> Iterator[PersonalData]:
    numbers = _RUN.search(text) is not None
    worth = {
        "api_key": _KEY_SIGN.search(text) is not None,
        "email": "@" in text,
        "ip_address": numbers or text.count(":") > 1,
    }
    for kind, finder in _FINDERS:
        if worth.get(kind, numbers):  # most texts have nothing that could begin one
            for start, end in finder(text):
                yield PersonalData(kind, start, end)
