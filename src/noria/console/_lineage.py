"""Lineage drawn: from the model that answered, by traces, feedback, rows and files, to the models that learned."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from nicegui import ui

from noria.console._session import Session
from noria.console._widgets import box, button, empty, page_head, text
from noria.errors import NotFound

__all__ = ["layout", "lineage_page", "path_of"]

_ORDER = (
    "base",
    "trace",
    "completion",
    "response",
    "feedback",
    "row",
    "version",
    "file",
    "job",
    "model",
    "eval_run",
    "turn",
    "more",
)
_SAME_COLUMN = {"completion": "feedback", "response": "feedback"}
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y = 168, 50, 38, 10
_TO_START = "setTimeout(() => document.querySelector('.node.start')?.scrollIntoView({inline: 'center', block: 'nearest'}), 200)"
Node = dict[str, Any]


async def lineage_page(session: Session, query: dict[str, str]) -> None:
    t, identity = session.t, query.get("id", "").strip()
    graph: dict[str, Any] | None = None
    unknown = ""
    if identity:
        try:
            graph = await session.api.get(f"/v1/noria/lineage/{quote(identity, safe='@')}")
        except NotFound as error:
            unknown = str(error)
    with page_head(t("lineage.title"), t("lineage.of", name=_short(identity, 48)) if identity else ""):
        pass
    field = ui.input(t("lineage.find"), value=identity).props("outlined dense clearable").classes("filter grow")

    def show() -> None:
        wanted = (field.value or "").strip()
        if wanted:
            ui.navigate.to(f"/lineage?id={quote(wanted, safe='')}")

    with box("filters") as row:
        field.move(row)
        button(t("lineage.show"), show, icon="search")
    field.on("keydown.enter", show)
    with box("panel"):
        if graph is None:
            empty(unknown or t("lineage.hint"))
            return
        _draw(session, graph)
        ui.run_javascript(_TO_START)
        if graph["truncated"]:
            text(t("lineage.truncated"), "muted")


def layout(nodes: list[Node]) -> list[list[Node]]:
    """Columns from left to right by what a thing is in the loop; empty ones are left out."""
    columns: dict[str, list[Node]] = {name: [] for name in _ORDER}
    for node in nodes:
        kind = "base" if node["kind"] == "model" and node.get("base") else node["kind"]
        kind = str(node.get("of") or kind) if kind == "more" else kind
        columns[_SAME_COLUMN.get(kind, kind if kind in columns else "more")].append(node)
    return [column for column in columns.values() if column]


def _draw(session: Session, graph: dict[str, Any]) -> None:
    columns = layout(graph["nodes"])
    tallest = max(len(column) for column in columns)
    height = tallest * (_HEIGHT + _GAP_Y)
    places: dict[str, tuple[float, float]] = {}
    for x, column in enumerate(columns):
        top = (height - len(column) * (_HEIGHT + _GAP_Y)) / 2
        for y, node in enumerate(column):
            places[node["id"]] = (x * (_WIDTH + _GAP_X), top + y * (_HEIGHT + _GAP_Y))
    width = len(columns) * (_WIDTH + _GAP_X) - _GAP_X
    with box("table-frame"), box("graph").style(f"width: {width}px; height: {height}px"):
        ui.html(_edges(graph["edges"], places, width, height), sanitize=False)  # numbers alone
        for column in columns:
            for node in column:
                _node(session, node, places[node["id"]], start=node["id"] == graph["start"])


def _edges(edges: list[dict[str, str]], places: dict[str, tuple[float, float]], width: float, height: float) -> str:
    paths: list[str] = []
    for edge in edges:
        if edge["from"] not in places or edge["to"] not in places:
            continue
        (x1, y1), (x2, y2) = places[edge["from"]], places[edge["to"]]
        y1, y2 = y1 + _HEIGHT / 2, y2 + _HEIGHT / 2
        if x2 > x1:
            x1, bend = x1 + _WIDTH, _GAP_X * 0.6
        elif x2 < x1:
            x2, bend = x2 + _WIDTH, -_GAP_X * 0.6
        else:  # beside each other: round the left
            bend = -_GAP_X * 0.5
            paths.append(f"M{x1:.0f} {y1:.0f}C{x1 + bend:.0f} {y1:.0f} {x2 + bend:.0f} {y2:.0f} {x2:.0f} {y2:.0f}")
            continue
        paths.append(f"M{x1:.0f} {y1:.0f}C{x1 + bend:.0f} {y1:.0f} {x2 - bend:.0f} {y2:.0f} {x2:.0f} {y2:.0f}")
    drawn = "".join(f'<path d="{path}"/>' for path in paths)
    return f'<svg class="edges" width="{width:.0f}" height="{height:.0f}" aria-hidden="true">{drawn}</svg>'


def _node(session: Session, node: Node, place: tuple[float, float], *, start: bool) -> None:
    t = session.t
    kind = node["kind"]
    classes = f"node {'start' if start else ''} {'gone' if node.get('erased') or node.get('marks') else ''}"
    with box(classes).style(f"left: {place[0]:.0f}px; top: {place[1]:.0f}px; width: {_WIDTH}px; height: {_HEIGHT}px"):
        with box("node-head"):
            rows = t("lineage.rows", count=node["rows"]) if kind == "version" and "rows" in node else ""
            text(" · ".join(filter(None, (t.of("kind", kind), rows))), "muted small")
            if path := path_of(node):
                with ui.link(target=path).classes("node-open").props(f'aria-label="{t("lineage.open")}"'):
                    ui.icon("open_in_new")
        words = _words(session, node)
        if kind == "more":
            text(words, "strong")
        else:
            with ui.link(words, f"/lineage?id={quote(node['id'], safe='')}").classes("node-name"):
                ui.tooltip(t("lineage.marked") if node.get("marks") else node["id"])


def _words(session: Session, node: Node) -> str:
    t = session.t
    match node["kind"]:
        case "version":
            return f"{node.get('name')} @{node.get('version')}"
        case "feedback":
            said = [node.get("rating"), node.get("label"), t("feedback.corrected") if node.get("corrected") else None]
            return " · ".join(str(word) for word in said if word) or _short(node["id"], 22)
        case "trace":
            return str(node.get("model") or node.get("name") or node["id"])
        case "row":
            return f"{t.of('split', str(node.get('split')))} · {_short(node['id'], 14)}"
        case "turn":
            return f"{t('wheel.turn_number', number=node.get('number'))} · {t.of('outcome', str(node.get('outcome') or ''))}"
        case "more":
            return t("lineage.more", count=node.get("count", ""))
        case _:
            return str(node.get("name") or node.get("filename") or node["id"])


def path_of(node: Node) -> str | None:
    """The page of a thing, where it has one."""
    match node["kind"]:
        case "trace":
            return f"/traces/{node['id']}"
        case "completion" | "response" | "feedback" if node.get("trace_id"):
            return f"/traces/{node['trace_id']}"
        case "version":
            return f"/datasets/{node['dataset_id']}?version={node['version']}"
        case "job":
            return f"/tuning/{node['id']}"
        case "eval_run" if node.get("eval_id"):
            return f"/evals/{node['eval_id']}/runs/{node['id']}"
        case "turn" if node.get("wheel_id") or node.get("wheel"):
            return f"/wheels/{node.get('wheel_id') or node['wheel']}"
        case "model":
            return f"/playground?model={quote(node['id'], safe='')}"
        case _:
            return None


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
