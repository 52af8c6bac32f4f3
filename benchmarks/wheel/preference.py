"""Preference: DPO on LLaMA-Factory's English pairs; reward margin and accuracy on held-out pairs, forgetting beside it.

The margins are those that the fine-tuning job itself measures on its validation file, which holds pairs it never trains on.
    python -m benchmarks.wheel.preference --minutes 30 --label default
"""

from __future__ import annotations

import argparse
import json
import random
import time
from typing import Any

from benchmarks import results
from benchmarks.data import dpo_pairs
from benchmarks.wheel.stage import MODEL, Stage, stage

_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


def line(pair: dict[str, Any]) -> dict[str, Any]:
    """A pair as a line of OpenAI's preference format."""
    messages = [{"role": _ROLES[turn["from"]], "content": turn["value"]} for turn in pair["conversations"]]
    answers = {
        name: [{"role": "assistant", "content": pair[given]["value"]}]
        for name, given in (("preferred_output", "chosen"), ("non_preferred_output", "rejected"))
    }
    return {"input": {"messages": messages}, **answers}


def upload(on: Stage, name: str, rows: list[dict[str, Any]]) -> str:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    reply = on.client.post("/v1/files", files={"file": (name, text)}, data={"purpose": "fine-tune"})
    return reply.raise_for_status().json()["id"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="pairs to train on; default: all that are not held out")
    parser.add_argument("--held-out", type=int, default=40)
    parser.add_argument("--longest", type=int, default=3000, help="characters of a pair; longer ones are left out")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--label", default="default")
    options = parser.parse_args()
    rows = [row for pair in dpo_pairs() if len(json.dumps(row := line(pair))) <= options.longest]
    random.Random(4).shuffle(rows)
    held, train = rows[: options.held_out], rows[options.held_out :][: options.rows]
    print(f"{len(train)} pairs to train on, {len(held)} held out, of {len(rows)} that are short enough", flush=True)
    with stage() as on:
        body = {
            "model": MODEL,
            "training_file": upload(on, "train.jsonl", train),
            "validation_file": upload(on, "held-out.jsonl", held),
            "method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1, "n_epochs": options.epochs, "batch_size": 8}}},
            "suffix": "pairs",
            "noria": {"max_minutes": options.minutes, "lora_rank": 16, "learning_rate": options.learning_rate},
        }
        job = on.post("/v1/fine_tuning/jobs", body)
        begun = time.monotonic()
        while job["status"] not in {"succeeded", "failed", "cancelled"}:
            time.sleep(2)
            job = on.get(f"/v1/fine_tuning/jobs/{job['id']}")
        minutes = (time.monotonic() - begun) / 60
        events = on.get(f"/v1/fine_tuning/jobs/{job['id']}/events", limit=1000)["data"]
    metrics = [event["data"] for event in reversed(events) if event["type"] == "metrics"]
    valid = [row for row in metrics if any(str(key).startswith("valid") for key in row)]
    print(job["status"], job["error"], valid[-1:] or metrics[-1:], flush=True)
    result = {
        "options": vars(options),
        "minutes": round(minutes, 2),
        "status": job["status"],
        "error": job["error"],
        "hyperparameters": job["noria"]["resolved"],
        "forgetting": job["noria"]["forgetting"],
        "held_out": {"first": valid[0], "last": valid[-1]} if valid else None,
    }
    results.save(f"wheel-preference-{options.label}", result)


if __name__ == "__main__":
    main()
