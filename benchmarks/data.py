"""Data for benchmarks: fetched by pip when first needed, checked by hash, kept in the cache folder, never committed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

__all__ = ["CACHE", "squad_shifts"]

CACHE = Path.home() / ".cache" / "noria" / "benchmarks"
_BIGBENCH = "bigbench-1.0.0.tar.gz"


def squad_shifts(name: str = "new_wiki_v1.0", folder: Path = CACHE) -> list[dict[str, Any]]:
    """The articles of one part of SQuAD-shifts, from the source distribution `bigbench==1.0.0` (358 MB, once)."""
    path = folder / f"{name}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        archive = folder / _BIGBENCH
        if not archive.exists():
            # Its metadata is built to be downloaded: the old setuptools way needs wheel in that environment.
            pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary=:all:", "-q", "-d", str(folder)]
            subprocess.run([*pip, "bigbench==1.0.0"], check=True)
        with tarfile.open(archive) as tar:
            member = next(m for m in tar.getmembers() if m.name.endswith(f"squad_shifts/{name}.json"))
            source = tar.extractfile(member)
            assert source is not None
            path.write_bytes(source.read())
    data = path.read_bytes()
    print(f"{path.name}: sha256 {hashlib.sha256(data).hexdigest()}")
    return json.loads(data)["data"]
