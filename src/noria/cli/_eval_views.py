"""How evals, runs, rows and comparisons are shown."""

from __future__ import annotations

from typing import Any

from ._show import Column, clock, count, facts, note, table

__all__ = ["agreement_card", "comparison_card", "eval_card", "eval_table", "interval", "item_table", "run_card"]

_SHOWN = 200


def interval(found: dict[str, Any] | None, *, percent: bool = True) -> str:
    """`71.4 % (68.0 to 74.6)`; empty where there is none."""
    if not found or found["estimate"] is None:
        return ""
    if percent:
        return f"{found['estimate']:.1%} ({found['low'] * 100:.1f} to {found['high'] * 100:.1f})"
    return f"{found['estimate']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def eval_table(rows: list[dict[str, Any]]) -> None:
    columns = (Column("NAME", shrink=True), Column("GRADERS", shrink=True), Column("CREATED"), Column("ID", style="dim"))
    shown = (
        (
            row["name"] or "(no name)",
            ", ".join(each["name"] for each in row["testing_criteria"]),
            clock(row["created_at"]),
            row["id"],
        )
        for row in rows
    )
    table(columns, shown, empty="There are no evals. Make one: noria eval create NAME --exact")


def eval_card(row: dict[str, Any], runs: list[dict[str, Any]]) -> None:
    graders = "\n".join(f"{each['name']} ({each['type']})" for each in row["testing_criteria"])
    facts((("name", row["name"]), ("id", row["id"]), ("created", clock(row["created_at"])), ("graders", graders)))
    print()
    columns = (
        Column("RUN", shrink=True), Column("MODEL", shrink=True), Column("STATUS"), Column("ROWS", "right"), Column("PASSED"),
        Column("ID", style="dim"),
    )  # fmt: skip
    shown = (
        (
            run["name"],
            run["model"],
            run["status"],
            count(run["result_counts"]["total"]),
            interval(run["noria"]["statistics"].get("pass_rate")),
            run["id"],
        )
        for run in runs
    )
    table(columns, shown, empty="It has not been run yet. Run it: noria eval run EVAL --model MODEL --data FILE")


def run_card(run: dict[str, Any]) -> None:
    counts, statistics = run["result_counts"], run["noria"]["statistics"]
    rows = f"{counts['total']}: {counts['passed']} passed, {counts['failed']} failed, {counts['errored']} errors"
    tokens = ", ".join(f"{each['model_name']} {count(each['total_tokens'])} tokens" for each in run["per_model_usage"])
    uncalibrated = ", ".join(statistics.get("uncalibrated") or ())
    facts(
        (
            ("run", run["name"]),
            ("id", run["id"]),
            ("model", run["model"]),
            ("status", run["status"]),
            ("rows", rows),
            ("passed", interval(statistics.get("pass_rate"))),
            ("used", tokens),
            ("uncalibrated", f"{uncalibrated}: measure with `noria eval calibrate`" if uncalibrated else None),
            ("error", (run["error"] or {}).get("message")),
        )
    )
    criteria = statistics.get("criteria") or {}
    if not criteria:
        return
    print()
    columns = (Column("GRADER", shrink=True), Column("PASSED"), Column("SCORE"), Column("ERRORS", "right"))
    shown = (
        (name, interval(each["pass_rate"]), interval(each["score"], percent=False), count(each["errored"] or None))
        for name, each in criteria.items()
    )
    table(columns, shown, empty="")
    for name, each in criteria.items():
        if "classification" in each:
            _classification(name, each["classification"])


def _classification(name: str, report: dict[str, Any]) -> None:
    print(f"\n{name}: accuracy {interval(report['accuracy'])}, macro F1 {report['macro_f1']:.3f}")
    columns = (
        Column("LABEL", shrink=True), Column("ROWS", "right"), Column("PRECISION"), Column("RECALL"), Column("F1"),
        Column("FALSE ALARMS"),
    )  # fmt: skip
    shown = (
        (
            label,
            count(each["support"]),
            interval(each["precision"]),
            interval(each["recall"]),
            interval(each["f1"], percent=False),
            interval(each["false_positive_rate"]),
        )
        for label, each in report["per_label"].items()
    )
    table(columns, shown, empty="")


def item_table(rows: list[dict[str, Any]]) -> None:
    columns = (
        Column("ROW", "right"), Column("STATUS"), Column("GRADES", shrink=True), Column("ASKED", shrink=True),
        Column("ANSWERED", shrink=True), Column("TRACE", style="dim"),
    )  # fmt: skip
    shown = (
        (
            str(row["datasource_item_id"]),
            row["status"],
            ", ".join(f"{each['name']} {each['score']:.2g}" for each in row["results"]),
            _last(row["sample"], "input") or str(row["datasource_item"])[:_SHOWN],
            _last(row["sample"], "output") or ((row["sample"] or {}).get("error") or {}).get("message", ""),
            row["noria"]["trace_id"] or "",
        )
        for row in rows
    )
    table(columns, shown, empty="There are no such rows.")


def _last(sample: dict[str, Any] | None, side: str) -> str:
    messages = (sample or {}).get(side) or []
    content: Any = messages[-1].get("content") if messages else ""
    return content[:_SHOWN] if isinstance(content, str) else str(content or "")[:_SHOWN]


def comparison_card(found: dict[str, Any]) -> None:
    scores = found["scores"]
    facts(
        (
            ("rows in both", count(found["num_pairs"])),
            ("only in one", _alone(found)),
            ("wins, losses, ties", f"{found['wins']}, {found['losses']}, {found['ties']}"),
            ("pass rates", f"{found['pass_rate_a']:.1%} → {found['pass_rate_b']:.1%}" if found["num_pairs"] else None),
            ("difference", interval(found["difference"])),
            ("p (McNemar, exact)", f"{found['p_value']:.3g}"),
            ("score difference", interval(scores["difference"], percent=False) if scores else None),
            ("p (permutation)", f"{scores['p_value']:.3g}" if scores else None),
            ("with errors", count(found["errored"] or None)),
        )
    )
    if not found["can_gate"]:
        note("A judge without measured agreement had a say: this decides nothing. See: noria eval calibrate --help")
    if not found["data"]:
        return
    print()
    columns = (Column("ROW", shrink=True), Column("OUTCOME"), Column("A"), Column("B"), Column("ITEM B", style="dim"))
    shown = ((row["row_id"], row["outcome"], _side(row, "a"), _side(row, "b"), row["item_b"]) for row in found["data"])
    table(columns, shown, empty="")


def _alone(found: dict[str, Any]) -> str | None:
    if not found["only_a"] and not found["only_b"]:
        return None
    return f"{found['only_a']} in the first, {found['only_b']} in the second: left out"


def _side(row: dict[str, Any], side: str) -> str:
    score = row[f"score_{side}"]
    return ("pass" if row[f"passed_{side}"] else "fail") + ("" if score is None else f" {score:.2g}")


def agreement_card(found: dict[str, Any]) -> None:
    facts(
        (
            ("rows", count(found["num_rows"])),
            ("agreement", interval(found["agreement"])),
            ("Cohen's kappa", interval(found["kappa"], percent=False)),
            ("calibrated", "yes: it may gate" if found["calibrated"] else "no: it needs 30 rows and a kappa of 0.4"),
            ("rows not compared", count(found["num_errors"] or None)),
            ("id", found["id"]),
        )
    )
    for error in found["errors"][:3]:
        note(f"{error['row_id'][:12]}: {error['message']}")
