"""Usage and cost, read from what a model's answer says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._cards import ModelCard, Usage

__all__ = ["cost_usd", "read_usage"]


def read_usage(card: ModelCard, usage: Mapping[str, Any] | None) -> Usage:
    """OpenAI's `usage` object (chat, completions, embeddings or responses) as figures with a cost."""
    if not usage:
        return Usage()
    inputs = int(usage.get("prompt_tokens") or usage.get("input_tokens") or 0)
    outputs = int(usage.get("completion_tokens") or usage.get("output_tokens") or 0)
    details: Mapping[str, Any] = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    cached = int(details.get("cached_tokens") or 0)
    produced: Mapping[str, Any] = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    return Usage(
        input_tokens=inputs,
        cached_tokens=cached,
        output_tokens=outputs,
        reasoning_tokens=int(produced.get("reasoning_tokens") or 0),
        cost_usd=cost_usd(card, inputs, cached, outputs),
    )


def cost_usd(card: ModelCard, input_tokens: int, cached_tokens: int, output_tokens: int) -> float | None:
    if card.is_local:
        return 0.0
    price = card.price
    if price is None:
        return None
    cached_price = price.input if price.cached_input is None else price.cached_input
    fresh = max(0, input_tokens - cached_tokens)
    return (fresh * price.input + cached_tokens * cached_price + output_tokens * price.output) / 1e6
