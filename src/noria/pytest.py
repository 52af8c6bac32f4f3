"""A pytest plugin: evals as tests, against a Noria server that runs already.

    def test_capitals(assert_eval):
        assert_eval(model="support", data="capitals.jsonl", testing_criteria=[...], min_pass_rate=0.9)

A client of the HTTP API and nothing else. Nothing but pytest is imported until a test asks; the server is the one at
`--noria-url` or NORIA_URL (with NORIA_API_KEY), else the one that runs on the home.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import httpx

__all__ = ["AssertEval", "EvalOutcome", "assert_eval"]

_ENDED = {"completed", "failed", "canceled"}
_SIGNIFICANT = 0.05
_SHOWN_ROWS = 5
_POLL_S = 0.2
Rows = str | Path | Mapping[str, Any] | Iterable[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class EvalOutcome:
    """The run, and the comparison with the other model where there was one, as the API gives them."""

    run: Mapping[str, Any]
    comparison: Mapping[str, Any] | None = None

    @property
    def pass_rate(self) -> float:
        counts = self.run["result_counts"]
        return counts["passed"] / counts["total"] if counts["total"] else 0.0


class AssertEval:
    """Asks a server. Each test has an eval of its own there, so that its runs can be looked at side by side."""

    def __init__(self, client: httpx.Client, name: str) -> None:
        self._client, self._name = client, name

    def __call__(
        self,
        *,
        model: str,
        data: Rows,
        testing_criteria: Sequence[Mapping[str, Any]],
        min_pass_rate: float | None = None,
        better_than: str | None = None,
        input: str = "{{item.input}}",
    ) -> EvalOutcome:
        """Fails where fewer rows pass than `min_pass_rate` (default 1, or none where `better_than` is given), or where `model` is
        not better than the model `better_than` on the same rows at p < .05.

        `data`: items, a path of JSON lines, or a data source of the API such as
        `{"type": "noria_dataset", "dataset": "support"}`. `input` is the user's message for each row; a dataset's rows bring
        their own messages.
        """
        eval_id = self._eval(testing_criteria)
        source = _source(data)
        data_source: dict[str, Any] = {"type": "completions", "source": source}
        if source["type"] != "noria_dataset":
            data_source["input_messages"] = {"type": "template", "template": [{"role": "user", "content": input}]}
        run = self._run(eval_id, data_source, model)
        least = min_pass_rate if min_pass_rate is not None else (0.0 if better_than else 1.0)
        outcome = EvalOutcome(run)
        if outcome.pass_rate < least:
            pytest.fail(self._shortfall(outcome, least), pytrace=False)
        if better_than is None:
            return outcome
        base = self._run(eval_id, data_source, better_than)
        compared = self._post("/v1/noria/evals/compare", {"run_a": base["id"], "run_b": run["id"], "limit": 0})
        if not (compared["wins"] > compared["losses"] and compared["p_value"] < _SIGNIFICANT):
            pytest.fail(
                f"{model} is not better than {better_than}: {compared['wins']} wins, {compared['losses']} losses, "
                f"{compared['ties']} ties, p = {compared['p_value']:.3g}.\n"
                f"See: noria eval compare {base['id']} {run['id']} --rows loss",
                pytrace=False,
            )
        return EvalOutcome(run, compared)

    def _eval(self, criteria: Sequence[Mapping[str, Any]]) -> str:
        """The test's eval with these criteria; made where there is none."""
        wanted = [dict(each) for each in criteria]
        page = self._get("/v1/evals?limit=1000&order=desc")
        for row in page["data"]:
            known = [{key: value for key, value in each.items() if key != "id"} for each in row["testing_criteria"]]
            if row["name"] == self._name and known == wanted:
                return row["id"]
        config = {"type": "custom", "item_schema": {"type": "object"}, "include_sample_schema": True}
        body = {"name": self._name, "data_source_config": config, "testing_criteria": wanted, "metadata": {"made_by": "pytest"}}
        return self._post("/v1/evals", body)["id"]

    def _run(self, eval_id: str, data_source: Mapping[str, Any], model: str) -> dict[str, Any]:
        run = self._post(f"/v1/evals/{eval_id}/runs", {"data_source": {**data_source, "model": model}})
        while run["status"] not in _ENDED:
            time.sleep(_POLL_S)
            run = self._get(f"/v1/evals/{eval_id}/runs/{run['id']}")
        if run["status"] != "completed":
            pytest.fail(f"The run {run['id']} {run['status']}: {(run['error'] or {}).get('message', '')}", pytrace=False)
        return run

    def _shortfall(self, outcome: EvalOutcome, least: float) -> str:
        run, counts = outcome.run, outcome.run["result_counts"]
        rate = run["noria"]["statistics"]["pass_rate"]
        lines = [
            f"{counts['passed']} of {counts['total']} rows passed ({outcome.pass_rate:.1%}; 95 % interval {rate['low']:.1%} to "
            f"{rate['high']:.1%}); at least {least:.1%} were wanted.",
            *self._failing(run),
            f"See: noria eval items {run['id']} --status fail",
        ]
        return "\n".join(lines)

    def _failing(self, run: Mapping[str, Any]) -> Iterator[str]:
        path = f"/v1/evals/{run['eval_id']}/runs/{run['id']}/output_items?limit={_SHOWN_ROWS}&status="
        for item in [*self._get(path + "fail")["data"], *self._get(path + "error")["data"]][:_SHOWN_ROWS]:
            sample = item["sample"] or {}
            said = (sample.get("error") or {}).get("message") or "".join(str(each["content"]) for each in sample["output"])
            grades = ", ".join(f"{each['name']} {each['score']:.2g}" for each in item["results"])
            yield f"  row {item['datasource_item_id']} ({grades or 'error'}): {json.dumps(said, ensure_ascii=False)[:160]}"

    def _get(self, path: str) -> Any:
        return _checked(self._client.get(path))

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        return _checked(self._client.post(path, json=body))


