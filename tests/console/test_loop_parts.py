"""Parts of the loop's pages that need no browser: drawings, layouts, figures, forms."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.console._figures import p_value, percent
from noria.console._lineage import layout, path_of
from noria.console.evals._forms import criteria_of
from noria.console.evals._row import asked_words
from noria.console.tuning._loss import loss_points
from noria.console.wheel._drawing import STATIONS, Flow, draw, states_of

STEPS = ("collect", "curate", "split", "train", "evaluate", "gate", "approve", "canary", "watch")


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=30))
def test_whatever_a_word_holds_the_drawing_is_one_whole_picture(word: str) -> None:
    drawn = draw(word, dict.fromkeys(STATIONS, word), dict.fromkeys(STATIONS, Flow(word, word, word)), {}, turning=True)
    root = ET.fromstring(drawn)
    tags = {element.tag for element in root.iter()}
    assert tags == {"svg", "g", "path", "circle", "line", "polygon", "text", "tspan"}
    assert len(root.findall(".//g[@class='bucket ahead']")) == 7
    assert len(root.findall(".//g[@class='flow']")) == 7


def _steps(current: str | None, states: dict[str, str] | None = None) -> list[dict[str, str]]:
    at = STEPS.index(current) if current else len(STEPS)
    found = {step: "done" if n < at else "current" if n == at else "ahead" for n, step in enumerate(STEPS)}
    return [{"step": step, "state": (states or {}).get(step, found[step])} for step in STEPS]


def test_a_turns_steps_light_the_stations() -> None:
    assert set(states_of([], None).values()) == {"ahead"}
    waiting = states_of(_steps("approve"), None)
    assert [waiting[name] for name in STATIONS] == ["done", "done", "done", "done", "done", "current", "ahead"]
    rejected = states_of(_steps("approve", {"gate": "stopped", "approve": "not needed"}), "rejected")
    assert (rejected["gate"], rejected["canary"], rejected["promote"]) == ("stopped", "ahead", "ahead")
    assert states_of(_steps(None, {"watch": "not needed"}), "promoted")["promote"] == "done"


def test_lineage_flows_from_left_to_right() -> None:
    nodes: list[dict[str, Any]] = [
        {"id": "ft:x", "kind": "model"},
        {"id": "base", "kind": "model", "base": True},
        {"id": "t", "kind": "trace"},
        {"id": "resp_1", "kind": "response", "trace_id": "t"},
        {"id": "fb_1", "kind": "feedback", "trace_id": "t"},
        {"id": "ds_1@2", "kind": "version", "dataset_id": "ds_1", "version": 2},
        {"id": "ftjob-1", "kind": "job"},
        {"id": "ds_1@2#feedback", "kind": "more", "of": "feedback", "count": 9},
        {"id": "new", "kind": "something_new"},
    ]
    columns = [[node["id"] for node in column] for column in layout(nodes)]
    assert columns == [["base"], ["t"], ["resp_1", "fb_1", "ds_1@2#feedback"], ["ds_1@2"], ["ftjob-1"], ["ft:x"], ["new"]]
    assert [path_of(node) for node in nodes[2:7]] == [
        "/traces/t", "/traces/t", "/traces/t", "/datasets/ds_1?version=2", "/tuning/ftjob-1",
    ]  # fmt: skip
    assert path_of(nodes[-1]) is None


def test_a_resumed_jobs_steps_are_drawn_once() -> None:
    def told(step: int, **figures: float) -> dict[str, Any]:
        return {"type": "metrics", "data": {"step": step, **figures}}

    events = [told(1, train_loss=2.0), told(2, train_loss=1.5), {"type": "message", "data": {}}, told(2, train_loss=1.4)]
    events += [told(2, full_valid_loss=1.6), told(1, valid_loss=2.1)]
    assert loss_points(events) == [
        {"step": 1, "train_loss": 2.0, "valid_loss": 2.1},
        {"step": 2, "train_loss": 1.4, "full_valid_loss": 1.6},
    ]


def test_criteria_are_openais() -> None:
    assert criteria_of("same")[0]["operation"] == "eq"
    assert criteria_of("similar", metric="rouge_l", threshold=0.4)[0]["pass_threshold"] == 0.4
    judge = criteria_of("judge", judge="m", told="Grade.")[0]
    assert (judge["type"], judge["model"], judge["input"][0]["content"]) == ("score_model", "m", "Grade.")
    assert criteria_of("json", told='[{"type": "python"}]') == [{"type": "python"}]
    for bad in ("{}", "[", ""):
        with pytest.raises(ValueError):
            criteria_of("json", told=bad)


def test_small_chances_and_shares_are_short() -> None:
    assert [p_value(value) for value in (None, 0.31, 0.0123, 0.0004, 3e-9, 0.0)] == [
        "–", "0.310", "0.012", "0.0004", "3e-09", "< 1e-12",
    ]  # fmt: skip
    assert [percent(0.932), percent(0.041, sign=True), percent(-0.5, sign=True), percent(None)] == [
        "93.2 %", "+4.1 %", "-50.0 %", "–",
    ]  # fmt: skip


def test_a_rows_question_is_found_however_it_is_spelt() -> None:
    assert asked_words({"input": "a", "expected": "b"}) == "a"
    assert asked_words({"messages": [{"role": "user", "content": "last"}]}) == "last"
    assert "claim" in asked_words({"claim": "x", "expected": "y"})
    assert "y" not in asked_words({"claim": "x", "expected": "y"})
