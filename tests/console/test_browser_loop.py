"""The pages of the loop (prompts, feedback, datasets, evals, tuning, the wheel) in a real Chromium, over a scripted model."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import SCRIPTED_CHAT
from tests.console.conftest import Instance

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def scripted(instance: Instance) -> Instance:
    with instance.client() as client:
        client.post("/v1/noria/models", json=SCRIPTED_CHAT).raise_for_status()
    return instance


def choose(page: Any, label: str, option: str) -> None:
    page.get_by_role("combobox", name=label).first.click()
    page.get_by_role("option", name=option).click()


def test_a_prompt_is_written_released_tried_and_taken_back(page: Any, scripted: Instance) -> None:
    page.goto("/prompts")
    page.get_by_role("button", name="New prompt").click()
    page.get_by_label("Name", exact=True).fill("greeter")
    page.get_by_label("Task", exact=True).fill("Greet {{who}")
    page.get_by_text("is not a variable").wait_for()
    page.get_by_label("Task", exact=True).fill("Greet {{who}}.")
    page.get_by_text("Variables: who").wait_for()
    page.get_by_role("button", name="Save").click()
    page.get_by_role("heading", name="greeter").wait_for()
    page.get_by_role("button", name="Point a label here").click()
    page.get_by_role("button", name="Point here").click()
    page.locator(".list-row", has_text="Version 1").locator(".tag", has_text="production").wait_for()

    page.get_by_role("button", name="Edit", exact=True).click()
    page.get_by_label("Task", exact=True).fill("Greet {{who}} kindly.")
    page.get_by_role("button", name="Save").click()
    page.locator(".diff .added", has_text="Greet {{who}} kindly.").wait_for()
    page.locator(".diff .removed", has_text="Greet {{who}}.").wait_for()
    page.get_by_role("button", name="Point a label here").click()
    page.get_by_role("button", name="Point here").click()
    page.locator(".list-row", has_text="Version 2").locator(".tag", has_text="production").wait_for()

    page.get_by_label("who", exact=True).fill("{{who}}")
    page.get_by_role("button", name="Show the messages").click()
    page.locator(".message .said", has_text="Greet {{who}} kindly.").wait_for()
    page.get_by_label("Your message").fill("hello from the page")
    choose(page, "Model", "scripted")
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator(".answer .prose", has_text="hello from the page").wait_for()

    page.get_by_role("button", name="Roll back production").click()
    page.locator(".list-row", has_text="Version 1").locator(".tag", has_text="production").wait_for()
    with scripted.client() as client:
        assert client.get("/v1/noria/prompts/greeter").json()["labels"] == {"production": 1}
    page.get_by_role("button", name="Its traces").click()
    page.locator(".traces tbody tr").first.wait_for()


def chat(instance: Instance, prompt: str, model: str = "scripted") -> str:
    """Asks and gives the trace's id."""
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], "store": True}
    with instance.client() as client:
        answer = client.post("/v1/chat/completions", json=body)
        answer.raise_for_status()
        client.get(f"/v1/noria/traces/{answer.headers['x-noria-trace-id']}").raise_for_status()  # waits until it is stored
        return answer.headers["x-noria-trace-id"]


def said_of(instance: Instance, trace: str) -> list[dict[str, Any]]:
    with instance.client() as client:
        return client.get("/v1/noria/feedback", params={"trace_id": trace}).json()["data"]


