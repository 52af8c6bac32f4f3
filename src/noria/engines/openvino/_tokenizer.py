"""Text to tokens and back.

`tokenizer_json` builds a Hugging Face `tokenizer.json` from the vocabulary and merges inside a GGUF file;
`Tokenizer` reads one; `Detokenizer` turns a growing list of tokens into text that never holds half a character.
Knows nothing about chats or models.

Source of the pre-tokenisers: llama.cpp's `llama-vocab.cpp`, which names them in `tokenizer.ggml.pre`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers

from noria.engines.openvino._gguf import GgufModel
from noria.errors import ConfigurationError

__all__ = ["Detokenizer", "Tokenizer", "tokenizer_json"]

_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_BYTES_ONLY = {**_BYTE_LEVEL, "use_regex": False}
_DIGITS = {"type": "Digits", "individual_digits": True}
_LLAMA3 = {"type": "Split", "pattern": {"Regex": _LLAMA3_SPLIT}, "behavior": "Isolated", "invert": False}
_PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "smollm": [_DIGITS, _BYTE_LEVEL],
    "gpt-2": [_BYTE_LEVEL],
    "llama-bpe": [_LLAMA3, _BYTES_ONLY],
    "llama3": [_LLAMA3, _BYTES_ONLY],
}
_CONTROL, _USER_DEFINED = 3, 4


def tokenizer_json(source: GgufModel) -> str:
    """The `tokenizer.json` that tokenises as the GGUF file says. Byte-level BPE only."""
    kind, pre = source.field("tokenizer.ggml.model"), source.field("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2" or pre not in _PRE_TOKENIZERS:
        raise ConfigurationError(
            f"{source.path} uses the tokenizer {kind}/{pre}, which Noria cannot rebuild.",
            hint=f"It can rebuild byte-level BPE with one of: {', '.join(_PRE_TOKENIZERS)}.",
        )
    tokens: list[str] = source.field("tokenizer.ggml.tokens")
    kinds: list[int] = source.field("tokenizer.ggml.token_type", [1] * len(tokens))
    added = [
        {
            "id": i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kinds[i] == _CONTROL,
        }
        for i, token in enumerate(tokens)
        if kinds[i] in (_CONTROL, _USER_DEFINED)
    ]
    merges = [merge.split(" ") for merge in source.field("tokenizer.ggml.merges", [])]
    body = {
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": _PRE_TOKENIZERS[pre]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": merges,
            "byte_fallback": False,
            "fuse_unk": False,
            "ignore_merges": pre in ("llama-bpe", "llama3"),
        },
    }
    return json.dumps(body, ensure_ascii=False)


class Tokenizer:
    """A `tokenizer.json` and the exact bytes of each token."""

    def __init__(self, path: Path) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise ConfigurationError(f"{path} is not a readable tokenizer: {error}") from error
        self.json = path.read_text("utf-8")
        self._bytes = _token_bytes(self._tokenizer)
        self.special_ids = frozenset(i for i, t in self._tokenizer.get_added_tokens_decoder().items() if t.special)
        self.vocab_size = len(self._bytes)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text in which special tokens may be written out, as a rendered chat has them."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def id_of(self, token: str) -> int | None:
        return self._tokenizer.token_to_id(token)

    def bytes_of(self, token: int) -> bytes:
        """What the token adds to the text; special tokens are their own name. Unknown ids add nothing."""
        return self._bytes[token] if token < len(self._bytes) else b""

    def decode(self, tokens: Sequence[int]) -> str:
        """All of the text, special tokens included, with U+FFFD for what is not UTF-8."""
        return b"".join(map(self.bytes_of, tokens)).decode("utf-8", "replace")


class Detokenizer:
    """Gives text as soon as it is whole characters; special tokens are left out."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._pending = b""

    def push(self, token: int) -> str:
        """The text that this token completes, possibly none."""
        if token in self._tokenizer.special_ids:
            return ""
        self._pending += self._tokenizer.bytes_of(token)
        whole = _whole_characters(self._pending)
        text, self._pending = self._pending[:whole].decode("utf-8", "replace"), self._pending[whole:]
        return text

    def flush(self) -> str:
        """What is left at the end: bytes that never became a character."""
        text, self._pending = self._pending.decode("utf-8", "replace"), b""
        return text


def _whole_characters(data: bytes) -> int:
    """How many leading bytes are certainly not the beginning of an unfinished UTF-8 character."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            return len(data)
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if needed > back else len(data)
    return len(data)


def _token_bytes(tokenizer: tokenizers.Tokenizer) -> list[bytes]:
    """The bytes of every token, from GPT-2's table that writes bytes as printable characters."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in set(printable)]
    table = {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
    added = tokenizer.get_added_tokens_decoder()
    size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    found = [b""] * size
    for token, i in tokenizer.get_vocab(with_added_tokens=True).items():
        if i in added or any(c not in table for c in token):
            found[i] = token.encode()
        else:
            found[i] = bytes(table[c] for c in token)
    return found
