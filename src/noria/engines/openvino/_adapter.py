"""A LoRA adapter as PEFT saves it: read, checked against the model, ready to be stacked with others.

Knows nothing about graphs or requests. What PEFT can save but this engine would compute wrongly (DoRA, a bias, saved whole
modules, initialisations that change the base) is refused by name, never ignored.

An update is W + B·A: A [r, in], B [out, r], the scaling (alpha / r, or alpha / √r) already multiplied into B. Both are
balanced by a power of two, which is exact, so that half floats hold them.

Sources: Hu et al. 2021 (arXiv:2106.09685); https://huggingface.co/docs/peft/package_reference/lora
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from noria.engines.openvino._tensors import TensorFile
from noria.errors import ConfigurationError, InvalidRequest

__all__ = ["CONFIG_NAME", "MAX_RANK", "WEIGHTS_NAME", "Adapter", "AdapterConfig", "read_adapter", "read_adapter_config"]

Array = np.ndarray[Any, Any]

CONFIG_NAME, WEIGHTS_NAME = "adapter_config.json", "adapter_model.safetensors"
MAX_RANK = 256
_TENSOR = re.compile(r"base_model\.model\.(model\.layers\.\d+\.\w+\.\w+)\.lora_([AB])(?:\.default)?\.weight")
# What adds to the base's own weights alone may be saved beside any of these values.
_NO_MATTER = frozenset(
    {"auto_mapping", "base_model_name_or_path", "eva_config", "exclude_modules", "inference_mode", "layers_pattern"}
    | {"layers_to_transform", "lora_dropout", "peft_type", "peft_version", "qalora_group_size", "revision", "runtime_config"}
    | {"target_modules", "task_type"}
)
_HONOURED = frozenset({"r", "lora_alpha", "use_rslora", "bias", "init_lora_weights"})
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")  # the others (pissa, olora …) change the base


@dataclass(frozen=True)
class AdapterConfig:
    rank: int
    scaling: float


@dataclass(frozen=True, eq=False)
class Adapter:
    """One adapter in memory. `weights` holds (A [r, in], B as [r, out]) by module; a module it leaves alone is absent."""

    name: str
    folder: Path
    digest: bytes  # of all that decides its numbers: equal digests, equal answers
    rank: int
    weights: Mapping[str, tuple[Array, Array]]

    @property
    def num_parameters(self) -> int:
        return sum(a.size + b.size for a, b in self.weights.values())


def read_adapter(name: str, folder: Path, modules: Mapping[str, tuple[int, int]]) -> Adapter:
    """Reads a folder that PEFT wrote. `modules` are the model's projections and their (in, out).

    Raises InvalidRequest that names what does not fit.
    """
    config = read_adapter_config(folder)
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        raise InvalidRequest(
            f"The adapter in {folder} has no {WEIGHTS_NAME}.",
            param="folder",
            code="invalid_adapter",
            hint="Only safetensors are read: save it with PEFT's save_pretrained.",
        )
    try:
        file = TensorFile(path)
    except ConfigurationError as error:
        raise _refusal(error.message) from error
    halves: dict[str, dict[str, Array]] = {}
    for tensor, shape in sorted(file.shapes.items()):
        match = _TENSOR.fullmatch(tensor)
        if match is None or match[1] not in modules:
            raise _refusal(f"The adapter in {folder} changes {tensor!r}, which this model has not or cannot adapt.")
        size_in, size_out = modules[match[1]]
        wanted = (config.rank, size_in) if match[2] == "A" else (size_out, config.rank)
        if shape != wanted:
            raise _refusal(f"{tensor!r} has the shape {list(shape)}; this model and rank {config.rank} need {list(wanted)}.")
        values = file.read(tensor)
        if not np.isfinite(values).all():
            raise _refusal(f"{tensor!r} holds values that are not numbers: its training has diverged.")
        halves.setdefault(match[1], {})[match[2]] = values
    if not halves:
        raise _refusal(f"{path} is empty.")
    for module, parts in halves.items():
        if len(parts) != 2:
            raise _refusal(f"{module} has lora_{next(iter(parts))} without its other half.")
    weights = {module: _balanced(parts["A"], parts["B"], config.scaling) for module, parts in halves.items()}
    return Adapter(name, folder, _digest(folder), config.rank, weights)


def read_adapter_config(folder: Path) -> AdapterConfig:
    """Rank and scaling; refuses whatever would make the numbers other than base + scaling · B·A."""
    path = folder / CONFIG_NAME
    try:
        fields = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise _refusal(f"{folder} is not an adapter: it has no {CONFIG_NAME}.") from None
    except (OSError, ValueError) as error:
        raise _refusal(f"{path} cannot be read: {error}") from error
    if not isinstance(fields, dict) or fields.get("peft_type") != "LORA":
        raise _refusal(f"{path} is not of a LoRA adapter.")
    for key, value in fields.items():
        if key in _NO_MATTER or key in _HONOURED or _is_off(key, value):
            continue
        raise _refusal(f"{path}: {key} is {json.dumps(value)[:80]}, which this engine does not do.")
    if fields.get("bias", "none") != "none":
        raise _refusal(f'{path}: bias is {fields["bias"]!r}; only "none" is served.')
    if fields.get("init_lora_weights", True) not in _PLAIN_STARTS:
        raise _refusal(f"{path}: init_lora_weights is {fields['init_lora_weights']!r}, which changes the base model too.")
    rank, alpha = fields.get("r"), fields.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= MAX_RANK:
        raise _refusal(f"{path}: r is {rank!r}; it must be 1 to {MAX_RANK}.")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
        raise _refusal(f"{path}: lora_alpha is {alpha!r}, not a number.")
    return AdapterConfig(rank, alpha / math.sqrt(rank) if fields.get("use_rslora") else alpha / rank)


def _is_off(key: str, value: Any) -> bool:
    """A part of PEFT that is not used in this adapter, whether this engine knows it or not."""
    return value is None or value is False or value in ({}, [], "") or (key == "megatron_core" and isinstance(value, str))


def _balanced(a: Array, b: Array, scaling: float) -> tuple[Array, Array]:
    a, b = a.astype(np.float32), (b * np.float32(scaling)).T.astype(np.float32)
    largest_a, largest_b = float(np.abs(a).max()), float(np.abs(b).max())
    if largest_a > 0 and largest_b > 0:
        factor = np.float32(2.0 ** round(math.log2(largest_b / largest_a) / 2))
        a, b = a * factor, b / factor
    return np.ascontiguousarray(a), np.ascontiguousarray(b)


def _digest(folder: Path) -> bytes:
    hashed = hashlib.sha256()
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        with (folder / name).open("rb") as file:
            hashed.update(hashlib.file_digest(file, "sha256").digest())
    return hashed.digest()


def _refusal(message: str) -> InvalidRequest:
    return InvalidRequest(message, param="folder", code="invalid_adapter")
