"""What a fine-tuning job is refused for when it is created, and what happens when its base model goes away."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.conftest import NoriaServer

from .test_jobs import create, messages, until, upload
from .tiny_model import CARD, chats


def refused(client: openai.OpenAI, **options: Any) -> openai.BadRequestError:
    with pytest.raises(openai.BadRequestError) as caught:
        client.fine_tuning.jobs.create(**{"model": "tiny", "training_file": upload(client, chats(2)), **options})
    return caught.value


def test_layers_that_cannot_be_served_are_refused(played: NoriaServer) -> None:
    error = refused(played.openai(), extra_body={"noria": {"lora_targets": ["q_proj", "lm_head", "embed_tokens"]}})
    assert error.param == "noria.lora_targets" and "embed_tokens, lm_head" in error.message


def test_validations_need_a_validation_file(played: NoriaServer) -> None:
    error = refused(played.openai(), extra_body={"noria": {"eval_every": 2}})
    assert error.param == "noria.eval_every" and "validation_file" in error.message


@pytest.fixture(scope="module")
def tuned(played: NoriaServer) -> str:
    """A trained model; its played adapter has rank 4, alpha 8 and no dropout."""
    job = until(played.openai(), create(played.openai(), chats(4), seed=1).id, {"succeeded"})
    return str(job.fine_tuned_model)


@pytest.mark.parametrize(
    "options", [{"lora_rank": 8}, {"lora_alpha": 4}, {"lora_dropout": 0.1}, {"lora_targets": ["q_proj"]}, {"kind": "full"}]
)
def test_another_shape_of_an_adapter_trained_further_is_refused(played: NoriaServer, tuned: str, options: dict[str, Any]) -> None:
    error = refused(played.openai(), model=tuned, extra_body={"noria": options})
    assert error.param == f"noria.{next(iter(options))}"


def test_an_adapter_trained_further_may_be_given_its_own_shape(played: NoriaServer, tuned: str) -> None:
    client = played.openai()
    options = {"lora_rank": 4, "lora_alpha": 8, "lora_dropout": 0, "lora_targets": "auto"}
    file = upload(client, chats(4))
    job = client.fine_tuning.jobs.create(model=tuned, training_file=file, extra_body={"noria": options})
    assert until(client, job.id, {"succeeded"}).model_dump()["noria"]["resolved"]["lora_rank"] == 4


@pytest.mark.slow
def test_a_job_whose_base_model_was_removed_fails(played: NoriaServer) -> None:
    client = played.openai()
    played.add_model({**CARD, "id": "fleeting"})
    file = upload(client, chats(8))
    job = client.fine_tuning.jobs.create(model="fleeting", training_file=file, seed=7)
    deadline = time.monotonic() + 60
    while not (played.home / "training" / f"{job.id}.tries").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    client.models.delete("fleeting")
    job = until(client, job.id, {"failed"}, timeout_s=40)
    assert job.error is not None and "'fleeting'" in job.error.message and "removed meanwhile" in job.error.message
    assert any("The job failed" in text for text in messages(client, job.id))
    adapters: list[Path] = list((played.home / "adapters").glob(f"*{job.id}*"))
    assert not adapters
