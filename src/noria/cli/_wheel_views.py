"""How wheels and turns look on a terminal, and following a turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from ._api import Api
from ._show import Column, ago, clock, count, duration, facts, note, out, table
from ._watching import Work, follow

__all__ = ["follow_turn", "print_outcome", "print_turns", "print_wheel"]

_SAYS = {
    "collect": "Collecting feedback",
    "curate": "Curating rows",
    "split": "Splitting rows",
    "train": "Training",
    "evaluate": "Evaluating base and candidate",
    "gate": "Comparing",
    "approve": "Waiting for approval",
    "canary": "Canary",
    "watch": "Watching",
}


def follow_turn(api: Api, name: str, turn: dict[str, Any]) -> dict[str, Any]:
    """The turn when it has ended, is promoted or waits for a person. Ctrl-C leaves; the turn goes on."""
    path = f"/v1/noria/wheels/{quote(name, safe='')}/turns/{turn['id']}"
    told: set[str] = set()

    def bar(row: dict[str, Any]) -> dict[str, Any]:
        _tell(row, told)
        done = row["progress"] or {}
        says = _SAYS.get(row["step"], row["step"])
        return {"description": says, "completed": done.get("done") or 0, "total": done.get("total") or None}

    work = Work(path, "", f"noria wheel turn {name}")
    return follow(api, work, turn, going=lambda row: row["outcome"] is None and row["step"] != "approve", bar=bar)


def _tell(turn: dict[str, Any], told: set[str]) -> None:
    """One line for each step that has ended."""
    for ended in turn["data"].get("steps", []):
        step = ended["step"]
        if step in told:
            continue
        told.add(step)
        note(f"{step:9} {_result(turn['data'], step)}")


def _result(data: dict[str, Any], step: str) -> str:
    match step:
        case "collect":
            return f"{data[step]['feedback']} records of feedback, {data[step]['new_rows']} new rows"
        case "curate":
            removed = {kind: number for kind, number in data[step]["removed"].items() if number}
            return ", ".join(f"{number} {kind} removed" for kind, number in removed.items()) or "nothing removed"
        case "split":
            found = data[step]
            return f"{found['train_rows']} to train, {found['validation_rows']} to validate, {found['test_rows']} held out"
        case "train":
            return f"{data[step].get('model') or data[step].get('error')} ({data[step]['job_id']})"
        case "gate":
            return data[step]["why"]
        case "canary":
            return data.get("reason") or ""
        case _:
            return ""


def print_outcome(name: str, turn: dict[str, Any]) -> None:
    if turn["outcome"] is None:
        if turn["step"] == "approve":
            print(f"Turn {turn['number']} has passed the gate and waits: noria wheel approve {name}, or reject.")
        else:
            print(f"Turn {turn['number']} is at the step {turn['step']}. Follow it: noria wheel turn {name}")
        return
    print(f"Turn {turn['number']}: {turn['outcome'].replace('_', ' ')}. {turn['reason'] or ''}".rstrip())
    print(f"The report: noria wheel report {name} --turn {turn['number']}")


def print_wheel(row: dict[str, Any]) -> None:
    flow, latest = row["counts"], row["latest_turn"]
    shares = ", ".join(f"{model} {share:.0%}" for model, share in flow["shares"].items())
    facts(
        (
            ("name", row["name"]),
            ("id", row["id"]),
            ("route", f"{row['route']} → {shares}" if shares else row["route"]),
            ("dataset", row["dataset_id"]),
            ("triggers", "paused" if row["paused"] else None),
            ("created", clock(row["created_at"])),
        )
    )
    print()
    arrows = (
        ("traffic", count(flow["traffic"])),
        ("feedback", f"{flow['feedback']} ({flow['new_feedback']} new)"),
        ("rows", count(flow["rows"])),
        ("trained", count(flow["trained"])),
        ("gate", f"{flow['passed']} of {flow['gated']} passed"),
        ("canary", f"{flow['canary_share']:.0%}"),
        ("promoted", f"{flow['promoted']}, rolled back {flow['rolled_back']}"),
    )
    out().print("  →  ".join(f"{arrow} {number}" for arrow, number in arrows), highlight=False)
    if latest is not None:
        print()
        for each in latest["steps"]:
            sign = {"done": "✓", "current": "▸", "stopped": "✗", "ahead": "·", "not needed": "–"}[each["state"]]
            print(f"  {sign} {each['step']}")
        print()
        print_outcome(row["name"], latest)


def print_turns(name: str, rows: Sequence[dict[str, Any]]) -> None:
    columns = (
        Column("TURN", "right"), Column("OUTCOME"), Column("BEGAN"), Column("TOOK"), Column("CANDIDATE", shrink=True),
        Column("REASON", shrink=True),
    )  # fmt: skip
    shown = (
        (
            str(row["number"]),
            (row["outcome"] or f"at {row['step']}").replace("_", " "),
            ago(row["created_at"]),
            duration(max(1, row["ended_at"] - row["created_at"])) if row["ended_at"] else "",
            row["data"].get("candidate") or "",
            row["reason"] or "",
        )
        for row in rows
    )
    table(columns, shown, empty=f"The wheel has not turned yet: noria wheel turn {name}")
