"""The embedder's process: `python -m noria.engines.embedding --model DIR --name NAME (--uds PATH | --port N)`.

It listens once the graph is compiled and warm, so that an answer from `/health` means that it is ready.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvicorn
from tokenizers import Tokenizer

from noria.engines.embedding._app import EmbeddingApp
from noria.engines.embedding._batcher import Batcher
from noria.engines.embedding._encoder import Encoder
from noria.engines.embedding._model_folder import TOKENIZER, EmbeddingCard, read_card
from noria.engines.embedding._request import Tokens
from noria.errors import NoriaError


def main() -> None:
    parser = argparse.ArgumentParser(prog="noria-embedding", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="the folder of a pulled embedder")
    parser.add_argument("--name", required=True, help="the model's name in requests")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--uds", help="listen on this Unix socket")
    where.add_argument("--port", type=int, help="listen on this port of 127.0.0.1")
    parser.add_argument("--threads", type=int, help="threads to compute with (default: OpenVINO's choice)")
    options = parser.parse_args()
    try:
        _serve(options)
    except NoriaError as error:
        sys.exit(f"error: {error}")


def _serve(options: argparse.Namespace) -> None:
    folder: Path = options.model
    card = read_card(folder)
    with ThreadPoolExecutor(1) as aside:  # each takes about a second of a core
        compiling = aside.submit(_warm_encoder, folder, card, options.threads)
        tokens = Tokens(Tokenizer.from_file(str(folder / TOKENIZER)), card)
        encoder = compiling.result()
    app = EmbeddingApp(options.name, card, tokens, Batcher(encoder, card.dimensions))
    listen: dict[str, Any] = {"uds": options.uds} if options.uds else {"host": "127.0.0.1", "port": options.port}
    uvicorn.run(app, **listen, log_level="warning", access_log=False, timeout_keep_alive=75, lifespan="on")


def _warm_encoder(folder: Path, card: EmbeddingCard, num_threads: int | None) -> Encoder:
    encoder = Encoder(folder, card, num_threads=num_threads)
    encoder.warm()
    return encoder


if __name__ == "__main__":
    main()
