"""Answers from passages: SQuAD-shifts' questions as traffic of one domain, with corrections; exact match and F1, base and tuned.

Trained on questions about some articles of one domain; tested on articles of it that were never seen, and on another domain.
    python -m benchmarks.wheel.answers --rows 2000 --minutes 20 --label default
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import results
from benchmarks.answers import f1, words
from benchmarks.data import squad_shifts
from benchmarks.wheel.stage import MODEL, Stage, bootstrap, stage, told

SYSTEM = "Answer with the shortest exact quote from the passage."
WHEEL = "reader"
DOMAIN, OTHER = "new_wiki_v1.0", "nyt_v1.0"
_LONGEST = 1200
RECIPE = {
    "hyperparameters": {"n_epochs": 1, "batch_size": 16},
    "options": {"lora_rank": 16, "lora_alpha": 32, "learning_rate": 1e-3, "scheduler": "linear", "forgetting_check": False},
}


@dataclass(frozen=True, slots=True)
class Question:
    article: str
    passage: str
    question: str
    answers: tuple[str, ...]

    @property
    def conversation(self) -> list[dict[str, str]]:
        return [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"{self.passage.strip()}\n\nQuestion: {self.question}"},
        ]


def questions(domain: str) -> dict[str, list[Question]]:
    """By article; of long passages none, for they would be most of the time."""
    found: dict[str, list[Question]] = {}
    for number, article in enumerate(squad_shifts(domain)):
        name = f"{article.get('title', '')}#{number}"
        for paragraph in article["paragraphs"]:
            if len(paragraph["context"]) > _LONGEST:
                continue
            for asked in paragraph["qas"]:
                answers = tuple(answer["text"] for answer in asked["answers"])
                if answers:
                    found.setdefault(name, []).append(Question(name, paragraph["context"], asked["question"], answers))
    return found


def spec(options: argparse.Namespace) -> dict[str, Any]:
    reference = {"input": "{{sample.output_text}}", "reference": "{{item.expected}}"}
    return {
        "name": WHEEL,
        "base_model": MODEL,
        # Many questions share a passage: nearly the same input is no leak here, for the tests have articles of their own.
        "data": {
            "validation_share": 0.03,
            "test_share": 0.15,
            "personal_data": "keep",
            "contradictions": "keep",
            "leakage": "keep",
        },
        "train": {**RECIPE, "minutes": options.minutes},
        "gate": {
            "graders": [
                {
                    "type": "text_similarity",
                    "name": "overlap",
                    "evaluation_metric": "rouge_1",
                    "pass_threshold": 0.5,
                    **reference,
                }
            ],
            "max_rows": options.gate_rows,
            "sampling": {"temperature": 0.0, "max_completion_tokens": 32},
        },
        "canary": {"steps": []},
        "guard": {"watch_hours": 0},
        "budget": {"minutes": 600},
    }


def measure(on: Stage, model: str, asked: Sequence[Question]) -> dict[str, Any]:
    answers = [text for text, _ in on.ask_all(model, [each.conversation for each in asked], max_tokens=32)]
    pairs = list(zip(answers, asked, strict=True))
    exact = [float(any(words(text) == words(gold) for gold in each.answers)) for text, each in pairs]
    overlap = [max(f1(text, gold) for gold in each.answers) for text, each in pairs]
    articles = [each.article for each in asked]
    return {"exact_match": bootstrap(exact, articles), "f1": bootstrap(overlap, articles)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000, help="questions replayed as traffic")
    parser.add_argument("--minutes", type=float, default=20.0, help="longest training")
    parser.add_argument("--test-rows", type=int, default=500, help="questions in each test")
    parser.add_argument("--gate-rows", type=int, default=300)
    parser.add_argument("--label", default="default")
    options = parser.parse_args()
    drawn = random.Random(3)
    domain, other = questions(DOMAIN), questions(OTHER)
    articles = sorted(domain)
    drawn.shuffle(articles)
    unseen, seen = articles[: len(articles) // 3], articles[len(articles) // 3 :]
    pool = [each for name in seen for each in domain[name]]
    traffic = drawn.sample(pool, min(options.rows, len(pool)))
    tests = {
        "unseen articles": [each for name in unseen for each in domain[name]],
        "other domain": [each for rows in other.values() for each in rows],
    }
    tests = {name: drawn.sample(rows, min(options.test_rows, len(rows))) for name, rows in tests.items()}
    with stage() as on:
        on.post("/v1/noria/wheels", {"spec": spec(options)})
        replayed = on.ask_all(WHEEL, [each.conversation for each in traffic], max_tokens=32)
        on.give_feedback(
            [
                {"completion_id": given, "rating": "down", "correction": each.answers[0], "author": "squad-shifts"}
                for (_, given), each in zip(replayed, traffic, strict=True)
            ]
        )
        turn = on.turn(WHEEL)
        data = turn["data"]
        models = {"base": MODEL} | ({"tuned": data["candidate"]} if data.get("candidate") else {})
        measured = {test: {name: measure(on, model, rows) for name, model in models.items()} for test, rows in tests.items()}
    for test, found in measured.items():
        print(test, found, flush=True)
    result = {
        "options": vars(options),
        "domains": {"trained on": DOMAIN, "other": OTHER},
        "turn": told(turn),
        "test": {f"{test}, {name}": figures for test, found in measured.items() for name, figures in found.items()},
    }
    results.save(f"wheel-answers-{options.label}", result)


if __name__ == "__main__":
    main()
