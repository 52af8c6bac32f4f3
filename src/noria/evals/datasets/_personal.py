"""Personal data and secrets in text: e-mail addresses, phone numbers, identity and card numbers with their check digits,
addresses of machines, API keys. By pattern and check digit only; names and postal addresses are not found.

Sources: GB 11643-1999 (Chinese resident identity numbers), ISO/IEC 7812-1 (Luhn), GitHub's and AWS's documented key prefixes.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
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
    """The check digit of payment cards."""
    digits = [int(digit) for digit in number if digit.isdigit()]
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = [digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


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
# Every pattern begins with something fixed or a boundary, so that a long text costs time in proportion to its length.
_PATTERNS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("api_key", re.compile("|".join(rf"(?<![\w-]){key}" for key in _KEYS)), _anything),
    ("email", re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])"), _anything),
    ("resident_id", re.compile(r"(?<!\d)\d{17}[\dXx](?![\dA-Za-z])"), is_resident_id),
    ("credit_card", re.compile(r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d-])"), passes_luhn),
    ("phone", re.compile(r"(?<![\d.-])(?:(?:\+|00)86[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}(?!\d)"), _anything),
    ("phone", re.compile(r"(?<![\w.+])\+\d{1,3}[ .-]?\(?\d{1,4}\)?(?:[ .-]?\d{2,4}){2,4}(?!\d)"), _is_phone),
    ("phone", re.compile(r"(?<![\w.-])\(?[2-9]\d{2}\)?[ .-]\d{3}[.-]\d{4}(?!\d)"), _anything),
    ("us_ssn", re.compile(r"(?<![\d-])(?!000|666|9\d\d)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])"), _anything),
    ("ip_address", re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d.]*\d)"), is_public_address),
    ("ip_address", re.compile(r"(?<![\w:])(?:[0-9a-fA-F]{1,4}:){2,7}(?::?[0-9a-fA-F]{1,4}){1,6}(?![\w:])"), is_public_address),
)


def find_personal_data(text: str) -> list[PersonalData]:
    """What is found, in order; of finds that overlap the first kind listed in this module wins."""
    found: list[PersonalData] = []
    for find in _finds(text):
        if all(find.end <= other.start or find.start >= other.end for other in found):
            found.append(find)
    return sorted(found, key=lambda find: find.start)


_RUN = re.compile(r"\d[\d .()-]{6,}")


def _finds(text: str) -> Iterator[PersonalData]:
    numbers = _RUN.search(text) is not None
    worth = {
        "api_key": _KEY_SIGN.search(text) is not None,
        "email": "@" in text,
        "ip_address": numbers or text.count(":") > 1,
    }
    for kind, pattern, is_one in _PATTERNS:
        if worth.get(kind, numbers):  # most texts have nothing that could begin one
            for match in pattern.finditer(text):
                if is_one(match[0]):
                    yield PersonalData(kind, match.start(), match.end())
