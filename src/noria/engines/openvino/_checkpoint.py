"""Writes a model as transformers reads it: the folder that training starts from.

Its weights are the GGUF file's, dequantised to float32 and nothing else, its tokenizer is the worker's own file, and its
chat template the worker's own text, so that what is trained is what is served.

The folder arrives by a rename, whole or not at all; `noria-checkpoint.json` in it says what it was made of.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tokenizers

from noria.engines.openvino._manifest import MANIFEST_NAME, ModelManifest
from noria.engines.openvino._source import NOTE_NAME, CheckpointNote, Source, open_source, read_note, tensor_shapes
from noria.engines.openvino._tensors import write_tensors
from noria.errors import ConfigurationError

__all__ = ["CHECKPOINT", "whole_folder", "write_checkpoint", "write_configuration"]

CHECKPOINT = "checkpoint"
"""The subfolder of a prepared model that holds its checkpoint."""


def write_checkpoint(prepared_or_gguf: Path, out_folder: Path | None = None) -> Path:
    """Writes config.json, model.safetensors (float32), tokenizer and generation_config; returns the folder.

    `prepared_or_gguf` is a GGUF file, or a prepared model's folder that keeps its source. Without `out_folder` the
    checkpoint lies in the prepared folder, made once. A whole checkpoint of the same file is left as it is.
    Raises ConfigurationError where there is nothing to make it from, or where something else lies in `out_folder`.
    """
    if prepared_or_gguf.is_dir():
        kept = prepared_or_gguf / CHECKPOINT
        out_folder = out_folder or kept
        if (prepared_or_gguf / MANIFEST_NAME).exists() and (note := read_note(out_folder)) is not None:
            manifest = ModelManifest.read(prepared_or_gguf)
            if note.source_sha256 == manifest.source_sha256:
                return out_folder
        gguf = _source_of(prepared_or_gguf)
    elif out_folder is None:
        raise ConfigurationError(f"Where should the checkpoint of {prepared_or_gguf} go?", hint="Give a folder to write.")
    else:
        gguf = prepared_or_gguf
    source = open_source(gguf)
    with whole_folder(out_folder, source.note.source_sha256) as partial:
        if partial is not None:
            _write(source, partial)
    return out_folder


@contextmanager
def whole_folder(out_folder: Path, source_sha256: str) -> Generator[Path | None]:
    """A folder to write a checkpoint into, which becomes `out_folder` at the end of the block; None: it is there already.

    One writer at a time, in any process; what a killed one left is cleared away.
    """
    with _locked(out_folder):
        note = read_note(out_folder)
        if note is not None and note.source_sha256 == source_sha256:
            yield None
            return
        if note is None and out_folder.exists() and any(out_folder.iterdir()):
            raise ConfigurationError(f"{out_folder} holds something that is not a checkpoint.", hint="Give an empty folder.")
        partial = out_folder.with_name(f".{out_folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            if out_folder.exists():
                shutil.rmtree(out_folder)
            partial.replace(out_folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _write(source: Source, folder: Path) -> None:
    write_tensors(folder / "model.safetensors", tensor_shapes(source.spec), source.weight)
    write_configuration(folder, source)


def write_configuration(folder: Path, source: Source) -> None:
    """The JSON files beside the weights; the note comes last."""
    spec, note = source.spec, source.note
    vocabulary = tokenizers.Tokenizer.from_str(source.tokenizer_json)
    ids = {name: vocabulary.token_to_id(token) for name, token in _special(note).items()}
    (folder / "tokenizer.json").write_text(source.tokenizer_json, "utf-8")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": spec.vocab_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.intermediate_size,
        "num_hidden_layers": spec.num_layers,
        "num_attention_heads": spec.num_heads,
        "num_key_value_heads": spec.num_kv_heads,
        "head_dim": spec.head_size,
        "hidden_act": "silu",
        "max_position_embeddings": spec.context_length,
        "rms_norm_eps": spec.rms_epsilon,
        "rope_theta": spec.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": spec.rope_base},
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": spec.tied_embeddings,
        "bos_token_id": ids.get("bos_token"),
        "eos_token_id": ids.get("eos_token"),
        "pad_token_id": ids.get("pad_token"),
    }
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **_special(note),
        "add_bos_token": note.add_bos,
        "clean_up_tokenization_spaces": False,
        "model_max_length": spec.context_length,
        **({"chat_template": note.chat_template} if note.chat_template else {}),
    }
    generation = {
        "bos_token_id": ids.get("bos_token"),
        "eos_token_id": note.end_token_ids,
        "pad_token_id": ids.get("pad_token"),
    }
    _write_json(folder / "config.json", config)
    _write_json(folder / "tokenizer_config.json", tokenizer)
    _write_json(folder / "special_tokens_map.json", _special(note))
    _write_json(folder / "generation_config.json", generation)
    _write_json(folder / NOTE_NAME, note.model_dump())


def _special(note: CheckpointNote) -> dict[str, str]:
    named = {name: getattr(note, name) for name in ("bos_token", "eos_token", "pad_token", "unk_token")}
    return {name: token for name, token in named.items() if token is not None}


def _write_json(path: Path, value: Any) -> None:
    with path.open("w", encoding="utf-8") as out:
        json.dump(value, out, ensure_ascii=False, indent=1)
        out.flush()
        os.fsync(out.fileno())


def _source_of(folder: Path) -> Path:
    found = sorted((folder / "source").glob("*.gguf")) or sorted(folder.glob("*.gguf"))
    if len(found) != 1:
        raise ConfigurationError(
            f"{folder} keeps {len(found) or 'no'} GGUF files to make a checkpoint from.",
            hint="Pull the model again (noria models pull), or give the GGUF file itself.",
        )
    return found[0]


@contextmanager
def _locked(out_folder: Path) -> Generator[None]:
    """One writer of this folder at a time, in any process; the system frees the lock when its holder dies."""
    path = out_folder.with_name(f".{out_folder.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
