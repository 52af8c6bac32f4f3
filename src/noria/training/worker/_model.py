"""The model to train: the checkpoint's weights, with an adapter or without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from noria.training._plan import Hyper, Plan

from ._attention import SEGMENTS, register

__all__ = ["load_model", "load_tokenizer"]


def load_model(plan: Plan, hyper: Hyper, checkpoint: Path) -> Any:
    """A frozen base is kept in the precision that it is computed in; whatever is trained is float32."""
    register()
    torch.manual_seed(plan.seed)
    lora = plan.kind == "lora"
    packed = hyper.packing and plan.method == "supervised"
    dtype = torch.bfloat16 if lora and hyper.precision == "bf16" else torch.float32
    model: Any = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=dtype, attn_implementation=SEGMENTS if packed else "sdpa", local_files_only=True
    )
    model.config.use_cache = False
    if plan.start_adapter is not None:
        model = PeftModel.from_pretrained(model, plan.start_adapter, is_trainable=True)
    elif lora:
        config = LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=hyper.lora_rank or 16,
            lora_alpha=hyper.lora_alpha or 32,  # pyright: ignore[reportArgumentType]  a float is fine
            lora_dropout=hyper.lora_dropout,
            target_modules=list(hyper.lora_targets) or "all-linear",
        )
        model = get_peft_model(model, config)
    return model.to(hyper.device)


def load_tokenizer(checkpoint: Path) -> Any:
    return AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
