"""`python -m noria.engines.scripted`: serves the scripted model; see the package's docstring."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import uvicorn

from noria.errors import NoriaError

from ._app import ScriptedApp
from ._script import load_script


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m noria.engines.scripted")
    parser.add_argument("--name", default="scripted")
    parser.add_argument("--script", type=Path)
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--uds")
    place.add_argument("--port", type=int)
    options = parser.parse_args()
    try:
        app = ScriptedApp(options.name, load_script(options.script))
    except NoriaError as error:
        print(error, file=sys.stderr)
        return 2
    config = uvicorn.Config(
        app,
        uds=options.uds,
        host="127.0.0.1",
        port=options.port or 0,
        log_level="warning",
        lifespan="off",
        access_log=False,
        timeout_keep_alive=75,
    )
    uvicorn.Server(config).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
