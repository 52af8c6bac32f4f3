"""Random LoRA adapters for the tiny decoder, in PEFT's files but without torch; and what they make of the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tiny_decoder as tiny

from noria.engines.openvino._tensors import write_tensors

Array = np.ndarray[Any, Any]
PARTS = {
    "self_attn": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("gate_proj", "up_proj", "down_proj"),
}


def modules(parts: tuple[str, ...] = ()) -> dict[str, tuple[int, int]]:
    """(in, out) of the tiny decoder's projections, or of those whose last name is in `parts`."""
    weights = tiny.Weights()
    found: dict[str, tuple[int, int]] = {}
    for layer in range(tiny.SPEC.num_layers):
        for block, names in PARTS.items():
            for name in names:
                if not parts or name in parts:
                    path = f"model.layers.{layer}.{block}.{name}"
                    out, size = weights(f"{path}.weight").shape
                    found[path] = (size, out)
    return found


def write_adapter(
    folder: Path, seed: int, *, rank: int = 4, alpha: float = 8, parts: tuple[str, ...] = (), **config: Any
) -> Path:
    """An adapter as PEFT saves it. The same seed gives the same one."""
    random = np.random.default_rng(seed)
    tensors: dict[str, Array] = {}
    for name, (size, out) in modules(parts).items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = random.normal(0, 0.2, (rank, size)).astype(np.float32)
        tensors[f"base_model.model.{name}.lora_B.weight"] = random.normal(0, 0.2, (out, rank)).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "adapter_model.safetensors", {k: v.shape for k, v in tensors.items()}, tensors.__getitem__)
    fields = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": alpha, "target_modules": list(parts)}
    (folder / "adapter_config.json").write_text(json.dumps({**fields, **config}), "utf-8")
    return folder


def merged(seed: int | None, *, rank: int = 4, alpha: float = 8, parts: tuple[str, ...] = ()) -> Callable[[str], Array]:
    """The tiny decoder's weights with that adapter inside, straight from the definition: W + alpha/r · B·A."""
    base = tiny.Weights()
    if seed is None:
        return base
    random = np.random.default_rng(seed)
    updates: dict[str, Array] = {}
    for name, (size, out) in modules(parts).items():
        a = random.normal(0, 0.2, (rank, size)).astype(np.float32)
        b = random.normal(0, 0.2, (out, rank)).astype(np.float32)
        updates[f"{name}.weight"] = alpha / rank * (b @ a)
    return lambda name: base(name) + updates[name] if name in updates else base(name)
