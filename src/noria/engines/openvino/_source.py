"""Where a model's weights come from: a GGUF file, or a folder as transformers writes it. Either opens as one `Source`.

Knows nothing about OpenVINO's formats. Weights are read one at a time, when asked for.

Source of the folder's layout: https://huggingface.co/docs/transformers/main_classes/model (`save_pretrained`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from noria.engines.openvino._gguf import GgufModel
from noria.engines.openvino._graph import DecoderSpec
from noria.engines.openvino._tensors import TensorFile
from noria.engines.openvino._tokenizer import tokenizer_json
from noria.errors import ConfigurationError

__all__ = ["NOTE_NAME", "CheckpointNote", "Source", "open_source", "read_note", "tensor_shapes"]

Array = np.ndarray[Any, Any]

NOTE_NAME = "noria-checkpoint.json"
NOTE_VERSION = 1
_END_TOKENS = ("<|endoftext|>", "<|im_end|>", "<|eot_id|>")


class CheckpointNote(BaseModel):
    """What transformers has no place for, and what a chat is rendered with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = NOTE_VERSION
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


@dataclass(frozen=True)
class Source:
    """`weight` gives float32 by transformers' names, [out, in] for matrices."""

    spec: DecoderSpec
    note: CheckpointNote
    tokenizer_json: str
    weight: Callable[[str], Array]

    @property
    def num_parameters(self) -> int:
        return sum(int(np.prod(shape)) for shape in tensor_shapes(self.spec).values())


def open_source(path: Path) -> Source:
    """Raises ConfigurationError for what this engine cannot run."""
    return _open_folder(path) if path.is_dir() else _open_gguf(path)


def read_note(folder: Path) -> CheckpointNote | None:
    """The note of a whole checkpoint; None where there is none that this Noria understands."""
    try:
        note = CheckpointNote.model_validate_json((folder / NOTE_NAME).read_bytes())
    except (OSError, ValidationError):
        return None
    return note if note.format_version == NOTE_VERSION else None


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


# GGUF -----------------------------------------------------------------------------------------------------------------


def _open_gguf(path: Path) -> Source:
    model = GgufModel(path)
    note = CheckpointNote(
        name=model.name,
        source_sha256=model.sha256(),
        license=model.field("general.license", "") or None,
        languages=list(model.field("general.languages", []) or []),
        bos_token=model.special_token("bos"),
        eos_token=model.special_token("eos"),
        pad_token=model.special_token("padding") or model.special_token("eos"),
        unk_token=model.special_token("unknown"),
        add_bos=model.add_bos,
        end_token_ids=model.end_token_ids(),
        chat_template=model.chat_template,
    )
    return Source(model.spec(), note, tokenizer_json(model), model.weight)


# Transformers' folder -------------------------------------------------------------------------------------------------


def _open_folder(folder: Path) -> Source:
    config = _read_json(folder / "config.json")
    spec = _spec(folder, config)
    tensors = _tensors(folder)
    wanted = tensor_shapes(spec)
    for name, shape in wanted.items():
        if name not in tensors or tensors[name].shapes[name] != shape:
            found = list(tensors[name].shapes[name]) if name in tensors else "missing"
            raise ConfigurationError(f"{folder}: the tensor {name!r} is {found}; its config.json says {list(shape)}.")
    extra = sorted(set(tensors) - set(wanted) - {"lm_head.weight"})
    if extra:
        raise ConfigurationError(f"{folder} holds {extra[0]!r}, which a llama decoder does not have.")
    text = _tokenizer_text(folder)
    note = read_note(folder) or _note_of(folder, config, text, _digest(tensors.values()))
    return Source(spec, note, text, lambda name: tensors[name].read(name))


