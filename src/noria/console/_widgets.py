"""Small parts that every page is made of. Text given to them is always shown as text, never as HTML."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from nicegui import ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from noria.console._session import Session

__all__ = [
    "Column",
    "box",
    "button",
    "confirm",
    "copyable",
    "dialog",
    "empty",
    "fact",
    "page_head",
    "panel",
    "state",
    "table",
    "text",
]

Column = tuple[str, str]
"""A column's heading and its CSS classes (`num`, `wide`: hidden on phones)."""


def box(classes: str = "", tag: str = "div") -> Element:
    return ui.element(tag).classes(classes)


def text(content: object, classes: str = "", tag: str = "span") -> TextElement:
    element = TextElement(tag=tag, text=str(content))
    return element.classes(classes) if classes else element


def button(
    label: str,
    action: Callable[[], Any] | None = None,
    *,
    icon: str | None = None,
    kind: str = "",
    hint: str | None = None,
) -> ui.button:
    """`kind`: primary, danger, quiet, or none for an outlined one. A button with an icon alone needs its `hint`."""
    made = ui.button(label, icon=icon, on_click=action, color=None)
    made.classes(f"btn {kind}").props("unelevated no-caps dense" if kind == "primary" else "flat no-caps dense")
    if hint:
        made.tooltip(hint)
        if not label:
            made.props(f"aria-label={json.dumps(hint)}")
    return made


@contextmanager
def page_head(title: str, subtitle: str = "") -> Generator[None]:
    """The page's title; what is made inside the block stands at its right."""
    ui.page_title(f"{title} · Noria")
    with box("page-head"):
        with box("titles"):
            text(title, tag="h1")
            if subtitle:
                text(subtitle, "muted")
        with box("actions"):
            yield


@contextmanager
def panel(title: str = "", *, classes: str = "", actions: Callable[[], Any] | None = None) -> Generator[Element]:
    with box(f"panel {classes}", "section") as section:
        if title:
            with box("panel-head"):
                text(title, tag="h2")
                if actions:
                    with box("actions"):
                        actions()
        yield section


def fact(name: str, value: object, classes: str = "") -> None:
    with box("fact"):
        text(name, "name")
        text(value, f"value {classes}")


def state(kind: str, word: str) -> TextElement:
    """A word with a coloured dot. `kind`: ok, busy, warn, error, off."""
    return text(word, f"state {kind}")


def empty(message: str, hint: str = "", link: tuple[str, str] | None = None) -> None:
    """What stands where there is nothing yet, and what to do about it; `link` is a label and a path."""
    with box("empty"):
        text(message, "strong")
        if hint:
            text(hint, "muted")
        if link:
            ui.link(*link)


def table(columns: Sequence[Column], *, classes: str = "") -> Element:
    """An empty table's body, inside its scrolling frame; rows are made in it."""
    with box("table-frame"), box(f"table {classes}", "table"):
        with box(tag="thead"), box(tag="tr"):
            for heading, kind in columns:
                text(heading, kind, tag="th")
        return box(tag="tbody")


def copyable(session: Session, content: str, *, classes: str = "") -> None:
    """Text to take along, with a button that copies it."""
    with box(f"copyable {classes}"):
        text(content, tag="pre")

        def copy() -> None:
            ui.clipboard.write(content)
            session.done(session.t("copied"))

        button("", copy, icon="content_copy", kind="quiet", hint=session.t("copy"))


@contextmanager
def dialog(title: str, *, wide: bool = False) -> Generator[ui.dialog]:
    """A modal, removed from the page when it closes."""
    # On the page itself: where it was asked for may be redrawn meanwhile.
    with ui.context.client.content, ui.dialog() as made, box(f"dialog {'wide' if wide else ''}"):
        made.on("hide", made.delete)
        text(title, tag="h2")
        yield made
    made.open()


def confirm(session: Session, title: str, message: str, action: Callable[[], Awaitable[None]], *, verb: str) -> None:
    """Asks before something that cannot be undone."""
    with dialog(title) as made:
        text(message, tag="p")

        async def go() -> None:
            made.close()
            with session.reporting():
                await action()

        with box("dialog-actions"):
            button(session.t("cancel"), made.close)
            button(verb, go, kind="danger")
