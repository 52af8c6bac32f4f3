"""Makes pulled files ready for an engine, in a process of its own: its memory goes back to the system.

Run as `python -m noria.engines._prepare PREPARATION SOURCE_DIR OUT_DIR`. A preparation's version goes up when what it
writes changes; models prepared by an older one are prepared anew.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from noria.engines._download import disk_full
from noria.engines._environment import environment_of_our_own
from noria.engines._recipes import Preparation
from noria.errors import NoriaError

__all__ = ["PREPARATION_VERSIONS", "prepare"]

PREPARATION_VERSIONS: Mapping[Preparation, int] = MappingProxyType({"none": 1, "openvino-gguf": 2, "e5-q4": 1})
TIMEOUT_S = 1800.0


def prepare(preparation: Preparation, sources: Path, out_dir: Path) -> None:
    """Runs a preparation in a subprocess; `out_dir` must exist. Raises NoriaError with the last lines it printed."""
    command = [sys.executable, "-m", "noria.engines._prepare", preparation, str(sources), str(out_dir)]
    try:
        done = subprocess.run(
            command,
            env=environment_of_our_own(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NoriaError(f"Preparing the model took over {TIMEOUT_S:.0f} s.", code="prepare_failed") from error
    if done.returncode == 0:
        return
    said = "\n".join(done.stderr.strip().splitlines()[-12:])
    if "No space left on device" in said:
        raise disk_full(out_dir)
    killed = " It was killed: is there enough memory?" if done.returncode < 0 else ""
    raise NoriaError(f"Preparing the model failed ({done.returncode}).{killed}\n{said}", code="prepare_failed")


def _openvino_gguf(sources: Path, out_dir: Path) -> None:
    from noria.engines.openvino.prepare import prepare as prepare_gguf

    (gguf,) = sources.glob("*.gguf")
    prepare_gguf(gguf, out_dir)


def _e5(sources: Path, out_dir: Path) -> None:
    from noria.engines.embedding import prepare_e5

    prepare_e5(sources / "e5-small-q4.bin", sources / "tokenizer.json", out_dir)


_RUN: dict[str, Callable[[Path, Path], None]] = {"openvino-gguf": _openvino_gguf, "e5-q4": _e5}


def _main() -> None:
    preparation, sources, out_dir = sys.argv[1:]
    try:
        _RUN[preparation](Path(sources), Path(out_dir))
    except NoriaError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    from noria.engines._process import die_with_parent

    die_with_parent()
    _main()
