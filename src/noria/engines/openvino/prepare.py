"""The command `python -m noria.engines.openvino.prepare MODEL.gguf FOLDER` (or a checkpoint's folder in place of the file)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

from noria.engines.openvino._compress import WeightFormat
from noria.engines.openvino._prepare import DEFAULT_FORMAT, prepare
from noria.errors import NoriaError

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m noria.engines.openvino.prepare", description="Make a model folder.")
    parser.add_argument("source", type=Path, help="a GGUF file or transformers folder of the llama architecture")
    parser.add_argument("out", type=Path, help="the model folder to write")
    parser.add_argument("--format", choices=get_args(WeightFormat), default=DEFAULT_FORMAT, help="how weights are stored")
    parser.add_argument("--randomise", type=int, metavar="SEED", help="write noise instead of weights (quality guard)")
    options = parser.parse_args(arguments)
    try:
        manifest = prepare(options.source, options.out, weight_format=options.format, randomise=options.randomise)
    except NoriaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {manifest.name}, {manifest.num_parameters / 1e6:.0f}M parameters, {manifest.weight_format}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
