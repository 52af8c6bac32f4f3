"""Before a training: every line is checked, and turned into the very token ids that the engine will see. Imports no torch."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from noria.engines.openvino import chat_renderer, write_checkpoint
from noria.errors import NoriaError
from noria.training._plan import DataFacts, Facts, FileFacts, FileRole, Plan, write_json
from noria.training._rows import Chat, Preference, Problem, fingerprint, parse_line, read_lines

from ._reporting import Reporter
from ._tokens import Example, Tokens

if TYPE_CHECKING:
    from noria.engines.openvino._rendering import ChatRenderer

__all__ = ["examples_of", "model_facts", "prepare"]

MOST_NAMED = 100


def prepare(folder: Path, reporter: Reporter) -> bool:
    """Writes `prepared.json` and the tokens; False where a file has bad lines, which are then reported."""
    plan = Plan.read(folder)
    reporter.send(type="progress", done=0, total=1, what="checkpoint")
    checkpoint = write_checkpoint(Path(plan.model_folder))
    model = model_facts(checkpoint)
    reader = _Reader(plan, chat_renderer(checkpoint), min(plan.max_length or math.inf, model.context_tokens), reporter)
    training = reader.read(folder, "training_file")
    validation = reader.read(folder, "validation_file") if plan.validation else None
    if training is None or (plan.validation and validation is None):
        return False
    write_json(folder / "prepared.json", asdict(DataFacts(str(checkpoint), model, training, validation)))
    reporter.send(type="prepared")
    return True


def model_facts(checkpoint: Path) -> Facts:
    config = orjson.loads((checkpoint / "config.json").read_bytes())
    with (checkpoint / "model.safetensors").open("rb") as file:
        header = orjson.loads(file.read(int.from_bytes(file.read(8), "little")))
    parameters = sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return Facts(
        parameters=parameters,
        context_tokens=config["max_position_embeddings"],
        hidden_size=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
        intermediate_size=config["intermediate_size"],
    )


class _Reader:
    def __init__(self, plan: Plan, renderer: ChatRenderer, longest: float, reporter: Reporter) -> None:
        self._plan, self._renderer, self._longest, self._reporter = plan, renderer, longest, reporter

    def read(self, folder: Path, role: FileRole) -> FileFacts | None:
        """None where lines are bad or nothing is left; both are reported."""
        path = folder / f"{role}.jsonl"
        stores: list[list[Example]] = [[] for _ in range(2 if self._plan.method == "dpo" else 1)]
        problems: list[Problem] = []
        too_long: list[Problem] = []
        num_problems, seen, answers, num_rows = 0, Counter[str](), set[str](), 0
        for num_rows, line in enumerate(read_lines(path), 1):
            if num_rows % 200 == 0:
                self._reporter.send(type="progress", done=num_rows, what=role)
            row = parse_line(line, self._plan.method)
            found = row if isinstance(row, Problem) else self._examples(row, line.number)
            if isinstance(found, Problem):
                num_problems += 1
                if len(problems) < MOST_NAMED:
                    problems.append(found)
                continue
            assert not isinstance(row, Problem)
            seen[fingerprint(row)] += 1
            answers.add(_answer_of(row))
            longest = max(len(example.ids) for example in found)
            if longest > self._longest:
                too_long.append(Problem(line.number, f"{longest:,} tokens; at most {int(self._longest):,} fit."))
                continue
            for store, examples in zip(stores, _columns(found, len(stores)), strict=True):
                store.extend(examples)
        if num_problems:
            return self._refuse(role, problems, num_problems)
        if not stores[0]:
            reason = "The file is empty." if not num_rows else f"All {num_rows:,} rows are too long for the model."
            return self._refuse(role, [Problem(0, reason)], 1)
        self._warn_too_long(role, too_long)
        suffixes = ("", "_rejected")
        for store, suffix in zip(stores, suffixes, strict=False):
            Tokens.of(store).save(folder / f"{role}{suffix}.npz")
        return FileFacts(
            rows=len(stores[0]),
            tokens=sum(len(example.ids) for store in stores for example in store),
            learned_tokens=sum(sum(example.learned) for store in stores for example in store),
            longest=max(len(example.ids) for store in stores for example in store),
            left_out=len(too_long),
            duplicates=sum(seen.values()) - len(seen),
            distinct_answers=len(answers),
        )

    def _examples(self, row: Chat | Preference, number: int) -> list[Example] | Problem:
        try:
            return examples_of(self._renderer, row)
        except NoriaError as error:
            return Problem(number, str(error))

    def _refuse(self, role: FileRole, problems: list[Problem], count: int) -> None:
        for problem in problems:
            self._reporter.send(type="problem", file=role, line=problem.line, reason=problem.reason)
        self._reporter.send(type="invalid", file=role, count=count)

    def _warn_too_long(self, role: FileRole, too_long: list[Problem]) -> None:
        for problem in too_long[:MOST_NAMED]:
            self._reporter.note(f"{role}, line {problem.line} is left out: {problem.reason}", warn=True)
        if too_long:
            self._reporter.note(f"{role}: {len(too_long):,} rows are too long for the model and are left out.", warn=True)


def examples_of(renderer: ChatRenderer, row: Chat | Preference) -> list[Example]:
    """A preference gives two examples. A chat gives one, or several where a later turn's prompt does not repeat the earlier.

    Each learned answer follows exactly the prompt that the engine would have been given for it.
    """
    if isinstance(row, Preference):
        prompt = renderer.ids(row.messages, row.tools)
        return [_with_answer(prompt, renderer.answer_ids(answer)) for answer in (row.chosen, row.rejected)]
    examples: list[Example] = []
    for place in row.learned:
        prompt = renderer.ids(row.messages[:place], row.tools)
        answer = renderer.answer_ids(row.messages[place])
        last = examples[-1] if examples else None
        if last is not None and prompt[: len(last.ids)] == last.ids:
            added = prompt[len(last.ids) :]
            examples[-1] = Example((prompt + answer, last.learned + [0] * len(added) + [1] * len(answer)))
        else:
            examples.append(_with_answer(prompt, answer))
    return examples


def _with_answer(prompt: list[int], answer: list[int]) -> Example:
    return Example((prompt + answer, [0] * len(prompt) + [1] * len(answer)))


def _columns(found: list[Example], number: int) -> list[list[Example]]:
    return [found] if number == 1 else [[example] for example in found]


def _answer_of(row: Chat | Preference) -> str:
    answers: list[Any] = [row.chosen] if isinstance(row, Preference) else [row.messages[place] for place in row.learned]
    return orjson.dumps([[answer.get("content"), answer.get("tool_calls")] for answer in answers]).decode()
