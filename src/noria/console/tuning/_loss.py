"""The loss by step as a chart: training and, where it was measured, validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from noria.console._session import Session

__all__ = ["loss_chart", "loss_points"]

_MOST = 600
_VALID = ("full_valid_loss", "valid_loss")


def loss_points(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of a job's events those with figures, in order of their steps, one a step (a resumed job tells some twice)."""
    by_step: dict[int, dict[str, Any]] = {}
    for event in events:
        data = event["data"]
        if event["type"] == "metrics" and isinstance(data.get("step"), int):
            by_step[data["step"]] = {**by_step.get(data["step"], {}), **{k: v for k, v in data.items() if v is not None}}
    return [by_step[step] for step in sorted(by_step)]


def loss_chart(session: Session, points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    t = session.t
    thinned = points[:: max(1, len(points) // _MOST)]
    train = [[point["step"], round(point["train_loss"], 5)] for point in thinned if "train_loss" in point]
    valid = [
        [point["step"], round(loss, 5)]
        for point in points
        if isinstance(loss := next((point[name] for name in _VALID if point.get(name) is not None), None), float)
    ]
    muted = {"color": "#8a949e", "fontSize": 11}
    grid = {"lineStyle": {"color": "#8a949e33"}}
    line = {"type": "line", "showSymbol": False, "lineStyle": {"width": 1.5}}
    series: list[dict[str, Any]] = [{**line, "name": t("tuning.loss.train"), "data": train, "color": "#2b8ca6"}]
    if valid:
        marked = {"showSymbol": True, "symbolSize": 5}
        series.append({**line, **marked, "name": t("tuning.loss.valid"), "data": valid, "color": "#b98433"})
    return {
        "animation": False,
        "grid": {"left": 46, "right": 14, "top": 26, "bottom": 24},
        "legend": {"top": 0, "right": 0, "textStyle": muted, "itemWidth": 16},
        "xAxis": {"type": "value", "min": "dataMin", "max": "dataMax", "axisLabel": muted, "splitLine": {"show": False}},
        "yAxis": {"type": "value", "scale": True, "axisLabel": muted, "splitLine": grid},
        "tooltip": {"trigger": "axis", "confine": True, "textStyle": {"fontSize": 12}, "padding": [3, 8]},
        "series": series,
    }
