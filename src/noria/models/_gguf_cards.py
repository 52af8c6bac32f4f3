"""The card of a model that was made from a GGUF file: what the file says of itself, and what its size asks for."""

from __future__ import annotations

from pathlib import Path

from noria.engines.openvino import model_facts

from ._cards import Feature, ModelCard

__all__ = ["card_of_gguf"]

_SUPPORTS: tuple[Feature, ...] = ("stream", "json_schema", "logprobs", "echo", "grammar", "seed")
# The engine keeps the weights in two forms, beside 512 MiB of keys and values and some 400 of its own: measured on the default.
_FIXED_MB, _PER_WEIGHT = 900, 2.5


def card_of_gguf(model_id: str, weights: str, folder: Path, title: str = "") -> ModelCard:
    """`folder` is the prepared model. Raises ConfigurationError where it is damaged."""
    facts = model_facts(folder)
    weights_bytes = (folder / "decoder.bin").stat().st_size
    talks = facts.chat_template is not None
    without = "" if talks else " It has no chat template: it completes text, and does not chat."
    return ModelCard(
        id=model_id,
        task="chat",
        source="engine",
        engine="openvino",
        weights=weights,
        title=title or facts.name,
        description=f"Made from {weights.removeprefix('gguf:')}.{without}",
        licence=facts.license,
        languages=tuple(facts.languages),
        parameters=facts.num_parameters,
        size_bytes=weights_bytes,
        context_tokens=facts.context_length,
        memory_mb=int(_FIXED_MB + _PER_WEIGHT * weights_bytes / 2**20),
        supports=(*_SUPPORTS, "tools") if talks else _SUPPORTS,
    )
