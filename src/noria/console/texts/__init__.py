"""The console's words, a table a page: each key with its English and its Chinese, so that none is without the other."""

from __future__ import annotations

from typing import Literal

from noria.console.texts import (
    _datasets,
    _evals,
    _everywhere,
    _feedback,
    _home,
    _knowledge,
    _lineage,
    _models,
    _playground,
    _prompts,
    _setting_names,
    _settings,
    _traces,
    _tuning,
    _wheel,
)

__all__ = ["LANGUAGES", "PAGES", "WORDS", "Language", "Texts", "choose_language"]

Language = Literal["en", "zh"]
LANGUAGES: dict[Language, str] = {"en": "English", "zh": "中文"}
PAGES = (
    _everywhere,
    _home,
    _playground,
    _prompts,
    _knowledge,
    _traces,
    _feedback,
    _datasets,
    _evals,
    _tuning,
    _wheel,
    _lineage,
    _models,
    _settings,
    _setting_names,
)
WORDS: dict[str, tuple[str, str]] = {key: words for page in PAGES for key, words in page.TEXTS.items()}


class Texts:
    """`t("key", name=value)` in one language. An unknown key is a bug and raises KeyError."""

    def __init__(self, language: Language) -> None:
        self._place = tuple(LANGUAGES).index(language)

    def __call__(self, key: str, **values: object) -> str:
        text = WORDS[key][self._place]
        return text.format(**values) if values else text

    def of(self, group: str, name: str) -> str:
        """A word of a group that the API may extend (`state`, `status`); one not known yet is shown as it came."""
        found = WORDS.get(f"{group}.{name}")
        return found[self._place] if found else name


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
