"""Small plots as SVG text, without a library: lines over a number, bars with their intervals. Readable on light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

__all__ = ["Bar", "Line", "bars", "lines"]

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 300, 56, 16, 34, 40
_COLOURS = ("#2a78c2", "#d9822b", "#2e9e6b", "#b3488b", "#7a6fd0")
_INK = "#808890"


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    points: Sequence[tuple[float, float]] = field(default_factory=list[tuple[float, float]])


@dataclass(frozen=True, slots=True)
class Bar:
    """`low` and `high` are the ends of its 95 % interval."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None


def lines(title: str, across: str, drawn: Sequence[Line]) -> str | None:
    """Lines over one axis; None where there is no point."""
    drawn = [Line(line.name, [p for p in line.points if all(map(math.isfinite, p))]) for line in drawn]
    points = [point for line in drawn for point in line.points]
    if not points:
        return None
    xs, ys = [x for x, _ in points], [y for _, y in points]
    left, right, top = min(xs), max(xs), max(ys) * 1.05 or 1.0
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(point: tuple[float, float]) -> str:
        x = _LEFT + wide * ((point[0] - left) / (right - left) if right > left else 0.5)
        return f"{x:.1f},{_TOP + high * (1 - point[1] / top):.1f}"

    body = _axes(top)
    for index, line in enumerate(line for line in drawn if line.points):
        colour = _COLOURS[index % len(_COLOURS)]
        at = " ".join(map(place, line.points))
        body.append(f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>')
        if len(line.points) == 1:
            x, y = at.split(",")
            body.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
        y = _TOP + 14 * index + 4
        body.append(f'<rect x="{_WIDTH - 200}" y="{y}" width="10" height="3" fill="{colour}"/>')
        body.append(_text(_WIDTH - 184, y + 5, line.name, size=11))
    body.append(_text(_LEFT, _HEIGHT - 12, f"{across} {left:g}", size=11))
    body.append(_text(_WIDTH - _RIGHT, _HEIGHT - 12, f"{right:g}", size=11, anchor="end"))
    return _svg(title, body)


def bars(title: str, drawn: Sequence[Bar]) -> str | None:
    """Bars from 0 to 1 with their intervals; None where there is none."""
    if not drawn:
        return None
    top = max(1.0, *(bar.high or bar.value for bar in drawn))
    wide, high = (_WIDTH - _LEFT - _RIGHT) / len(drawn), _HEIGHT - _TOP - _BOTTOM
    body = _axes(top)
    for index, bar in enumerate(drawn):
        x, height = _LEFT + wide * index + wide * 0.2, high * max(bar.value, 0) / top
        colour = _COLOURS[index % len(_COLOURS)]
        body.append(
            f'<rect x="{x:.1f}" y="{_TOP + high - height:.1f}" width="{wide * 0.6:.1f}" height="{height:.1f}" fill="{colour}"/>'
        )
        middle = x + wide * 0.3
        if bar.low is not None and bar.high is not None:
            ends = [_TOP + high * (1 - end / top) for end in (bar.low, bar.high)]
            body.append(f'<path d="M{middle:.1f} {ends[0]:.1f}V{ends[1]:.1f}" stroke="{_INK}" stroke-width="2"/>')
        body.append(_text(middle, _TOP + high - height - 6, f"{bar.value:.3f}", size=12, anchor="middle"))
        body.append(_text(middle, _HEIGHT - 20, bar.name, size=11, anchor="middle"))
    return _svg(title, body)


def _axes(top: float) -> list[str]:
    high = _HEIGHT - _TOP - _BOTTOM
    body: list[str] = []
    for part in (0.0, 0.5, 1.0):
        y = _TOP + high * (1 - part)
        body.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="{_INK}" stroke-opacity="0.35"/>')
        body.append(_text(_LEFT - 8, y + 4, f"{top * part:.3g}", size=11, anchor="end"))
    return body


def _text(x: float, y: float, text: str, *, size: int, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{_INK}">{escape(text)}</text>'


def _svg(title: str, body: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'font-family="system-ui, sans-serif" role="img"><title>{escape(title)}</title>'
    )
    return "\n".join([head, _text(_LEFT, 20, title, size=14), *body, "</svg>"]) + "\n"
