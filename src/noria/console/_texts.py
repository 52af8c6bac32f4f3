"""The console's words. Each language is one table; a test holds their keys and placeholders equal."""

from __future__ import annotations

from typing import Literal

from noria.console._texts_en import EN
from noria.console._texts_zh import ZH

__all__ = ["LANGUAGES", "Language", "Texts", "choose_language"]

Language = Literal["en", "zh"]
LANGUAGES: dict[Language, str] = {"en": "English", "zh": "中文"}
_TABLES: dict[Language, dict[str, str]] = {"en": EN, "zh": ZH}


class Texts:
    """`t("key", name=value)` in one language. An unknown key is a bug and raises KeyError."""

    def __init__(self, language: Language) -> None:
        self._table = _TABLES[language]

    def __call__(self, key: str, **values: object) -> str:
        text = self._table[key]
        return text.format(**values) if values else text

    def of(self, group: str, name: str) -> str:
        """A word of a group that the API may extend (`state`, `status`); one not known yet is shown as it came."""
        return self._table.get(f"{group}.{name}", name)


def choose_language(chosen: object, accept_language: str) -> Language:
    """The visitor's choice, else the first of their browser's languages that there is, else English."""
    if chosen in LANGUAGES:
        return chosen
    ranked: list[tuple[float, str]] = []
    for part in accept_language.split(","):
        tag, _, rest = part.strip().partition(";")
        try:
            weight = float(rest.strip().removeprefix("q=")) if rest else 1.0
        except ValueError:
            continue
        ranked.append((weight, tag.lower().split("-")[0]))
    for weight, tag in sorted(ranked, key=lambda pair: -pair[0]):
        if weight > 0 and tag in LANGUAGES:
            return tag
    return "en"
