"""The engine's process: `python -m noria.engines.openvino --model DIR --name NAME (--uds PATH | --port N)`."""

from __future__ import annotations

import argparse
import functools
import logging
import sys
from pathlib import Path
from typing import Any

import uvicorn

from noria.engines.openvino._app import WorkerApp
from noria.engines.openvino._serving import ServeOptions, load

_SWITCH_S = 0.0005


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m noria.engines.openvino", description="Serve one prepared model.")
    parser.add_argument("--model", type=Path, required=True, help="the folder of a prepared model")
    parser.add_argument("--name", required=True, help="the model's name in requests")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--uds", help="listen on this Unix socket")
    where.add_argument("--port", type=int, help="listen on this port of 127.0.0.1")
    parser.add_argument("--cache-mb", type=int, default=512, help="memory for keys and values, in MiB (default: 512)")
    parser.add_argument("--max-batch-tokens", type=int, default=256, help="tokens computed in one step (default: 256)")
    parser.add_argument("--max-running", type=int, default=64, help="answers generated at the same time (default: 64)")
    parser.add_argument("--threads", type=int, help="threads to compute with (default: OpenVINO's choice)")
    parser.add_argument(
        "--one-precision", action="store_true", help="same arithmetic for every step: slower prompts, less memory"
    )
    parser.add_argument("--max-adapters", type=int, default=8, help="LoRA adapters kept in memory (default: 8)")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    options = ServeOptions(
        folder=given.model,
        name=given.name,
        cache_mb=given.cache_mb,
        max_batch_tokens=given.max_batch_tokens,
        max_running=given.max_running,
        threads=given.threads,
        one_precision=given.one_precision,
        max_adapters=given.max_adapters,
    )
    listen: dict[str, Any] = {"uds": given.uds} if given.uds else {"host": "127.0.0.1", "port": given.port}
    # The engine's thread computes in Python too, between steps. By default it keeps the interpreter for 5 ms each time it gets
    # it, which the event loop would wait for at every socket call (https://bugs.python.org/issue7946).
    sys.setswitchinterval(_SWITCH_S)
    app = WorkerApp(given.name, functools.partial(load, options))
    uvicorn.run(app, **listen, loop="uvloop", http="httptools", log_level="warning", access_log=False, timeout_keep_alive=75)


if __name__ == "__main__":
    main()
