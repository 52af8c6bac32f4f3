"""Rows become the token ids that the engine will see."""

from __future__ import annotations

import io
import json
from pathlib import Path

from noria.engines.openvino import chat_renderer
from noria.training._plan import DataFacts, Plan
from noria.training._rows import Chat, Preference
from noria.training.worker._prepare import examples_of, prepare
from noria.training.worker._reporting import Reporter
from noria.training.worker._tokens import Example, Tokens

from .tiny_model import chats


def test_each_learned_answer_follows_the_prompt_of_the_engine(tiny_folder: Path) -> None:
    renderer = chat_renderer(tiny_folder)
    messages = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "22"},
    ]
    (example,) = examples_of(renderer, Chat(messages, [], (1, 3)))
    for place in (1, 3):
        prompt, answer = renderer.ids(messages[:place]), renderer.answer_ids(messages[place])
        assert example.ids[: len(prompt) + len(answer)] == prompt + answer
        assert example.learned[len(prompt) : len(prompt) + len(answer)] == [1] * len(answer)
        assert example.ids[len(prompt) + len(answer) - 1] in renderer.end_token_ids
    assert sum(example.learned) == len("1") + len("22") + 2
    (last,) = examples_of(renderer, Chat(messages, [], (3,)))
    assert last.ids == example.ids and sum(last.learned) == 3


def test_a_preference_shares_its_prompt(tiny_folder: Path) -> None:
    renderer = chat_renderer(tiny_folder)
    answers = ({"role": "assistant", "content": text} for text in ("good", "bad!"))
    chosen, rejected = examples_of(renderer, Preference([{"role": "user", "content": "q"}], [], *answers))
    start = chosen.learned.index(1)
    assert chosen.ids[:start] == rejected.ids[:start] == renderer.ids([{"role": "user", "content": "q"}])


def test_tokens_survive_a_file(tmp_path: Path) -> None:
    examples = [Example(([1, 2, 3], [0, 1, 1])), Example(([4], [1]))]
    Tokens.of(examples).save(tmp_path / "it.npz")
    found = Tokens.load(tmp_path / "it.npz")
    assert [(ids.tolist(), marks.tolist()) for ids, marks in (found[0], found[1])] == [tuple(e) for e in examples]
    assert len(found) == 2 and found.lengths.tolist() == [3, 1]


def test_preparing_says_what_it_found(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "training_file.jsonl").write_bytes(chats(6) + b"\n" + chats(2))
    Plan("j", "supervised", "lora", "tiny", str(tiny_folder), 1, 1, 1000).write(tmp_path)
    out = io.BytesIO()
    assert prepare(tmp_path, Reporter(out))  # type: ignore[arg-type]
    facts = DataFacts.read(tmp_path)
    assert facts is not None and facts.training.rows == 8 and facts.training.duplicates == 2
    assert facts.training.distinct_answers == 2 and facts.model.hidden_size == 64
    assert json.loads(out.getvalue().splitlines()[-1]) == {"type": "prepared"}


def test_at_most_a_hundred_lines_are_named(tiny_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "training_file.jsonl").write_bytes(b"nonsense\n" * 150)
    Plan("j", "supervised", "lora", "tiny", str(tiny_folder), 1, 1, 1000).write(tmp_path)
    out = io.BytesIO()
    assert not prepare(tmp_path, Reporter(out))  # type: ignore[arg-type]
    reports = [json.loads(line) for line in out.getvalue().splitlines()]
    assert sum(report["type"] == "problem" for report in reports) == 100
    assert reports[-1] == {"type": "invalid", "file": "training_file", "count": 150}
