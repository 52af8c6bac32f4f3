"""Attention over examples laid end to end: each sees itself alone. The reference is padding with a mask; a test holds both equal.

On a CPU the examples are attended to one by one, in float32: in CPU time that is half of bfloat16, whose backward pass is slow
there; and splitting halves it once more beside slicing, whose gradient fills a whole tensor for each piece.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

__all__ = ["SEGMENTS", "register"]

SEGMENTS = "noria_segments"


def register() -> None:
    """Makes it known to transformers, under `SEGMENTS`."""
    ALL_ATTENTION_FUNCTIONS.register(SEGMENTS, _attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(SEGMENTS, lambda *_, **__: None)


def _attend(
    module: Any,
    query_BHTD: torch.Tensor,
    key_BKTD: torch.Tensor,
    value_BKTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    segment_lengths: list[int] | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """`segment_lengths` add up to T; without them the whole row is one segment (scoring, generating)."""
    assert attention_mask is None, "segments are not padded"
    dtype = query_BHTD.dtype
    given = (query_BHTD, key_BKTD, value_BKTD)
    if query_BHTD.device.type == "cpu":
        given = tuple(each.float() for each in given)
    lengths = segment_lengths or [query_BHTD.shape[2]]
    pieces = [
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=q.shape[1] != k.shape[1])
        for q, k, v in zip(*(each.split(lengths, dim=2) for each in given), strict=True)
    ]
    return torch.cat(pieces, dim=2).to(dtype).transpose(1, 2).contiguous(), None
