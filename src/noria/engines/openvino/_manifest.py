"""`noria-model.json`: what a prepared model folder holds. The only file a reader must understand first.

The folder: `noria-model.json`, `decoder.xml` + `decoder.bin` (the graph), `tokenizer.json`.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from noria.errors import ConfigurationError

__all__ = ["MANIFEST_NAME", "ModelManifest"]

MANIFEST_NAME = "noria-model.json"
FORMAT_VERSION = 1


class ModelManifest(BaseModel):
    """Written by `prepare`, read by the worker. A folder of another format version is refused, not guessed at."""

    model_config = ConfigDict(extra="forbid")

    format_version: int = FORMAT_VERSION
    kind: str = "decoder"
    architecture: str
    name: str
    license: str | None = None
    languages: list[str] = []
    source_sha256: str
    num_parameters: int
    context_length: int
    vocab_size: int
    weight_format: str
    runtime_properties: dict[str, str]  # OpenVINO's, for steps of few tokens
    wide_runtime_properties: dict[str, str] | None = None  # for the others; None: the same
    bos_token: str | None = None
    eos_token: str | None = None
    add_bos: bool = False
    end_token_ids: list[int]
    chat_template: str | None = None
    randomised_seed: int | None = None

    @classmethod
    def read(cls, folder: Path) -> ModelManifest:
        path = folder / MANIFEST_NAME
        try:
            fields = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise ConfigurationError(
                f"{folder} is not a prepared model: it has no {MANIFEST_NAME}.",
                hint="Make one with: python -m noria.engines.openvino.prepare MODEL.gguf FOLDER",
            ) from None
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{path} cannot be read: {error}") from error
        if fields.get("format_version") != FORMAT_VERSION:
            raise ConfigurationError(
                f"{path} has format version {fields.get('format_version')!r}; this Noria reads {FORMAT_VERSION}.",
                hint="Prepare the model again.",
            )
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise ConfigurationError(f"{path} is damaged: {error.errors()[0]}", hint="Prepare it again.") from error

    def write(self, folder: Path) -> None:
        (folder / MANIFEST_NAME).write_text(self.model_dump_json(indent=1) + "\n", "utf-8")
