"""The general set: how well a model still knows what everybody's model should. Each item has one right answer and wrong ones.

An item counts as known when the right answer is likelier, as a whole, than every wrong one. Nothing is generated: that is quick.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

import orjson
import torch
import torch.nn.functional as F

from ._attention import SEGMENTS
from ._batches import pack, pad
from ._tokens import Example, Tokens

if TYPE_CHECKING:
    from noria.engines.openvino._rendering import ChatRenderer

__all__ = ["answer_logprobs", "general_digest", "general_scores"]

_TOKENS_AT_ONCE = 1500


def _text() -> bytes:
    return resources.files("noria.training").joinpath("general.jsonl").read_bytes()


def general_digest() -> str:
    """Changes when the items do, or the way they are scored."""
    return hashlib.sha256(b"whole answers" + _text()).hexdigest()[:12]


def general_scores(model: Any, renderer: ChatRenderer) -> list[dict[str, Any]]:
    """One entry an item: its id, the margin of the right answer over the best wrong one (nats), known or not."""
    items = [orjson.loads(line) for line in _text().splitlines() if line.strip()]
    examples: list[Example] = []
    for item in items:
        prompt = renderer.ids([{"role": "user", "content": item["question"]}])
        for answer in (item["answer"], *item["wrong"]):
            ids = renderer.answer_ids({"role": "assistant", "content": answer})
            examples.append(Example((prompt + ids, [0] * len(prompt) + [1] * len(ids))))
    found = iter(answer_logprobs(model, examples))
    scores: list[dict[str, Any]] = []
    for item in items:
        right = next(found)
        margin = right - max(next(found) for _ in item["wrong"])
        scores.append({"id": item["id"], "topic": item["topic"], "margin": round(margin, 5), "known": margin > 0})
    return scores


def answer_logprobs(model: Any, examples: Sequence[Example]) -> list[float]:
    """The log-probability of each example's learned tokens together."""
    tokens = Tokens.of(examples)
    segments = model.config._attn_implementation == SEGMENTS
    device = next(model.parameters()).device
    training, sums = model.training, list[float]()
    model.eval()
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=model.dtype == torch.bfloat16):
        start = 0
        while start < len(tokens):
            end, total = start, 0
            while end < len(tokens) and (end == start or total + int(tokens.lengths[end]) <= _TOKENS_AT_ONCE):
                total, end = total + int(tokens.lengths[end]), end + 1
            group = [tokens[i] for i in range(start, end)]
            sums += _of_pack(model, group, device) if segments else _of_pad(model, group, device)
            start = end
    model.train(training)
    return sums


def _of_pack(model: Any, group: Sequence[Any], device: Any) -> list[float]:
    piece = pack(group)
    given = {key: piece[key].to(device) for key in ("input_ids", "position_ids")}
    logits = model(
        **given, segment_lengths=piece["segment_lengths"], logits_to_keep=piece["keep"].to(device), use_cache=False
    ).logits[0]
    values = -F.cross_entropy(logits.float(), piece["targets"].to(device), reduction="none")
    counts = [int(learned[1:].sum()) for _, learned in group]
    return [float(part.sum()) for part in values.split(counts)]


def _of_pad(model: Any, group: Sequence[Any], device: Any) -> list[float]:
    piece = {key: value.to(device) for key, value in pad(group, 0).items()}
    logits = model(input_ids=piece["input_ids"], attention_mask=piece["attention_mask"], use_cache=False).logits
    sums: list[float] = []
    for row, labels in zip(logits, piece["labels"], strict=True):
        learned = labels[1:] >= 0
        sums.append(float(-F.cross_entropy(row[:-1][learned].float(), labels[1:][learned], reduction="sum")))
    return sums