def _spec(folder: Path, config: Mapping[str, Any]) -> DecoderSpec:
    if config.get("model_type") != "llama":
        raise ConfigurationError(
            f"{folder} has the architecture {config.get('model_type')!r}.", hint="Noria's own engine runs llama decoders."
        )
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    for what, is_plain in (
        ("rope scaling", rope.get("rope_type", rope.get("type", "default")) == "default"),
        ("hidden_act", config.get("hidden_act", "silu") == "silu"),
        ("attention_bias", not config.get("attention_bias")),
        ("mlp_bias", not config.get("mlp_bias")),
    ):
        if not is_plain:
            raise ConfigurationError(f"{folder}: its {what} is one that Noria's own engine does not do.")
    try:
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        return DecoderSpec(
            num_layers=int(config["num_hidden_layers"]),
            hidden_size=hidden,
            intermediate_size=int(config["intermediate_size"]),
            num_heads=heads,
            num_kv_heads=int(config.get("num_key_value_heads") or heads),
            head_size=int(config.get("head_dim") or hidden // heads),
            vocab_size=int(config["vocab_size"]),
            context_length=int(config.get("max_position_embeddings", 2048)),
            rope_base=float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
            rms_epsilon=float(config.get("rms_norm_eps", 1e-6)),
            tied_embeddings=bool(config.get("tie_word_embeddings", False)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{folder / 'config.json'} is damaged: {error!r}") from error


def _tensors(folder: Path) -> dict[str, TensorFile]:
    """The file that holds each tensor; a large model lies in several."""
    files = [TensorFile(path) for path in sorted(folder.glob("model*.safetensors"))]
    if not files:
        raise ConfigurationError(f"{folder} has no model.safetensors.", hint="Only safetensors are read.")
    return {name: file for file in files for name in file.shapes}


def _digest(files: Any) -> str:
    hashed = hashlib.sha256()
    for path in sorted({file.path for file in files}):
        with path.open("rb") as file:
            hashed.update(hashlib.file_digest(file, "sha256").digest())
    return hashed.hexdigest()


def _tokenizer_text(folder: Path) -> str:
    path = folder / "tokenizer.json"
    facts = _read_json(path)
    if facts.get("model", {}).get("type") != "BPE" or "ByteLevel" not in json.dumps(facts.get("decoder")):
        raise ConfigurationError(f"{path} is not a byte-level BPE tokenizer, which is what Noria's own engine runs.")
    return path.read_text("utf-8")


def _note_of(folder: Path, config: Mapping[str, Any], tokenizer: str, digest: str) -> CheckpointNote:
    """The facts of a folder that Noria did not write, from the files beside the weights."""
    facts = _read_json(folder / "tokenizer_config.json")
    generation = _read_json(folder / "generation_config.json") if (folder / "generation_config.json").exists() else {}
    template = facts.get("chat_template")
    if template is None and (folder / "chat_template.jinja").exists():
        template = (folder / "chat_template.jinja").read_text("utf-8")
    ids = {str(token["content"]): int(token["id"]) for token in json.loads(tokenizer).get("added_tokens", ())}
    given = generation.get("eos_token_id", config.get("eos_token_id"))
    ends = {int(i) for i in (given if isinstance(given, list) else [given]) if i is not None}
    special: dict[str, str | None] = {}
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        value = facts.get(name)
        special[name] = value.get("content") if isinstance(value, dict) else value
    ends |= {ids[token] for token in (*_END_TOKENS, special["eos_token"]) if token in ids}
    if not ends:
        raise ConfigurationError(f"{folder} does not say which token ends an answer (eos_token).")
    return CheckpointNote(
        name=folder.name,
        source_sha256=digest,
        bos_token=special["bos_token"],
        eos_token=special["eos_token"],
        pad_token=special["pad_token"],
        unk_token=special["unk_token"],
        add_bos=bool(facts.get("add_bos_token", False)),
        end_token_ids=sorted(ends),
        chat_template=template if isinstance(template, str) else None,
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    if not isinstance(fields, dict):
        raise ConfigurationError(f"{path} is not a JSON object.")
    return fields
