"""The slow, obvious references: a llama in plain numpy that recomputes everything, and a sampler that sorts everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from noria.engines.openvino._graph import DecoderSpec
from noria.engines.openvino._sampler import uniform
from noria.engines.openvino._sequence import Sampling

Array = np.ndarray[Any, Any]
Fetch = Callable[[str], Array]


def forward(spec: DecoderSpec, fetch: Fetch, ids: Sequence[int]) -> Array:
    """Logits [T, V] of one sequence: no cache, no batch, no blocks."""
    num_tokens, size, groups = len(ids), spec.head_size, spec.num_heads // spec.num_kv_heads

    def norm(x: Array, name: str) -> Array:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + spec.rms_epsilon) * fetch(f"{name}.weight")

    angles = np.arange(num_tokens)[:, None] * spec.rope_base ** (-np.arange(0, size, 2) / size)
    cos, sin = (f(np.concatenate([angles, angles], -1))[None] for f in (np.cos, np.sin))

    def rotate(h: Array) -> Array:
        return h * cos + np.concatenate([-h[..., size // 2 :], h[..., : size // 2]], -1) * sin

    def heads(h: Array, name: str, count: int) -> Array:
        return (h @ fetch(f"{name}.weight").T).reshape(num_tokens, count, size).swapaxes(0, 1)

    x = fetch("model.embed_tokens.weight")[list(ids)]
    future = np.triu(np.full((num_tokens, num_tokens), -np.inf), 1)
    for i in range(spec.num_layers):
        layer = f"model.layers.{i}"
        h = norm(x, f"{layer}.input_layernorm")
        q = rotate(heads(h, f"{layer}.self_attn.q_proj", spec.num_heads))
        k = np.repeat(rotate(heads(h, f"{layer}.self_attn.k_proj", spec.num_kv_heads)), groups, 0)
        v = np.repeat(heads(h, f"{layer}.self_attn.v_proj", spec.num_kv_heads), groups, 0)
        scores = softmax(q @ k.swapaxes(1, 2) / np.sqrt(size) + future)
        attended = (scores @ v).swapaxes(0, 1).reshape(num_tokens, -1)
        x = x + attended @ fetch(f"{layer}.self_attn.o_proj.weight").T
        h = norm(x, f"{layer}.post_attention_layernorm")
        gate = h @ fetch(f"{layer}.mlp.gate_proj.weight").T
        up = h @ fetch(f"{layer}.mlp.up_proj.weight").T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ fetch(f"{layer}.mlp.down_proj.weight").T
    head = "model.embed_tokens" if spec.tied_embeddings else "lm_head"
    return norm(x, "model.norm") @ fetch(f"{head}.weight").T


def softmax(x: Array) -> Array:
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def log_softmax(x: Array) -> Array:
    x = x.astype(np.float64)
    return x - x.max(-1, keepdims=True) - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True))


def distribution(logits: Array, sampling: Sampling, prompt: Sequence[int], generated: Sequence[int]) -> Array:
    """Probabilities [V] that a token is drawn with, straight from the definitions."""
    row = logits.astype(np.float64)
    for token in {*prompt, *generated}:
        row[token] = row[token] / sampling.repetition_penalty if row[token] > 0 else row[token] * sampling.repetition_penalty
    for token in set(generated):
        row[token] -= sampling.frequency_penalty * generated.count(token) + sampling.presence_penalty
    for token, bias in sampling.logit_bias:
        row[token] += bias
    if sampling.temperature == 0:
        result = np.zeros(len(row))
        result[int(row.argmax())] = 1.0
        return result
    probabilities = softmax(row / sampling.temperature)
    order = sorted(range(len(row)), key=lambda i: (-probabilities[i], i))
    if sampling.top_k:
        order = order[: sampling.top_k]
    total = sum(probabilities[i] for i in order)
    if sampling.top_p < 1:
        kept, mass = [], 0.0
        for i in order:
            kept.append(i)
            mass += probabilities[i]
            if mass >= sampling.top_p * total:
                break
        order = kept
    order = [i for i in order if probabilities[i] >= sampling.min_p * probabilities[order[0]]]
    result = np.zeros(len(row))
    result[order] = probabilities[order]
    return result / result.sum()


def draw(probabilities: Array, likeliest_first: bool, seed: int, position: int) -> int:
    """The token that this seed and position fall on."""
    size = len(probabilities)
    order = sorted(range(size), key=lambda i: (-probabilities[i], i)) if likeliest_first else list(range(size))
    target, mass = uniform(seed, position), 0.0
    for i in order:
        mass += probabilities[i]
        if target < mass:
            return i
    return order[-1]