def _checked(reply: httpx.Response) -> Any:
    if reply.is_error:
        try:
            said = reply.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            said = reply.text[:500]
        pytest.fail(f"Noria answered {reply.status_code}: {said}", pytrace=False)
    return reply.json()


def _source(data: Rows) -> dict[str, Any]:
    if isinstance(data, Mapping):
        return {str(key): value for key, value in data.items()}
    if isinstance(data, (str, Path)):
        lines = Path(data).read_text(encoding="utf-8-sig").split("\n")
        items: list[Any] = [json.loads(line) for line in lines if line.strip()]
    else:
        items = list(data)
    rows = [dict(item) if isinstance(item.get("item"), Mapping) else {"item": dict(item)} for item in items]
    return {"type": "file_content", "content": rows}


def _client(url: str | None) -> httpx.Client:
    import httpx

    from noria.settings import load

    key = os.environ.get("NORIA_API_KEY")
    url = url or os.environ.get("NORIA_URL")
    if url is None:
        path = load().settings.home / "run" / "server.json"
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            pytest.fail(f"No Noria server runs on {path.parents[1]}. Start one (noria up), or set NORIA_URL.", pytrace=False)
        url, key = facts["url"], facts["token"]
    headers = {"authorization": f"Bearer {key}"} if key else {}
    local = httpx.URL(str(url)).host in {"127.0.0.1", "::1", "localhost"}
    return httpx.Client(base_url=str(url), headers=headers, timeout=600, trust_env=not local)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("noria").addoption("--noria-url", default=None, help="The Noria server that assert_eval asks.")


@pytest.fixture
def assert_eval(request: pytest.FixtureRequest) -> Iterator[AssertEval]:
    """Runs an eval and fails the test where the model falls short; see `AssertEval.__call__`."""
    with _client(request.config.getoption("--noria-url")) as client:
        yield AssertEval(client, f"pytest {request.node.nodeid}"[:256])
