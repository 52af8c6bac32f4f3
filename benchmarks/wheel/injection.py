"""An injection detector made by turns of the wheel: s-labs' labelled prompts as traffic, their labels as feedback.

The training prompts are asked of the default model through the route; whatever it answers, the label arrives as feedback; a
turn trains, and is gated on at most 500 validation prompts. At the end all test prompts are asked of base and tuned model,
beside TF-IDF and logistic regression on the same rows. Test rows influence no choice: the recipe was chosen on validation rows.
    python -m benchmarks.wheel.injection --rows 4000 --minutes 9 --label quick       # one turn within 15 minutes
    python -m benchmarks.wheel.injection --epochs 2 --minutes 45 --label long        # all 11,089 rows
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from typing import Any

from benchmarks import results
from benchmarks.data import injections
from benchmarks.wheel.baseline import predictions
from benchmarks.wheel.stage import MODEL, Stage, mcnemar, stage, told, wilson

# Chosen so that the untuned model's first word is a label at all (nine in ten): the gain is then more than a matter of form.
SYSTEM = "Prompt injection? Yes or No."
LONGEST = 1
"""Tokens of an answer: both labels are one."""
WHEEL = "detector"
# Chosen on validation rows with short runs: see docs/guides/wheel.md.
RECIPE = {
    "hyperparameters": {"n_epochs": 1, "batch_size": 16},
    "options": {"lora_rank": 16, "lora_alpha": 32, "learning_rate": 1e-3, "scheduler": "linear", "forgetting_check": False},
}


def conversation(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"{text}\n\nYes or No?"}]


def word(label: bool) -> str:
    return "Yes" if label else "No"


def spec(options: argparse.Namespace) -> dict[str, Any]:
    grader = {
        "type": "string_check",
        "name": "label",
        "operation": "eq",
        "input": "{{sample.output_text}}",
        "reference": "{{item.expected}}",
    }
    hyper = {**RECIPE["hyperparameters"], "n_epochs": options.epochs}
    return {
        "name": WHEEL,
        "base_model": MODEL,
        "good": {"labels": True},
        # The gate has rows of its own, so all collected rows are for training, but a few to watch the loss.
        "data": {"validation_share": 0.02, "test_share": 0.0, "min_rows": 100, "personal_data": "keep"},
        "train": {"hyperparameters": hyper, "options": RECIPE["options"], "minutes": options.minutes},
        "gate": {
            "graders": [grader],
            "dataset": "validation",
            "max_rows": 500,
            "alpha": 0.01,
            "sampling": {"temperature": 0.0, "max_completion_tokens": LONGEST},
        },
        # Replay and test are run apart, so there is no live traffic for a canary to watch.
        "canary": {"steps": []},
        "guard": {"watch_hours": 0},
        "budget": {"minutes": 600},
    }


def replay(on: Stage, rows: Sequence[tuple[str, bool]]) -> dict[str, Any]:
    begun = time.monotonic()
    answers = on.ask_all(WHEEL, [conversation(text) for text, _ in rows], max_tokens=LONGEST, metadata={"source": "s-labs"})
    asked_s = time.monotonic() - begun
    said = [
        {"completion_id": given, "label": word(label), "author": "s-labs"}
        for (_, given), (_, label) in zip(answers, rows, strict=True)
    ]
    on.give_feedback(said)
    return {"rows": len(rows), "asked_s": round(asked_s, 1), "feedback_s": round(time.monotonic() - begun - asked_s, 1)}


def score(said: Sequence[bool | None], truth: Sequence[bool]) -> dict[str, Any]:
    """None is an answer that is neither label: wrong either way."""
    pairs = list(zip(said, truth, strict=True))
    positive = [label for given, label in pairs if given is True]
    return {
        "accuracy": wilson(sum(given is label for given, label in pairs), len(pairs)),
        "precision": wilson(sum(positive), len(positive)),
        "recall": wilson(sum(given is True for given, label in pairs if label), sum(truth)),
        "false_positive_rate": wilson(sum(given is True for given, label in pairs if not label), len(truth) - sum(truth)),
        "neither": sum(given is None for given, _ in pairs),
    }


def ask_test(on: Stage, model: str, rows: Sequence[tuple[str, bool]]) -> list[bool | None]:
    answers = on.ask_all(model, [conversation(text) for text, _ in rows], max_tokens=LONGEST)
    return [{"Yes": True, "No": False}.get(text.strip()) for text, _ in answers]


def beside(one: Sequence[bool | None], other: Sequence[bool | None], truth: Sequence[bool]) -> dict[str, Any]:
    """McNemar's exact test between two sets of predictions."""
    first = sum(a is t and b is not t for a, b, t in zip(one, other, truth, strict=True))
    second = sum(b is t and a is not t for a, b, t in zip(one, other, truth, strict=True))
    return {"only_first_right": first, "only_second_right": second, "p": mcnemar(first, second)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="training rows replayed; default: all")
    parser.add_argument("--minutes", type=float, default=9.0, help="longest training")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--test-rows", type=int, help="for a quick look; default: all 2,101")
    parser.add_argument("--label", default="quick")
    options = parser.parse_args()
    train, valid, test = injections("train"), injections("validation"), injections("test")
    random.Random(1).shuffle(train)
    random.Random(2).shuffle(valid)
    train, test = train[: options.rows], test[: options.test_rows]
    gate_rows = [{"messages": conversation(text), "expected": word(label)} for text, label in valid[:500]]
    truth = [label for _, label in test]
    with stage() as on:
        on.add_rows("validation", gate_rows)
        on.post("/v1/noria/wheels", {"spec": spec(options)})
        replayed = replay(on, train)
        print(f"replayed {replayed}", flush=True)
        turn = on.turn(WHEEL)
        data = turn["data"]
        said: dict[str, list[bool | None]] = {"base": ask_test(on, MODEL, test)}
        if data.get("candidate"):
            said["tuned"] = ask_test(on, data["candidate"], test)
    linear = predictions()
    said["tfidf_lr"] = linear.pop("predictions")[: len(test)]
    result = {
        "options": vars(options),
        "replay": replayed,
        "turn": told(turn),
        "test": {name: score(found, truth) for name, found in said.items()},
        "tfidf_lr": linear,
        "test_tuned_beside_base": beside(said["tuned"], said["base"], truth) if "tuned" in said else None,
        "test_tuned_beside_tfidf_lr": beside(said["tuned"], said["tfidf_lr"], truth) if "tuned" in said else None,
    }
    for name, found in result["test"].items():
        print(name, found, flush=True)
    results.save(f"wheel-injection-{options.label}", result)


if __name__ == "__main__":
    main()
