"""A unified diff, coloured by line."""

from __future__ import annotations

from noria.console._session import Session
from noria.console._widgets import box, text

__all__ = ["diff_view"]

_KINDS = {"+": "added", "-": "removed", "@": "place"}


def diff_view(session: Session, diff: str) -> None:
    """Nothing differs: says so."""
    lines = [line for line in diff.splitlines() if not line.startswith(("---", "+++"))]
    if not lines:
        text(session.t("prompt.same"), "muted")
        return
    with box("diff"):
        for line in lines:
            kind = _KINDS.get(line[:1], "")
            text("⋯" if kind == "place" else line or " ", f"line {kind}", tag="div")