def test_an_answer_gets_thumbs_and_a_correction(page: Any, scripted: Instance) -> None:
    page.goto("/playground?model=scripted")
    page.fill(".prompt textarea", "Where is the pump?")
    page.press(".prompt textarea", "Enter")
    bar = page.locator(".feedback-bar")
    bar.get_by_role("button", name="Bad").click()
    page.locator(".on-down").first.wait_for()
    bar.get_by_role("button", name="Correct or comment").click()
    page.get_by_label("What the answer should have been").fill("In the cellar.")
    page.get_by_label("Comment", exact=True).fill("<img src=x onerror=window.pwned=1>")
    page.locator(".dialog").get_by_role("button", name="Save").click()
    bar.get_by_text("Corrected").wait_for()
    page.locator(".metrics").get_by_role("link", name="Trace").click()

    page.locator(".said-row", has_text="In the cellar.").wait_for()
    trace = page.url.rsplit("/", 1)[1]
    assert [(row["rating"], row["correction"]["content"]) for row in said_of(scripted, trace)] == [("down", "In the cellar.")]
    page.locator(".feedback-bar").get_by_role("button", name="Good").click()
    page.locator(".feedback-bar .on-up").wait_for()
    assert len(said_of(scripted, trace)) == 2
    page.locator(".feedback-bar").get_by_role("button", name="Good").click()  # taken back
    page.locator(".feedback-bar .on-up").wait_for(state="detached")
    assert len(said_of(scripted, trace)) == 1
    assert page.evaluate("window.pwned") is None
    page.get_by_role("button", name="Lineage").click()
    page.locator(".node.start").wait_for()
    page.locator(".node", has_text="feedback").wait_for()


