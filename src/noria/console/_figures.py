"""Figures that know how sure they are: an estimate on a scale of 0 to 1 with its interval, drawn and said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from noria.console._session import Session
from noria.console._widgets import box, text

__all__ = ["interval_bar", "interval_words", "p_value", "percent"]


def percent(value: float | None, *, sign: bool = False) -> str:
    """`93.2 %`; with `sign`, `+4.1 %`."""
    if value is None:
        return "–"
    return f"{value * 100:+.1f} %" if sign else f"{value * 100:.1f} %"


def interval_words(session: Session, found: Mapping[str, Any] | None, *, sign: bool = False) -> str:
    """`93.2 % (91.0 % to 94.9 %)`."""
    if not found or found.get("estimate") is None:
        return "–"
    value, low, high = (percent(found[name], sign=sign) for name in ("estimate", "low", "high"))
    return session.t("evals.interval", value=value, low=low, high=high)


def interval_bar(found: Mapping[str, Any] | None) -> None:
    """The estimate as a mark, its 95 % interval as a band, from 0 to 1."""
    with box("interval"):
        if not found or found.get("estimate") is None:
            return
        low, high = (min(max(float(found[name]), 0.0), 1.0) for name in ("low", "high"))
        box("interval-band").style(f"left: {low * 100:.2f}%; width: {max((high - low) * 100, 0.5):.2f}%")
        box("interval-mark").style(f"left: {min(max(float(found['estimate']), 0.0), 1.0) * 100:.2f}%")


def p_value(value: float | None) -> str:
    """`0.031`, `0.0004`, `2e-05`; tiny ones as below what a test can tell."""
    if value is None:
        return "–"
    return (
        f"{value:.3f}" if value >= 0.01 else f"{value:.4f}" if value >= 1e-4 else f"{value:.0e}" if value > 1e-12 else "< 1e-12"
    )


def bar(label: str, parts: list[tuple[str, float, str]]) -> None:
    """Shares side by side, each with its class and title; nothing where all are zero."""
    total = sum(value for _, value, _ in parts)
    with box("shares").props(f'role=img aria-label="{label}"'):
        for kind, value, title in parts:
            if value and total:
                box(f"share {kind}").style(f"width: {value / total * 100:.3f}%").tooltip(title)
    if not total:
        text("–", "muted")
