"""Both languages say the same things, and every word that the pages ask for exists."""

from __future__ import annotations

import re
import string
from pathlib import Path

import noria.console
from noria.console._texts import LANGUAGES, Texts, choose_language
from noria.console._texts_en import EN
from noria.console._texts_zh import ZH

SOURCES = [
    path.read_text(encoding="utf-8")
    for path in Path(noria.console.__file__).parent.glob("*.py")
    if not path.name.startswith("_texts")
]


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_have_the_same_keys_and_placeholders() -> None:
    assert EN.keys() == ZH.keys()
    for key in EN:
        assert placeholders(EN[key]) == placeholders(ZH[key]), key


def test_every_key_asked_for_exists() -> None:
    asked = {key for source in SOURCES for key in re.findall(r"""\bt\(\s*"([a-z_0-9.]+)"[,)]""", source)}
    assert len(asked) > 150
    assert asked <= EN.keys()


def test_every_key_is_used() -> None:
    everything = "\n".join(SOURCES)
    groups = set(re.findall(r"""t\.of\(\s*"([a-z_]+)\"""", everything)) | set(re.findall(r"""\bf"([a-z_.]+)\.\{""", everything))
    unused = [key for key in EN if f'"{key}"' not in everything and not any(key.startswith(f"{group}.") for group in groups)]
    assert unused == []


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
