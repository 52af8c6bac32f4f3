"""`python -m noria.server`: what `noria up` and `noria serve` start. Settings come as `noria.toml`, `NORIA_*` or options."""

from __future__ import annotations

import argparse
import gc
import sys

from noria.errors import NoriaError
from noria.settings import load


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m noria.server", description=__doc__)
    parser.add_argument("--home")
    parser.add_argument("--host")
    parser.add_argument("--port")
    options = vars(parser.parse_args())
    gc.disable()  # a start makes much and drops little: a sixth of its time went into looking for garbage; `serve` enables it
    try:
        loaded = load(options)
        from ._serve import run

        run(loaded)
    except NoriaError as error:
        print(f"noria: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
