"""A turn told: Markdown for people, plots as SVG. The same facts as JSON are the turn's own data.

Knows nothing about how the figures came about.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from noria.store import Wheel, WheelTurn

from ._plots import Bar, Line, bars, lines

__all__ = ["PLOTS", "markdown", "plot"]

PLOTS = ("loss", "gate", "canary")
Loss = Sequence[tuple[float, float | None, float | None]]
"""Step, training loss, validation loss."""


def markdown(wheel: Wheel, turn: WheelTurn, *, plots: Mapping[str, str] | None = None) -> str:
    """`plots` are addresses of the plots by name, linked where given."""
    data = turn.data
    head = f"# {wheel.name}: turn {turn.number}"
    parts = [head, _summary(turn), _rows(data), _training(data), _gate(data), _canary(turn), _times(turn)]
    for name, address in (plots or {}).items():
        parts.append(f"![{name}]({address})")
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(turn: WheelTurn) -> str:
    data = turn.data
    outcome = turn.outcome.replace("_", " ") if turn.outcome else f"under way, at the step {turn.step}"
    rows = [
        ("Outcome", f"**{outcome}**"),
        ("Reason", data.get("reason")),
        ("Route", f"`{turn.spec['route']}`"),
        ("Base of comparison", f"`{data['base']}`"),
        ("Candidate", f"`{data['candidate']}`" if data.get("candidate") else None),
        ("Dataset", f"`{data['dataset_id']}` version {data['split']['version']}" if data.get("split") else None),
        ("Begun by", data.get("begun_by")),
        ("Approved by", data.get("approved_by")),
    ]
    return _table(("", ""), [(name, str(value)) for name, value in rows if value])


def _rows(data: Mapping[str, Any]) -> str:
    if "collect" not in data:
        return ""
    found = data["collect"]
    text = f"## Rows\n\n{found['feedback']} records of feedback gave {found['new_rows']} new rows."
    if (curated := data.get("curate")) is not None:
        gone = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in curated["removed"].items() if count)
        text += f" Curation removed {gone}." if gone else " Curation removed none."
    if (split := data.get("split")) is not None:
        text += (
            f"\n\n{_table(('Train', 'Validation', 'Held out'), [tuple(str(split[f'{name}_rows']) for name in _SPLITS)])}\n\n"
            "A row's split follows from its content, so that none ever moves from the held-out rows to the training rows."
        )
    return text


_SPLITS = ("train", "validation", "test")


def _training(data: Mapping[str, Any]) -> str:
    train = data.get("train")
    if not train or "status" not in train:
        return ""
    minutes = (train["ended_at"] - train["begun_at"]) / 60
    text = f"## Training\n\nThe job `{train['job_id']}` {train['status']} after {minutes:.1f} minutes."
    if train.get("forgetting") is not None:
        forgot = train["forgetting"]
        text += f" On the general set it is {abs(forgot):.1%} {'worse' if forgot > 0 else 'better'} than before."
    facts = [(str(key), str(value)) for key, value in (train.get("facts") or {}).items() if not isinstance(value, dict | list)]
    return f"{text}\n\n{_table(('', ''), facts)}" if facts else text


def _gate(data: Mapping[str, Any]) -> str:
    gate = data.get("gate")
    if not gate:
        return ""
    rows = [
        (
            each["grader"],
            str(each["rows"]),
            f"{each['base']:.3f}",
            f"{each['candidate']:.3f}",
            f"{each['difference']:+.3f} [{each['low']:+.3f}, {each['high']:+.3f}]",
            f"{each['wins']} / {each['losses']}",
            f"{each['p']:.2g}",
            each["test"],
        )
        for each in gate["comparisons"]
    ]
    columns = ("Grader", "Rows", "Base", "Candidate", "Difference [95 %]", "Won / lost", "p", "Test")
    return f"## Gate: {'passed' if gate['passed'] else 'not passed'}\n\n{gate['why']}\n\n{_table(columns, rows)}"


def _canary(turn: WheelTurn) -> str:
    canary = turn.data.get("canary")
    if not canary or "candidate" not in canary:
        return ""
    rows = [(name, *_live(canary[name])) for name in ("base", "candidate")]
    if (watch := turn.data.get("watch") or {}).get("candidate"):
        rows.append(("candidate, after promotion", *_live(watch["candidate"])))
    text = f"## Canary\n\n{_table(('', 'Requests', 'Errors', 'p95 latency', 'Feedback', 'Negative'), rows)}"
    breach = watch.get("breach") or canary.get("breach")
    return f"{text}\n\n**Bound broken:** {breach}" if breach else text


def _live(figures: Mapping[str, Any]) -> tuple[str, ...]:
    latency = figures.get("latency_p95_s")
    return (
        str(figures["requests"]),
        str(figures["errors"]),
        f"{latency:.2f} s" if latency is not None else "",
        str(figures["feedback"]),
        str(figures["negative"]),
    )


def _times(turn: WheelTurn) -> str:
    rows: list[tuple[str, ...]] = []
    before = turn.created_at
    for ended in turn.data.get("steps", []):
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(ended["at"]))
        rows.append((ended["step"], at, f"{ended['at'] - before} s"))
        before = ended["at"]
    return f"## Steps\n\n{_table(('Step', 'Ended (UTC)', 'Took'), rows)}" if rows else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(head), "|" + " --- |" * len(head), *map(line, rows)])


def plot(turn: WheelTurn, name: str, loss: Loss) -> str | None:
    """One of `PLOTS` as SVG; None where the turn has nothing to show of it yet."""
    if name == "loss":
        train = Line("training", [(step, value) for step, value, _ in loss if value is not None])
        valid = Line("validation", [(step, value) for step, _, value in loss if value is not None])
        return lines("Loss", "step", [line for line in (train, valid) if line.points])
    if name == "gate":
        scores = (turn.data.get("evaluate") or {}).items()
        found = [
            Bar(f"{role}: {grader}", score["mean"], score.get("low"), score.get("high"))
            for role, run in scores
            for grader, score in (run.get("scores") or {}).items()
        ]
        return bars("Held-out rows", found)
    timeline = (turn.data.get("canary") or {}).get("timeline") or []
    if not timeline:
        return None
    begun = timeline[0][0]
    points = [((point[0] - begun) / 60, point) for point in timeline]
    shown = [
        Line("candidate's share", [(x, p[1]) for x, p in points]),
        Line("candidate's errors", [(x, p[3] / p[2]) for x, p in points if p[2]]),
        Line("base's errors", [(x, p[7] / p[6]) for x, p in points if p[6]]),
        Line("candidate's negative feedback", [(x, p[5] / p[4]) for x, p in points if p[4]]),
        Line("base's negative feedback", [(x, p[9] / p[8]) for x, p in points if p[8]]),
    ]
    return lines("Canary", "minutes", [line for line in shown if line.points])
