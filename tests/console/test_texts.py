"""Both languages say the same things, and every word that the pages ask for exists."""

from __future__ import annotations

import re
import string
from pathlib import Path

import noria.console
from noria.console.texts import LANGUAGES, PAGES, WORDS, Texts, choose_language
from noria.settings import Settings

SOURCES = [
    path.read_text(encoding="utf-8") for path in Path(noria.console.__file__).parent.rglob("*.py") if path.parent.name != "texts"
]


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_have_the_same_placeholders() -> None:
    for key, (english, chinese) in WORDS.items():
        assert english and chinese, key
        if not key.startswith("setting."):  # the settings' own descriptions: shown as they are, braces too
            assert placeholders(english) == placeholders(chinese), key


def test_no_key_is_written_twice() -> None:
    assert len(WORDS) == sum(len(page.TEXTS) for page in PAGES)


def test_every_key_asked_for_exists() -> None:
    asked = {key for source in SOURCES for key in re.findall(r"""\bt\(\s*"([a-z_0-9.]+)"[,)]""", source)}
    assert len(asked) > 150
    assert asked <= WORDS.keys()


def test_every_key_is_used() -> None:
    everything = "\n".join(SOURCES)
    groups = set(re.findall(r"""t\.of\(\s*"([a-z_]+)\"""", everything)) | set(re.findall(r"""\bf"([a-z_.]+)\.\{""", everything))
    unused = [key for key in WORDS if f'"{key}"' not in everything and not any(key.startswith(f"{group}.") for group in groups)]
    assert unused == []


def test_every_settings_description_is_in_both_languages() -> None:
    described = {name: field.description for name, field in Settings.model_fields.items() if field.description}
    assert {name: WORDS[f"setting.{name}"][0] for name in described} == described
    assert [name for name in described if not re.search("[一-龥]", WORDS[f"setting.{name}"][1])] == []


def test_a_word_of_a_group_not_known_is_shown_as_it_came() -> None:
    assert Texts("zh").of("state", "ready") == "就绪"
    assert Texts("zh").of("state", "something_new") == "something_new"


def test_the_language_is_the_one_chosen_else_the_browsers() -> None:
    assert choose_language("zh", "en") == "zh"
    assert choose_language(None, "fr, zh-CN;q=0.8, en;q=0.7") == "zh"
    assert choose_language("xx", "en-GB,zh;q=0.9") == "en"
    assert choose_language(None, "zh;q=0, en;q=x, ;;") == "en"
    assert choose_language(None, "") == "en"
    assert set(LANGUAGES) == {"en", "zh"}
