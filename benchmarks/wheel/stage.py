"""What the wheel's benchmarks share: a server of their own, traffic through it, a turn followed to its end, intervals.

Everything goes through the public API, as a user's program would.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import httpx

__all__ = ["MODEL", "Asked", "Stage", "bootstrap", "mcnemar", "stage", "told", "wilson"]

MODEL = "smollm2-135m-instruct"
CONCURRENCY = 32
Asked = tuple[str, str]
"""The answer's text and the id by which feedback names it."""


class Stage:
    """A running server. `client` has the owner's key."""

    def __init__(self, url: str, token: str, home: Path) -> None:
        self.url, self.home = url, home
        self._headers = {"authorization": f"Bearer {token}"}
        self.client = httpx.Client(base_url=url, headers=self._headers, timeout=600, trust_env=False)

    def post(self, path: str, body: Any = None) -> Any:
        return self.client.post(path, json=body).raise_for_status().json()

    def get(self, path: str, **params: Any) -> Any:
        return self.client.get(path, params=params).raise_for_status().json()

    # --- traffic ------------------------------------------------------------------------------------------------------

    def ask_all(self, model: str, conversations: Sequence[list[dict[str, str]]], **options: Any) -> list[Asked]:
        """Chat completions, 32 at a time, in order."""
        return asyncio.run(self._ask_all(model, conversations, options))

    async def _ask_all(self, model: str, conversations: Sequence[list[dict[str, str]]], options: dict[str, Any]) -> list[Asked]:
        room = asyncio.Semaphore(CONCURRENCY)
        timeout = aiohttp.ClientTimeout(total=600)
        async with aiohttp.ClientSession(self.url, headers=self._headers, timeout=timeout) as session:

            async def ask(messages: list[dict[str, str]]) -> Asked:
                body = {"model": model, "messages": messages, "temperature": 0, **options}
                async with room, session.post("/v1/chat/completions", json=body) as reply:
                    answer = await reply.json()
                    if reply.status != 200:
                        raise SystemExit(f"{reply.status}: {answer}")
                    return answer["choices"][0]["message"]["content"] or "", answer["id"]

            return await asyncio.gather(*(ask(messages) for messages in conversations))

    def give_feedback(self, rows: Sequence[dict[str, Any]]) -> int:
        """Feedback as a file, as an export of somebody's labelling tool would be; how many were added."""
        text = "".join(json.dumps(row) + "\n" for row in rows)
        reply = self.client.post("/v1/noria/feedback/import", files={"file": ("feedback.jsonl", text)}).raise_for_status().json()
        if reply["job"] is None:
            added = reply["added"]
        else:
            done = self.wait_job(reply["job"])
            added = int(done["detail"].get("added", done["done"]))
        if added != len(rows):
            raise SystemExit(f"{added} of {len(rows)} records of feedback were added: {reply}")
        return added

    def wait_job(self, job_id: str) -> dict[str, Any]:
        while (job := self.get(f"/v1/noria/jobs/{job_id}"))["status"] in {"queued", "running"}:
            time.sleep(0.5)
        if job["status"] != "completed":
            raise SystemExit(f"The job {job_id} {job['status']}: {job['error']}")
        return job

    # --- the wheel ----------------------------------------------------------------------------------------------------

    def turn(self, name: str, *, until: Sequence[str] = ("end",)) -> dict[str, Any]:
        """A turn, followed until it stands at one of these steps."""
        turn = self.post(f"/v1/noria/wheels/{name}/turns")
        step = ""
        while turn["step"] not in until and turn["step"] != "end":
            if turn["step"] != step:
                step = turn["step"]
                print(f"  {time.strftime('%H:%M:%S')} {step}", flush=True)
            time.sleep(1)
            turn = self.get(f"/v1/noria/wheels/{name}/turns/{turn['id']}")
        print(f"  {time.strftime('%H:%M:%S')} {turn['step']} {turn['outcome'] or ''} {turn['reason'] or ''}", flush=True)
        return turn

    def add_rows(self, dataset: str, rows: Sequence[dict[str, Any]], shares: tuple[float, float] = (0.0, 0.0)) -> str:
        """A dataset with these rows."""
        made = self.post("/v1/noria/datasets", {"name": dataset, "validation_share": shares[0], "test_share": shares[1]})
        for start in range(0, len(rows), 200):
            self.post(f"/v1/noria/datasets/{made['id']}/rows", {"rows": list(rows[start : start + 200])})
        return made["id"]