def test_a_dataset_is_filled_curated_and_compared(page: Any, scripted: Instance, tmp_path: Any) -> None:
    trace = chat(scripted, "Do you ship to Norway?")
    with scripted.client() as client:
        client.post("/v1/noria/feedback", json={"trace_id": trace, "correction": "Yes, within five days."}).raise_for_status()
    page.goto("/datasets")
    page.get_by_role("button", name="New dataset").click()
    page.get_by_label("Name", exact=True).fill("tickets")
    page.get_by_role("button", name="Add").click()
    page.get_by_role("heading", name="tickets").wait_for()
    page.get_by_role("button", name="Fill").click()
    page.get_by_text("From feedback", exact=True).click()
    page.get_by_role("button", name="Collect").click()
    page.locator(".eval-row", has_text="Yes, within five days.").wait_for()

    lines = [
        '{"messages": [{"role": "user", "content": "Pump 3 leaks"}, {"role": "assistant", "content": "technical"}]}',
        '{"messages": [{"role": "user", "content": "Pump 3 leaks"}, {"role": "assistant", "content": "billing"}]}',
        '{"messages": [{"role": "user", "content": "Write to ada@example.com"}, {"role": "assistant", "content": "other"}]}',
        "not JSON",
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    page.get_by_role("button", name="Fill").click()
    page.get_by_text("From a file", exact=True).click()
    page.locator(".upload input[type=file]").set_input_files(tmp_path / "rows.jsonl")
    page.get_by_text("1 lines could not be read").wait_for()
    page.locator(".dialog").get_by_role("button", name="Close").click()
    page.locator(".list-row.chosen", has_text="Version 2").wait_for()
    page.get_by_label("Search rows").fill("leaks")
    page.wait_for_function("() => document.querySelectorAll('.eval-row').length === 2")

    page.get_by_role("tab", name="Findings").click()
    page.get_by_role("button", name="Look for problems").click()
    contradiction = page.locator(".finding", has_text="contradiction")
    contradiction.get_by_role("button", name="Reject").click()
    contradiction.wait_for(state="detached")
    personal = page.locator(".finding", has_text="personal data")
    personal.get_by_role("button", name="Accept").click()
    personal.wait_for(state="detached")
    page.get_by_role("button", name="Remove what was accepted").click()
    page.locator(".list-row.chosen", has_text="Version 3").wait_for()
    page.get_by_role("tab", name="Changes").click()
    page.locator(".change-removed").wait_for()
    assert "ada@example.com" in page.locator(".eval-row").inner_text()

    page.get_by_role("button", name="Export").click()
    with page.expect_download() as download:
        page.get_by_text("openai", exact=True).click()
    assert "Pump 3 leaks" in download.value.path().read_text()
    assert download.value.suggested_filename.endswith(".jsonl")


def test_two_runs_of_an_eval_are_compared_row_by_row(page: Any, scripted: Instance) -> None:
    script = scripted.home / "better.toml"
    script.write_text('[[replies]]\nmatch = "hard"\ntext = "billing"\n')
    rows = [{"messages": [{"role": "user", "content": word}], "expected": word} for word in ("a", "b", "c", "d")]
    rows.append({"messages": [{"role": "user", "content": "hard one"}], "expected": "billing"})
    with scripted.client() as client:
        client.post("/v1/noria/models", json={**SCRIPTED_CHAT, "id": "better", "script": str(script)}).raise_for_status()
        dataset = client.post("/v1/noria/datasets", json={"name": "words"}).json()["id"]
        client.post(f"/v1/noria/datasets/{dataset}/rows", json={"rows": rows}).raise_for_status()
    page.goto("/evals")
    page.get_by_role("button", name="New eval").click()
    page.get_by_label("Name", exact=True).fill("Words")
    page.get_by_role("button", name="Add").click()
    page.get_by_role("heading", name="Words").wait_for()
    for number, model in enumerate(("scripted", "better"), 1):
        page.get_by_role("button", name="Start a run").click()
        dialog = page.locator(".dialog")
        dialog.get_by_role("combobox", name="Model").click()
        page.get_by_role("option", name=model, exact=True).click()
        dialog.get_by_role("combobox", name="Dataset").click()
        page.get_by_role("option", name="words").click()
        dialog.get_by_role("combobox", name="Split").click()
        page.get_by_role("option", name="Any").click()
        dialog.get_by_role("button", name="Start a run").click()
        dialog.wait_for(state="hidden")
        page.wait_for_function(f"() => document.querySelectorAll('tbody .state.ok').length === {number}", timeout=60_000)
    page.get_by_text("80.0 % (37.6 % to 96.4 %)").wait_for()
    for box in page.locator("tbody [role=checkbox]").all():
        box.click()
    page.get_by_role("button", name="Compare").first.click()
    page.get_by_role("heading", name="Two runs compared").wait_for()
    page.get_by_text("No significant difference.").wait_for()
    page.locator(".eval-row .outcome.win").wait_for()
    page.locator(".panel-head .q-select").click()
    page.get_by_role("option", name="Wins").click()
    page.wait_for_function("() => document.querySelectorAll('.eval-row').length === 1")
    assert "hard one" in page.locator(".eval-row").inner_text()
    page.get_by_role("link", name="Runs").click()
    page.locator("tbody a", has_text="better").click()
    page.get_by_text("All criteria").wait_for()
    page.wait_for_function("() => document.querySelectorAll('.eval-row').length === 5")


def test_a_wheel_is_made_turned_and_told(page: Any, scripted: Instance) -> None:
    page.goto("/wheels")
    page.get_by_role("button", name="New wheel").click()
    page.get_by_label("Whole specification").fill('name = "desk"\nbase_model = "scripted"\n')
    page.get_by_role("button", name="Add").click()
    page.get_by_role("heading", name="desk").wait_for()
    page.locator(".wheel-drawing .bucket").nth(6).wait_for()
    page.get_by_text("It has not turned yet.").first.wait_for()
    chat(scripted, "Does the route answer?", model="desk")
    page.get_by_role("button", name="Turn", exact=True).click()
    page.locator("tbody tr", has_text="Turn 1").get_by_text("skipped").wait_for(timeout=30_000)
    page.get_by_role("button", name="Report").click()
    page.locator(".dialog .prose", has_text="turn 1").wait_for()


def test_a_fine_tuning_job_says_why_it_failed(page: Any, scripted: Instance) -> None:
    pytest.importorskip("torch")
    with scripted.client() as client:
        file = client.post("/v1/files", files={"file": ("bad.jsonl", b"{}\nnot JSON\n")}, data={"purpose": "fine-tune"}).json()
        made = client.post("/v1/fine_tuning/jobs", json={"model": "smollm2-135m-instruct", "training_file": file["id"]})
    if made.status_code != 200:
        pytest.skip(made.text)
    page.goto("/tuning")
    page.locator("tbody a").first.click()
    page.locator(".note-box", has_text="2").wait_for(timeout=60_000)
    page.get_by_text("failed", exact=True).first.wait_for()
