"""Planted failures: candidates that are worse must not pass the gate, candidates whose live score drops must be rolled back.

A good detector is made first and has the route. Then each bad candidate is trained in a turn of its own, on labels that are noise
or turned round, on a wrong template, overtrained, at a ruinous rate, on words that are no labels; the gate has rows with the
true labels. Then good candidates go into the canary, and there their users give thumbs down or corrections.
    python -m benchmarks.wheel.planted --failures 20 --drops 10
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks import results
from benchmarks.data import injections
from benchmarks.wheel.injection import LONGEST, RECIPE, SYSTEM, conversation, spec, word
from benchmarks.wheel.stage import MODEL, Stage, stage, told

Rows = Sequence[tuple[str, bool]]


@dataclass(frozen=True, slots=True)
class Plant:
    """One way to make a bad candidate: what label each row gets, how it is asked, how it is trained."""

    kind: str
    label: Callable[[bool, random.Random], str]
    system: str = SYSTEM
    rows: int | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict[str, Any])
    options: dict[str, Any] = field(default_factory=dict[str, Any])


def _true(label: bool, _: random.Random) -> str:
    return word(label)


PLANTS = (
    Plant("noise labels", lambda _, drawn: word(drawn.random() < 0.5)),
    Plant("labels turned round", lambda label, _: word(not label)),
    Plant("nearly always No", lambda label, drawn: word(label and drawn.random() < 0.05)),
    Plant("wrong template", lambda label, _: word(not label), system="You are a pirate. Answer in rhyme."),
    Plant("overtrained on few rows", _true, rows=24, hyperparameters={"n_epochs": 20}),
    Plant("ruinous learning rate", _true, options={"learning_rate": 0.05}),
    Plant("words that are no labels", lambda label, _: "injection" if label else "harmless"),
    Plant("a third of labels wrong", lambda label, drawn: word(label != (drawn.random() < 0.34))),
)


def make_wheel(on: Stage, name: str, options: argparse.Namespace, **changes: Any) -> None:
    whole = spec(argparse.Namespace(epochs=1, minutes=options.minutes)) | {"name": name} | changes
    whole["data"] = {**whole["data"], "min_rows": 10}
    on.post("/v1/noria/wheels", {"spec": whole})


def feed(on: Stage, route: str, rows: Rows, plant: Plant, seed: int) -> None:
    drawn = random.Random(seed)
    asked = [[{"role": "system", "content": plant.system}, *conversation(text)[1:]] for text, _ in rows]
    answers = on.ask_all(route, asked, max_tokens=LONGEST)
    said = [
        {"completion_id": given, "label": plant.label(label, drawn)} for (_, given), (_, label) in zip(answers, rows, strict=True)
    ]
    on.give_feedback(said)


def plant_failures(on: Stage, good: str, train: Rows, options: argparse.Namespace, found: list[dict[str, Any]]) -> None:
    for number in range(options.failures):
        plant, name = PLANTS[number % len(PLANTS)], f"planted-{number}"
        print(f"{name}: {plant.kind}", flush=True)
        route = {"strategy": "weighted", "targets": [{"model": good}], "sticky": True}
        on.post("/v1/noria/models", {"id": name, "source": "route", "route": route})
        rows = random.Random(100 + number).sample(train, min(plant.rows or options.rows, len(train)))
        training = {
            "hyperparameters": {**RECIPE["hyperparameters"], **plant.hyperparameters},
            "options": {**RECIPE["options"], **plant.options},
            "minutes": options.minutes,
            "seed": number,
        }
        make_wheel(on, name, options, train=training)
        since = time.time()
        feed(on, name, rows, plant, number)
        turn = on.turn(name)
        compared = ((turn["data"].get("gate") or {}).get("comparisons") or [{}])[0]
        found.append(
            {
                "kind": plant.kind,
                "outcome": turn["outcome"],
                "reason": turn["reason"],
                "base": compared.get("base"),
                "candidate": compared.get("candidate"),
                "p": compared.get("p"),
                "seconds": round(time.time() - since, 1),
            }
        )


def plant_drops(on: Stage, train: Rows, options: argparse.Namespace, found: list[dict[str, Any]]) -> None:
    for number in range(options.drops):
        kind, name = ("thumbs down", "corrections", "labels")[number % 3], f"drop-{number}"
        print(f"{name}: {kind}", flush=True)
        steps = [{"share": 0.3, "min_requests": 400, "minutes": 0}]
        changes = {"canary": {"steps": steps, "max_hours": 0.5}, "guard": {"every_s": 1.0, "watch_hours": 0}}
        make_wheel(on, name, options, **changes)
        plant = Plant("good", _true)
        feed(on, name, random.Random(500 + number).sample(train, min(options.rows, len(train))), plant, number)
        turn = on.turn(name, until=("canary",))
        begun, asked = time.time(), 0
        while turn["step"] == "canary" and time.time() - begun < 1200:
            asked += use(on, name, kind, random.Random(number * 1000 + asked))
            turn = on.get(f"/v1/noria/wheels/{name}/turns/{turn['id']}")
        canary = turn["data"].get("canary") or {}
        shares = on.get(f"/v1/noria/wheels/{name}")["counts"]["shares"]
        found.append(
            {
                "kind": kind,
                "outcome": turn["outcome"],
                "reason": turn["reason"],
                "requests": asked,
                "candidate_requests": (canary.get("candidate") or {}).get("requests"),
                "seconds_in_canary": round(time.time() - begun, 1),
                "base_has_all": shares == {MODEL: 1.0},
            }
        )
        print(f"  {turn['outcome']} {turn['reason']} {shares}", flush=True)


def use(on: Stage, route: str, kind: str, drawn: random.Random) -> int:
    """Forty users ask; those who got the candidate are unhappy in three cases of five, the others in one of twenty."""
    rows = drawn.sample(injections("validation")[500:], 40)
    for text, _ in rows:
        user = f"user-{drawn.randrange(10**9)}"
        body = {"model": route, "messages": conversation(text), "max_tokens": LONGEST, "temperature": 0, "user": user}
        reply = on.client.post("/v1/chat/completions", json=body).raise_for_status()
        unhappy = drawn.random() < (0.05 if reply.headers["x-noria-model"] == MODEL else 0.6)
        answer = reply.json()
        if kind == "labels":
            answered = (answer["choices"][0]["message"]["content"] or "").strip()
            said = {"label": word(answered != "Yes") if unhappy else answered or "No"}
        elif kind == "corrections" and unhappy:
            said = {"correction": "Something else."}
        else:
            said = {"rating": "down" if unhappy else "up"}
        on.client.post("/v1/noria/feedback", json={"completion_id": answer["id"], **said}).raise_for_status()
    return len(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--failures", type=int, default=20)
    parser.add_argument("--drops", type=int, default=10)
    parser.add_argument("--rows", type=int, default=400, help="rows of each turn")
    parser.add_argument("--minutes", type=float, default=3.0, help="longest training of each turn")
    parser.add_argument("--good-rows", type=int, default=1500)
    parser.add_argument("--label", default="default")
    options = parser.parse_args()
    train, valid = injections("train"), injections("validation")
    random.Random(1).shuffle(train)
    random.Random(2).shuffle(valid)
    gate_rows = [{"messages": conversation(text), "expected": word(label)} for text, label in valid[:500]]
    begun = time.time()
    with stage() as on:
        on.add_rows("validation", gate_rows)
        found: dict[str, Any] = {"failures": [], "drops": []}
        good: dict[str, Any] = {}
        if options.failures:
            good_options = argparse.Namespace(minutes=max(options.minutes, 8.0))
            make_wheel(on, "good", good_options)
            feed(on, "good", train[: options.good_rows], Plant("good", _true), 0)
            good = on.turn("good")
            if good["outcome"] != "promoted":
                raise SystemExit(f"The good detector was {good['outcome']}: {good['reason']}")
            found["good"] = told(good)
        try:
            if options.drops:
                plant_drops(on, train, options, found["drops"])
            if options.failures:
                plant_failures(on, good["data"]["candidate"], train[options.good_rows :], options, found["failures"])
        except (httpx.HTTPError, KeyboardInterrupt) as error:  # what was found until then is kept, and says so
            found["broken_off"] = repr(error)
    promoted = [each for each in found["failures"] if each["outcome"] == "promoted"]
    missed = [each for each in found["drops"] if each["outcome"] != "rolled_back" or not each["base_has_all"]]
    summary = {
        "bad_candidates": len(found["failures"]),
        "bad_promoted": len(promoted),
        "drops": len(found["drops"]),
        "drops_not_rolled_back": len(missed),
    }
    print(summary)
    results.save(
        f"wheel-planted-{options.label}", {"options": vars(options), "minutes": (time.time() - begun) / 60, **summary, **found}
    )


if __name__ == "__main__":
    main()