@contextlib.contextmanager
def stage(home: Path | None = None, **settings: str) -> Iterator[Stage]:
    """A server on a home of its own (a temporary one by default), with the usual models' cache."""
    with contextlib.ExitStack() as stack:
        folder = home or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="noria-wheel-")))
        folder.mkdir(parents=True, exist_ok=True)
        announced = folder / "run" / "server.json"
        announced.unlink(missing_ok=True)
        log = stack.enter_context((folder / "server.log").open("ab"))
        environment = {key: value for key, value in os.environ.items() if not key.startswith("NORIA_")} | settings
        command = [sys.executable, "-m", "noria.server", "--home", str(folder), "--port", "0"]
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            while not announced.exists():
                if server.poll() is not None:
                    raise SystemExit(f"The server did not start: see {folder / 'server.log'}")
                time.sleep(0.1)
            facts = json.loads(announced.read_text())
            yield Stage(facts["url"], facts["token"], folder)
        finally:
            server.terminate()
            server.wait(60)


def wilson(hits: int, total: int) -> dict[str, float | int]:
    """A share with its 95 % interval (Wilson 1927)."""
    if total == 0:
        return {"n": 0}
    z, share = 1.959964, hits / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return {"value": round(share, 4), "low": round(middle - half, 4), "high": round(middle + half, 4), "n": total}


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact test, two-sided: the chance of discordant rows so uneven if neither were better."""
    n, most = only_first + only_second, min(only_first, only_second)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(most + 1)) / 2**n) if n else 1.0


def bootstrap(values: Sequence[float], clusters: Sequence[Any], draws: int = 2000) -> dict[str, float | int]:
    """A mean with its 95 % interval, whole clusters (articles) drawn together."""
    drawn = random.Random(5)
    groups: dict[Any, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        groups.setdefault(cluster, []).append(value)
    sums = [(sum(group), len(group)) for group in groups.values()]
    means = sorted(
        total / count
        for total, count in (tuple(map(sum, zip(*drawn.choices(sums, k=len(sums)), strict=True))) for _ in range(draws))
    )
    mean = sum(values) / len(values)
    low, high = means[int(0.025 * draws)], means[int(0.975 * draws)]
    return {"value": round(mean, 4), "low": round(low, 4), "high": round(high, 4), "n": len(values), "clusters": len(sums)}


def told(turn: dict[str, Any]) -> dict[str, Any]:
    """What a turn came to, for a result file: few figures, no lists of everything."""
    data = turn["data"]
    train, split, compared = data.get("train") or {}, data.get("split") or {}, (data.get("gate") or {}).get("comparisons") or []
    found: dict[str, Any] = {
        "outcome": turn["outcome"],
        "minutes": round((turn["ended_at"] - turn["created_at"]) / 60, 2) if turn["ended_at"] else None,
        "training_minutes": round((train["ended_at"] - train["begun_at"]) / 60, 2) if "ended_at" in train else None,
        "train_rows": split.get("train_rows"),
        "training": {**(train.get("facts") or {}), "forgetting": train.get("forgetting")},
        "reason": turn["reason"],
    }
    if compared:
        kept = ("grader", "rows", "base", "candidate", "difference", "low", "high", "wins", "losses", "p", "test")
        found["gate"] = {name: compared[0][name] for name in kept}
    return found
