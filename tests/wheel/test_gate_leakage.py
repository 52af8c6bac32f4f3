"""Rows whose question is in the gate's own dataset are not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from noria.evals.datasets import Datasets
from noria.store import DEFAULT_PROJECT, Blobs, Database
from noria.tracing import TracingOptions, configure
from noria.wheel._dataset_rows import DatasetRows
from noria.wheel._parts import Collected
from noria.wheel._spec import WheelSpec


def row(asked: str, image: str | None = None) -> dict[str, Any]:
    picture = [{"type": "image_url", "image_url": {"url": image}}] if image else []
    return {
        "messages": [{"role": "user", "content": [{"type": "text", "text": asked}, *picture]}],
        "expected": {"role": "assistant", "content": "So it is."},
    }


async def test_a_question_of_the_gate_is_known_in_other_marks_and_an_image_apart(tmp_path: Path) -> None:
    database = await Database.open(f"sqlite:///{tmp_path / 'noria.db'}")
    tracing = configure(TracingOptions(url=f"sqlite:///{tmp_path}/traces.db"), set_global=False)
    datasets = Datasets(database, Blobs(str(tmp_path / "blobs")), tracing.store)
    held_out = await datasets.create("gate", shares=(0.0, 0.0))
    await datasets.add(
        held_out.id, [row("Explain recursion"), row("What is (a)?"), row("Which animal?", "https://x.test/cat.png")]
    )
    collected = await datasets.create("w", shares=(0.0, 0.0))
    asked = [
        row('Explain "recursion"'), row("**Explain** recursion!"), row("what is [A]"), row("Which animal", "https://x.test/cat.png"),
        row("Which animal?", "https://x.test/dog.png"), row("Explain iteration"),
    ]  # fmt: skip
    await datasets.add(collected.id, asked)
    spec = WheelSpec.model_validate({"name": "w", "base_model": "m", "gate": {"dataset": "gate", "split": "train"}})
    leaked = set(await DatasetRows(database, datasets)._leaked(DEFAULT_PROJECT, spec, Collected(collected.id, 1, 6, 6)))
    kept = [each.content async for each in datasets.rows(collected.id, 1) if each.row_id not in leaked]
    assert kept == [{**each, "metadata": {}} for each in asked[4:]]
    tracing.close()
    await database.aclose()
