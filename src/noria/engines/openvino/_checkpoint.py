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

from pydantic import BaseModel, ConfigDict, ValidationError

from noria.engines.openvino._gguf import GgufModel
from noria.engines.openvino._graph import DecoderSpec
from noria.engines.openvino._manifest import MANIFEST_NAME, ModelManifest
from noria.engines.openvino._tensors import write_tensors
from noria.engines.openvino._tokenizer import tokenizer_json
from noria.errors import ConfigurationError

__all__ = ["CHECKPOINT", "NOTE_NAME", "CheckpointNote", "read_note", "tensor_shapes", "write_checkpoint", "write_configuration"]

CHECKPOINT = "checkpoint"
"""The subfolder of a prepared model that holds its checkpoint."""
NOTE_NAME = "noria-checkpoint.json"
FORMAT_VERSION = 1


class CheckpointNote(BaseModel):
    """What transformers has no place for, and what a chat is rendered with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = FORMAT_VERSION
    name: str
    source_sha256: str
    license: str | None = None
    languages: list[str] = []
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None
    add_bos: bool
    end_token_ids: list[int]
    chat_template: str | None


def write_checkpoint(prepared_or_gguf: Path, out_folder: Path | None = None) -> Path:
    """Writes config.json, model.safetensors (float32), tokenizer and generation_config; returns the folder.

    `prepared_or_gguf` is a GGUF file, or a prepared model's folder that keeps its source. Without `out_folder` the
    checkpoint lies in the prepared folder, made once. A whole checkpoint of the same file is left as it is.
    Raises ConfigurationError where there is nothing to make it from, or where something else lies in `out_folder`.
    """
    if prepared_or_gguf.is_dir():
        out_folder = out_folder or prepared_or_gguf / CHECKPOINT
        if (prepared_or_gguf / MANIFEST_NAME).exists():
            wanted = ModelManifest.read(prepared_or_gguf).source_sha256
            if (note := read_note(out_folder)) is not None and note.source_sha256 == wanted:
                return out_folder
        gguf = _source_of(prepared_or_gguf)
    elif out_folder is None:
        raise ConfigurationError(f"Where should the checkpoint of {prepared_or_gguf} go?", hint="Give a folder to write.")
    else:
        gguf = prepared_or_gguf
    source = GgufModel(gguf)
    with _locked(out_folder):
        note = read_note(out_folder)
        if note is not None and note.source_sha256 == source.sha256():
            return out_folder
        if note is None and out_folder.exists() and any(out_folder.iterdir()):
            raise ConfigurationError(f"{out_folder} holds something that is not a checkpoint.", hint="Give an empty folder.")
        partial = out_folder.with_name(f".{out_folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)  # what a killed writer left: we hold the lock
        partial.mkdir(parents=True)
        try:
            _write(source, partial)
            if note is not None:
                shutil.rmtree(out_folder)
            partial.replace(out_folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return out_folder


def read_note(folder: Path) -> CheckpointNote | None:
    """The note of a whole checkpoint; None where there is none that this Noria understands."""
    try:
        note = CheckpointNote.model_validate_json((folder / NOTE_NAME).read_bytes())
    except (OSError, ValidationError):
        return None
    return note if note.format_version == FORMAT_VERSION else None


def tensor_shapes(spec: DecoderSpec) -> dict[str, tuple[int, ...]]:
    """Every tensor of a llama checkpoint by transformers' name."""
    hidden, inner = spec.hidden_size, spec.intermediate_size
    queries, keys = spec.num_heads * spec.head_size, spec.num_kv_heads * spec.head_size
    layer = {
        "input_layernorm": (hidden,),
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "post_attention_layernorm": (hidden,),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (spec.vocab_size, hidden)}
    for i in range(spec.num_layers):
        shapes |= {f"model.layers.{i}.{part}.weight": shape for part, shape in layer.items()}
    shapes["model.norm.weight"] = (hidden,)
    if not spec.tied_embeddings:
        shapes["lm_head.weight"] = (spec.vocab_size, hidden)
    return shapes


def _write(source: GgufModel, folder: Path) -> None:
    spec = source.spec()
    write_tensors(folder / "model.safetensors", tensor_shapes(spec), source.weight)
    (folder / "tokenizer.json").write_text(tokenizer_json(source), "utf-8")
    note = CheckpointNote(
        name=source.name,
        source_sha256=source.sha256(),
        license=source.field("general.license", "") or None,
        languages=list(source.field("general.languages", []) or []),
        bos_token=source.special_token("bos"),
        eos_token=source.special_token("eos"),
        pad_token=source.special_token("padding") or source.special_token("eos"),
        unk_token=source.special_token("unknown"),
        add_bos=source.add_bos,
        end_token_ids=source.end_token_ids(),
        chat_template=source.chat_template,
    )
    write_configuration(folder, spec, note, source.tokens)


def write_configuration(folder: Path, spec: DecoderSpec, note: CheckpointNote, tokens: list[str]) -> None:
    """The JSON files beside the weights and `tokenizer.json`; the note comes last."""
    ids = {name: tokens.index(token) for name, token in _special(note).items()}
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
