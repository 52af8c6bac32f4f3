"""The wheel as SVG: seven buckets on a rim that the stream turns, and on each arrow what flows along it now.

Knows nothing of pages; colours are the style sheet's, so that dark and light need no second drawing.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["STATIONS", "Flow", "draw", "states_of"]

STATIONS: tuple[str, ...] = ("traffic", "feedback", "dataset", "train", "gate", "canary", "promote")
_STEPS = {
    "collect": "feedback", "curate": "dataset", "split": "dataset", "train": "train", "evaluate": "gate", "gate": "gate",
    "approve": "canary", "canary": "canary", "watch": "promote",
}  # fmt: skip
"""Where on the wheel a step of a turn takes place."""
_VIEW = (-6, 34, 572, 402)
_X, _Y, _RIM, _BUCKET = 280.0, 232.0, 140.0, 17.0
_FIRST = 116.0  # degrees; the stream enters at the lower left and the wheel turns clockwise
_ICONS = {
    "traffic": "M-7 -3q3.5 -4 7 0t7 0M-7 3q3.5 -4 7 0t7 0",
    "feedback": "M-6 -5h12v8h-7l-3 3v-3h-2z",
    "dataset": "M-6 -5h12M-6 0h12M-6 5h12",
    "train": "M-6 5l4 -5 3 2 5 -7M2 -5h4v4",
    "gate": "M-5 6v-12M5 6v-12M-5 -3h10M-5 2h10",
    "canary": "M-6 3q1 -8 7 -8l5 -1-3 4q-1 6-9 5zM-1 3v3",
    "promote": "M0 6v-11M-5 -1l5 -5 5 5",
}


@dataclass(frozen=True, slots=True)
class Flow:
    """What goes along the arrow that leaves a station: a figure, its unit, and a remark below."""

    figure: str
    unit: str
    note: str = ""


def states_of(steps: Sequence[Mapping[str, str]], outcome: str | None) -> dict[str, str]:
    """Each station's state (`done`, `current`, `stopped`, `ahead`) from those of a turn's steps."""
    found = dict.fromkeys(STATIONS, "ahead")
    for step in steps:
        station, state = _STEPS[step["step"]], step["state"]
        if state in {"done", "current", "stopped"}:
            found[station] = state
    if steps:
        found["traffic"] = "done"
    if outcome == "promoted" and found["promote"] == "ahead":
        found["promote"] = "done"
    return found


def draw(title: str, words: Mapping[str, str], flows: Mapping[str, Flow], states: Mapping[str, str], *, turning: bool) -> str:
    """The drawing; `words` and `flows` by station. Every text is escaped here."""
    parts = [_water(), _rim(turning=turning)]
    step = 360 / len(STATIONS)
    for number, station in enumerate(STATIONS):
        angle = _FIRST + number * step
        parts.append(_arrow(angle, angle + step))
        parts.append(_flow(angle + step / 2, flows[station]))
    for number, station in enumerate(STATIONS):
        parts.append(_bucket(_FIRST + number * step, station, words[station], states.get(station, "ahead")))
    return (
        f'<svg class="wheel-drawing" viewBox="{" ".join(map(str, _VIEW))}" role="img" aria-label="{html.escape(title)}">'
        f"{''.join(parts)}</svg>"
    )


def _at(angle: float, radius: float) -> tuple[float, float]:
    turn = math.radians(angle)
    return _X + radius * math.cos(turn), _Y + radius * math.sin(turn)


def _water() -> str:
    """The stream below: two waves, the wheel dips into it."""
    waves: list[str] = []
    for number, (y, length) in enumerate(((366.0, 140.0), (388.0, 112.0))):
        humps = "".join(f"q{length / 4:.0f} {-9 + 2 * number} {length / 2:.0f} 0t{length / 2:.0f} 0" for _ in range(9))
        waves.append(f'<path class="water w{number}" d="M-206 {y:.0f}{humps}V480H-206z"/>')
    return "".join(waves)


def _rim(*, turning: bool) -> str:
    spokes = "".join(
        f'<line x1="{_X:.1f}" y1="{_Y:.1f}" x2="{x:.1f}" y2="{y:.1f}"/>'
        for x, y in (_at(a, _RIM - 12) for a in range(0, 360, 30))
    )
    paddles = "".join(
        f'<line class="paddle" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
        for (x1, y1), (x2, y2) in ((_at(a, _RIM - 12), _at(a, _RIM + 8)) for a in range(15, 375, 30))
    )
    return (
        f'<g class="spokes {"turning" if turning else ""}" style="transform-origin: {_X}px {_Y}px">{spokes}{paddles}</g>'
        f'<circle class="rim" cx="{_X}" cy="{_Y}" r="{_RIM - 12}"/><circle class="rim thin" cx="{_X}" cy="{_Y}" r="{_RIM - 34}"/>'
        f'<circle class="hub" cx="{_X}" cy="{_Y}" r="13"/>'
    )


def _arrow(start: float, end: float) -> str:
    """Along the rim from one bucket to the next, clockwise."""
    gap = math.degrees(_BUCKET / _RIM) + 3
    (x1, y1), (x2, y2) = _at(start + gap, _RIM), _at(end - gap - 1, _RIM)
    tip, left, right = _at(end - gap + 1.5, _RIM), _at(end - gap - 3, _RIM - 5), _at(end - gap - 3, _RIM + 5)
    head = " ".join(f"{x:.1f},{y:.1f}" for x, y in (tip, left, right))
    return (
        f'<path class="arc" d="M{x1:.1f} {y1:.1f}A{_RIM} {_RIM} 0 0 1 {x2:.1f} {y2:.1f}"/><polygon class="tip" points="{head}"/>'
    )


def _flow(angle: float, flow: Flow) -> str:
    """The figure beside an arrow, outside of the rim."""
    x, y = _at(angle, _RIM + 20)
    anchor, x = _anchored(angle, x)
    lines = [f'<tspan class="figure">{html.escape(flow.figure)}</tspan> <tspan class="unit">{html.escape(flow.unit)}</tspan>']
    if flow.note:
        lines.append(f'<tspan class="unit">{html.escape(flow.note)}</tspan>')
    low = math.sin(math.radians(angle))
    top = y + (6 if low > 0.6 else -6 if low < -0.6 else 0)
    drawn = "".join(
        f'<text x="{x:.1f}" y="{top + 4 + number * 18 - (len(lines) - 1) * 9:.1f}" text-anchor="{anchor}">{line}</text>'
        for number, line in enumerate(lines)
    )
    return f'<g class="flow">{drawn}</g>'


def _bucket(angle: float, station: str, word: str, state: str) -> str:
    x, y = _at(angle, _RIM)
    label_x, label_y = _at(angle, _RIM + _BUCKET + 9)
    anchor, label_x = _anchored(angle, label_x)
    low = math.sin(math.radians(angle))
    label_y += 12 if low > 0.6 else -4 if low < -0.6 else 4
    return (
        f'<g class="bucket {state}"><circle cx="{x:.1f}" cy="{y:.1f}" r="{_BUCKET}"/>'
        f'<path transform="translate({x:.1f} {y:.1f})" d="{_ICONS[station]}"/>'
        f'<text x="{label_x:.1f}" y="{label_y:.1f}" text-anchor="{anchor}">{html.escape(word)}</text></g>'
    )


def _anchored(angle: float, x: float) -> tuple[str, float]:
    side = math.cos(math.radians(angle))
    return ("start", x) if side > 0.25 else ("end", x) if side < -0.25 else ("middle", x)
