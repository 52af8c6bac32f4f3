"""Answers from documents on SQuAD-shifts: what the model writes, what is quoted, and what is refused.

Builds a vector store from whole articles, asks their questions through `/v1/responses` with `file_search`, and counts:
the gold answer is in the answer (`contains`), token F1, sentences with a checked citation, and, for questions about
articles that are *not* in the store, how often the answer is "not in the documents". The quality guard: what a model writes
whose weights were randomised (`benchmarks/run.py` makes one, `noise`) must be worth nothing.

Data: PyPI's `bigbench==1.0.0` source distribution, `squad_shifts/new_wiki_v1.0.json`, fetched by pip.
    python -m benchmarks.answers --url http://127.0.0.1:8420 --questions 100 --models smollm2-135m-instruct,noise
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import string
import time
from typing import Any

import httpx

from benchmarks import results
from benchmarks.data import squad_shifts


def words(text: str) -> list[str]:
    """SQuAD's normalisation: lower case, no punctuation, no articles."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def f1(answer: str, gold: str) -> float:
    given, wanted = words(answer), words(gold)
    common = sum(min(given.count(word), wanted.count(word)) for word in set(given))
    if not common:
        return 0.0
    precision, recall = common / len(given), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def build_store(client: httpx.Client, articles: list[dict[str, Any]]) -> str:
    ids: list[str] = []
    for number, article in enumerate(articles):
        text = f"# {article['title']}\n\n" + "\n\n".join(p["context"] for p in article["paragraphs"])
        files = {"file": (f"article-{number}.md", io.BytesIO(text.encode()), "text/markdown")}
        ids.append(client.post("/v1/files", files=files, data={"purpose": "assistants"}).raise_for_status().json()["id"])
    store = client.post("/v1/vector_stores", json={"name": f"squad-{time.time():.0f}", "file_ids": ids}).raise_for_status().json()
    while client.get(f"/v1/vector_stores/{store['id']}").json()["file_counts"]["in_progress"]:
        time.sleep(0.5)
    return store["id"]


def ask(client: httpx.Client, store: str, model: str, question: str, mode: str) -> dict[str, Any]:
    body = {
        "model": model,
        "input": question,
        "max_output_tokens": 96,
        "temperature": 0,
        "store": False,
        "tools": [{"type": "file_search", "vector_store_ids": [store]}],
        "noria": {"answer": mode},
    }
    begun = time.perf_counter()
    answer = client.post("/v1/responses", json=body).raise_for_status().json()
    part = answer["output"][-1]["content"][0]
    return {
        "text": part["text"],
        "mode": answer.get("noria", {}).get("answer_mode"),
        "citations": len(part["annotations"]),
        "seconds": time.perf_counter() - begun,
    }


def measure(client: httpx.Client, store: str, model: str, mode: str, known: list[Any], unknown: list[Any]) -> dict[str, Any]:
    inside = [(ask(client, store, model, question, mode), golds) for question, golds in known]
    outside = [ask(client, store, model, question, mode) for question, _ in unknown]
    answered = [row for row, _ in inside if row["mode"] != "absent"]
    return {
        "model": model,
        "mode": mode,
        "questions": len(inside),
        "contains_gold": sum(any(" ".join(words(g)) in " ".join(words(r["text"])) for g in golds) for r, golds in inside)
        / len(inside),
        "f1": sum(max(f1(row["text"], gold) for gold in golds) for row, golds in inside) / len(inside),
        "answered": len(answered) / len(inside),
        "answers_with_citation": sum(row["citations"] > 0 for row in answered) / max(1, len(answered)),
        "refused_when_absent": sum(row["mode"] == "absent" for row in outside) / max(1, len(outside)),
        "median_s": sorted(row["seconds"] for row, _ in inside)[len(inside) // 2],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8420")
    parser.add_argument("--models", default="smollm2-135m-instruct", help="the first in every mode, others only writing")
    parser.add_argument("--label", default="default")
    parser.add_argument("--articles", type=int, default=24)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--modes", default="extract,generate")
    options = parser.parse_args()
    articles = squad_shifts()
    chosen = random.Random(7)
    chosen.shuffle(articles)
    inside, outside = articles[: options.articles], articles[options.articles :]

    def questions(group: list[dict[str, Any]], count: int) -> list[tuple[str, list[str]]]:
        rows = [
            (q["question"], [a["text"] for a in q["answers"]])
            for art in group
            for p in art["paragraphs"]
            for q in p["qas"]
            if q["answers"]
        ]
        return chosen.sample(rows, count)

    known, unknown = questions(inside, options.questions), questions(outside, options.questions // 2)
    with httpx.Client(base_url=options.url, timeout=600, trust_env=False) as client:
        store = build_store(client, inside)
        first, *others = options.models.split(",")
        rows = [measure(client, store, first, mode, known, unknown) for mode in options.modes.split(",")]
        rows += [measure(client, store, other, "generate", known, unknown) for other in others]
    for row in rows:
        print(json.dumps(row))
    results.save(f"answers-{options.label}", {"settings": vars(options), "rows": rows})


if __name__ == "__main__":
    main()
