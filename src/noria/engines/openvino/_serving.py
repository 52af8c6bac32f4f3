"""Loads a model folder into a running engine: the one place where the parts are put together."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from noria.engines.openvino._app import Served
from noria.engines.openvino._chat import ChatTemplate
from noria.engines.openvino._engine import Engine, Event
from noria.engines.openvino._grammar import Grammars
from noria.engines.openvino._job import JobMaker
from noria.engines.openvino._manifest import ModelManifest
from noria.engines.openvino._registry import AdapterRegistry
from noria.engines.openvino._runner import PagedModel, RunnerConfig
from noria.engines.openvino._scheduler import Limits
from noria.engines.openvino._tokenizer import Tokenizer

__all__ = ["ServeOptions", "load"]


@dataclass(frozen=True)
class ServeOptions:
    folder: Path
    name: str
    cache_mb: int = 512
    max_batch_tokens: int = 256
    max_running: int = 64
    threads: int | None = None
    one_precision: bool = False
    max_adapters: int = 8


def load(options: ServeOptions, listener: Callable[[list[Event]], None]) -> Served:
    """Raises ConfigurationError for a folder that cannot be served."""
    manifest = ModelManifest.read(options.folder)
    with ThreadPoolExecutor(1) as pool:  # the tokenizer is read while the graph compiles
        text = pool.submit(_text_side, options.folder, manifest)
        wide = None if options.one_precision else manifest.wide_runtime_properties
        config = RunnerConfig(
            options.cache_mb * 2**20,
            threads=options.threads,
            properties=tuple(manifest.runtime_properties.items()),
            wide_properties=tuple(wide.items()) if wide else None,
        )
        model = PagedModel(options.folder / "decoder.xml", config)
        tokenizer, grammars = text.result()
    limits = Limits(model.block_size, manifest.context_length, options.max_batch_tokens, options.max_running)
    engine = Engine(model, limits, frozenset(manifest.end_token_ids), listener)
    maker = JobMaker(
        tokenizer=tokenizer,
        template=ChatTemplate(manifest.chat_template, manifest.bos_token, manifest.eos_token),
        grammars=grammars,
        room=min(manifest.context_length, model.num_blocks * model.block_size),
        vocab_size=manifest.vocab_size,
        bos=tokenizer.id_of(manifest.bos_token) if manifest.add_bos and manifest.bos_token else None,
    )
    card = {"context_length": manifest.context_length, "weight_format": manifest.weight_format}
    adapters = AdapterRegistry(model, options.name, options.max_adapters)
    return Served(engine, maker, adapters, model.widen, card)


def _text_side(folder: Path, manifest: ModelManifest) -> tuple[Tokenizer, Grammars]:
    tokenizer = Tokenizer(folder / "tokenizer.json")
    return tokenizer, Grammars(tokenizer, manifest.vocab_size, manifest.end_token_ids)
