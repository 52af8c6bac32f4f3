"""`noria eval` against a real server: from an eval to a comparison, in the words that people see."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import NoriaServer

from .conftest import Run

ROWS = [{"input": f"say {number}", "expected": f"say {number if number % 4 else 'no'}"} for number in range(12)]


def test_from_an_eval_to_a_comparison(run: Run, server: NoriaServer, tmp_path: Path) -> None:
    def noria(*arguments: object) -> str:
        result = run("eval", *arguments, "--home", server.home)
        assert result.exit_code == 0, result.output
        return result.stdout

    data, grader = tmp_path / "rows.jsonl", tmp_path / "long.py"
    data.write_text("\n".join(map(json.dumps, ROWS)))
    grader.write_text("def grade(sample, item):\n    return float(len(sample['output_text']) > 3)\n")
    made = noria("create", "cli-eval", "--exact", "--similar", "rouge_l:0.9", "--python", grader)
    assert made.startswith("Created cli-eval (eval_")
    assert "cli-eval" in noria("list")
    shown = noria("run", "cli-eval", "--model", "scripted", "--data", data)
    assert "12: 9 passed, 3 failed, 0 errors" in shown
    assert "75.0% (46.8 to 91.1)" in shown
    as_json = json.loads(noria("run", "cli-eval", "--model", "scripted", "--data", data, "--input", "x", "--json"))
    assert as_json["result_counts"]["passed"] == 0
    first = json.loads(noria("show", "cli-eval", "--json"))["runs"][1]["id"]
    compared = noria("compare", first, as_json["id"], "--rows", "loss", "--criterion", "exact")
    assert "0, 9, 3" in compared
    assert "0.00391" in compared
    assert "fail" in noria("items", first, "--status", "fail")
    assert "exact: accuracy" in noria("show", first)
    short = run("eval", "run", "cli-eval", "--model", "scripted", "--data", data, "--min-pass-rate", "0.9", "--home", server.home)
    assert short.exit_code == 1
    assert "Deleted" in noria("delete", "cli-eval", "--yes")
    gone = run("eval", "show", "cli-eval", "--home", server.home)
    assert (gone.exit_code, "No eval 'cli-eval'" in gone.stderr) == (1, True)


def test_judges_and_imports(run: Run, server: NoriaServer, tmp_path: Path) -> None:
    judge = tmp_path / "judge.toml"
    judge.write_text(
        'type = "score_model"\nname = "j"\nmodel = "scripted"\n[[input]]\nrole = "user"\ncontent = "{{sample.output_text}}"\n'
    )
    data = tmp_path / "labelled.jsonl"
    data.write_text(json.dumps({"item": {"label": "good"}, "sample": {"output_text": "x"}}))
    found = run("eval", "calibrate", judge, "--data", data, "--home", server.home)
    assert found.exit_code == 2  # the scripted model is no judge
    assert "None of 1 rows could be compared" in found.stderr
    export = tmp_path / "export.json"
    export.write_text(json.dumps({"evals": [{"object": "eval", "id": "eval_bad"}]}))
    found = run("eval", "import", export, "--home", server.home)
    assert found.exit_code == 1
    assert "Imported 0 evals" in found.stdout
    assert "eval_bad" in found.stderr
    wrong = run("eval", "run", "eval_x", "--home", server.home)
    assert wrong.exit_code == 1
    data.write_text("{")
    made = json.loads(run("eval", "create", "wrong", "--exact", "--json", "--home", server.home).stdout)
    broken = run("eval", "run", made["id"], "--data", data, "--home", server.home)
    assert (broken.exit_code, "Line 1" in broken.stderr) == (2, True)
    run("eval", "delete", made["id"], "--yes", "--home", server.home)
