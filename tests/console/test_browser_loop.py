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
