"""The console as people use it, in a real Chromium over real models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.console.conftest import Instance

pytestmark = [pytest.mark.browser, pytest.mark.real_model, pytest.mark.timeout(300)]

HANDBOOK = """# Handbook

## Holidays

Employees have 28 days of paid leave each year. Unused days expire on 31 March.

## Remote work

You may work remotely up to three days a week. Ask your lead first.

## 报销

差旅费用须在三十天内提交报销单，并附上发票。
"""
ATTACK = "<img src=x onerror=window.pwned=1>"


@pytest.fixture(scope="module")
def store(instance: Instance) -> str:
    """A store with one document, made by the API."""
    import time

    with instance.client() as client:
        made = client.post("/v1/vector_stores", json={"name": "rules"}).json()["id"]
        for name, content in (("handbook.md", HANDBOOK), (f"{ATTACK}.md", f"# {ATTACK}\n\nThe attack says {ATTACK} here.")):
            file = client.post("/v1/files", files={"file": (name, content.encode())}, data={"purpose": "assistants"}).json()
            client.post(f"/v1/vector_stores/{made}/files", json={"file_id": file["id"]}).raise_for_status()
        deadline = time.monotonic() + 120
        while client.get(f"/v1/vector_stores/{made}").json()["file_counts"]["in_progress"]:
            assert time.monotonic() < deadline
            time.sleep(0.3)
        return made


def choose(page: Any, label: str, option: str) -> None:
    page.get_by_role("combobox", name=label).first.click()
    page.get_by_role("option", name=option).click()


def send(page: Any, prompt: str) -> None:
    page.fill(".prompt textarea", prompt)
    page.press(".prompt textarea", "Enter")


def answered(page: Any, turn: int = -1) -> Any:
    """The last turn, once all its answers have ended."""
    page.wait_for_function(
        "() => { const t = [...document.querySelectorAll('.turn')].at(-1);"
        " const a = t ? [...t.querySelectorAll('.answer')] : [];"
        " return a.length && a.every(x => x.querySelector('.metrics')); }",
        timeout=120_000,
    )
    return page.locator(".turn").nth(turn)


def test_home_shows_the_instance_and_how_to_connect(page: Any, instance: Instance) -> None:
    page.goto("/")
    page.get_by_role("heading", name="Home").wait_for()
    page.get_by_text("smollm2-135m-instruct").first.wait_for()
    assert page.get_by_text(instance.facts("server")["url"] + "/v1", exact=True).is_visible()
    page.wait_for_function("() => document.querySelectorAll('.spark canvas').length === 4")


def test_a_document_is_uploaded_indexed_and_found(page: Any, tmp_path: Path) -> None:
    page.goto("/knowledge")
    page.get_by_role("button", name="New store").click()
    page.get_by_label("Name").fill("手册")
    page.get_by_role("button", name="Add").click()
    page.get_by_role("heading", name="手册").wait_for()
    (tmp_path / "手册.md").write_text(HANDBOOK)
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 no")
    page.locator(".upload input[type=file]").set_input_files([tmp_path / "手册.md", tmp_path / "broken.pdf"])
    row = page.locator("tr", has=page.get_by_text("手册.md"))
    row.get_by_text("ready").wait_for(timeout=120_000)
    broken = page.locator("tr", has=page.get_by_text("broken.pdf").first)
    broken.get_by_text("failed", exact=True).wait_for()
    assert broken.locator(".problem").inner_text() != ""

    row.get_by_role("button", name="Attributes").click()
    page.locator(".dialog textarea").fill("team = hr\nyear = 2026")
    page.get_by_role("button", name="Save").click()
    row.get_by_text("team=hr, year=2026").wait_for()

    page.get_by_placeholder("Try a question").fill("paid leave days")
    page.get_by_placeholder("Try a question").press("Enter")
    hit = page.locator(".hit").first
    hit.wait_for()
    assert "cosine" in hit.inner_text()
    assert "BM25" in hit.inner_text()
    assert hit.locator("mark").first.inner_text().lower() in {"paid", "leave", "days"}
    hit.get_by_role("button", name="Show in the source").click()
    assert "28 days of paid leave" in page.locator(".source-text mark").inner_text()
    page.get_by_role("button", name="Close").click()

    page.get_by_role("button", name="Filter by attribute").click()
    page.get_by_label("Attribute", exact=True).fill("team")
    page.get_by_label("Value").fill("finance")
    page.get_by_role("button", name="Search").click()
    page.get_by_text("No passage was found.").wait_for()

    row.get_by_role("button", name="Delete").click()
    page.locator(".dialog").get_by_role("button", name="Delete").click()
    row.wait_for(state="detached")
    page.goto("/knowledge")
    page.locator("tr", has=page.get_by_text("手册")).get_by_role("button", name="Delete").click()
    page.locator(".dialog").get_by_role("button", name="Delete").click()
    page.locator("td a", has_text="手册").wait_for(state="detached")


def test_two_models_answer_side_by_side_and_leave_traces(page: Any, instance: Instance) -> None:
    route = {
        "id": "pair",
        "source": "route",
        "route": {"strategy": "weighted", "targets": [{"model": "smollm2-135m-instruct"}]},
    }
    with instance.client() as client:
        client.post("/v1/noria/models", json=route).raise_for_status()
    page.goto("/playground?model=smollm2-135m-instruct")
    choose(page, "Beside it", "pair")
    page.get_by_label("Max tokens").fill("16")
    page.get_by_label("Max tokens").press("Tab")
    send(page, "你好，Name three colours.")
    turn = answered(page)
    assert turn.locator(".answer").count() == 2
    for answer in turn.locator(".answer").all():
        assert answer.locator(".prose").inner_text().strip() != ""
        for figure in (r"first token [\d.]+ m?s", r"total [\d.]+ m?s", "→ 16 tokens"):
            assert re.search(figure, answer.inner_text())
        answer.get_by_text("$0").wait_for()
    # It outlives a visit to another page.
    turn.get_by_role("link", name="Trace").first.click()
    page.locator(".span-row").first.wait_for()
    assert "你好，Name three colours." in page.locator(".detail").inner_text()
    page.locator(".nav-link", has_text="Playground").click()
    page.locator(".turn").wait_for()
    page.get_by_role("button", name="Ask the last prompt again").click()
    answered(page)
    assert page.locator(".turn").count() == 1
    page.locator(".page-head").get_by_role("button", name="Clear").click()
    page.get_by_text("Nothing said yet.").wait_for()


def test_shift_enter_is_a_new_line_and_stop_stops(page: Any) -> None:
    page.goto("/playground?model=smollm2-135m-instruct")
    page.get_by_label("Max tokens").fill("2000")
    page.get_by_label("Max tokens").press("Tab")
    # Held to a long list, so that the answer is still being written when the button is reached.
    many = '{"type": "array", "minItems": 600, "items": {"enum": ["one", "two"]}}'
    page.get_by_label("JSON schema of the answer").fill(f'{{"type": "object", "properties": {{"n": {many}}}, "required": ["n"]}}')
    page.get_by_label("JSON schema of the answer").press("Tab")
    box = page.locator(".prompt textarea")
    box.fill("Count slowly from one to a thousand.")
    box.press("Shift+Enter")
    box.type("In words.")
    assert box.input_value() == "Count slowly from one to a thousand.\nIn words."
    box.press("Enter")
    page.get_by_text("writing").wait_for()
    page.get_by_role("button", name="Stop").click()
    assert "stopped" in answered(page).inner_text()


def test_an_answer_follows_a_json_schema(page: Any) -> None:
    page.goto("/playground?model=smollm2-135m-instruct")
    page.get_by_label("JSON schema of the answer").fill(
        '{"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}'
    )
    page.get_by_label("JSON schema of the answer").press("Tab")
    send(page, "Name a colour.")
    assert re.search(r'"colour": "(red|blue)"', answered(page).locator(".prose").inner_text())


def test_answers_cite_the_passage(page: Any, store: str) -> None:
    page.goto(f"/playground?store={store}&model=smollm2-135m-instruct")
    send(page, "差旅费用什么时候报销？")
    turn = answered(page)
    turn.locator(".prose [data-cite]").first.click()
    page.locator(".dialog mark").wait_for()
    assert "差旅费用须在三十天内提交报销单" in page.locator(".dialog .passage").inner_text()
    assert "handbook.md" in page.locator(".dialog h2").inner_text()


def test_nothing_untrusted_is_rendered_as_html(page: Any, instance: Instance, store: str) -> None:
    with instance.client() as client:
        body = {"model": "smollm2-135m-instruct", "max_tokens": 4, "messages": [{"role": "user", "content": ATTACK}]}
        body["messages"].append({"role": "assistant", "content": f"**bold** {ATTACK}"})
        body["messages"].append({"role": "user", "content": "go on"})
        trace = client.post("/v1/chat/completions", json=body).headers["x-noria-trace-id"]
    page.goto(f"/traces/{trace}")
    page.locator(".span-row").first.wait_for()
    assert page.locator(".detail .message").first.inner_text().endswith(ATTACK)
    assert ATTACK in page.locator(".detail .prose").first.inner_text()
    page.goto(f"/knowledge/{store}")
    page.get_by_text(f"{ATTACK}.md").first.wait_for()
    page.get_by_placeholder("Try a question").fill("what does the attack say")
    page.get_by_placeholder("Try a question").press("Enter")
    page.locator(".hit").first.wait_for()
    page.goto("/playground?model=smollm2-135m-instruct")
    send(page, ATTACK)
    answered(page)
    page.goto("/traces")
    page.locator(".traces tbody tr").first.wait_for()
    assert page.evaluate("window.pwned") is None
    assert page.locator("img[src='x']").count() == 0


def test_traces_are_filtered_and_deleted(page: Any, instance: Instance) -> None:
    with instance.client() as client:
        body = {"model": "smollm2-135m-instruct", "max_tokens": 2, "messages": [{"role": "user", "content": "zanzibar"}]}
        trace = client.post("/v1/chat/completions", json=body).headers["x-noria-trace-id"]
        client.get(f"/v1/noria/traces/{trace}")  # waits until it is stored
    page.goto("/traces")
    page.get_by_label("Search inputs and outputs").fill("zanzibar")
    page.wait_for_function("() => document.querySelectorAll('.traces tbody tr').length === 1")
    page.locator(".traces tbody a").click()
    page.get_by_role("button", name="Raw JSON").click()
    assert trace in page.locator(".dialog pre").inner_text()
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Delete").click()
    page.locator(".dialog").get_by_role("button", name="Delete").click()
    page.wait_for_url("**/traces")
    with instance.client() as client:
        assert client.get(f"/v1/noria/traces/{trace}").status_code == 404


def test_models_are_filtered_routed_and_keyed(page: Any, instance: Instance) -> None:
    page.goto("/models")
    page.get_by_label("Search the catalogue").fill("e5")
    page.wait_for_function("() => document.querySelectorAll('.card').length === 1")
    page.get_by_label("Search the catalogue").fill("")
    page.get_by_role("button", name="Add route").click()
    page.get_by_role("button", name="Add", exact=True).click()
    page.locator(".q-notification").first.wait_for()  # the API says what is wrong; the dialog stays
    page.get_by_label("Name here").fill("my-route")
    choose(page, "Model", "smollm2-135m-instruct")
    page.get_by_role("button", name="Add", exact=True).click()
    page.locator(".card", has=page.get_by_text("my-route")).get_by_text("100%").wait_for()

    row = page.locator("tr", has=page.get_by_text("DeepSeek"))
    row.get_by_role("button", name="Set key").click()
    page.locator(".dialog input").fill("sk-secret-of-mine-123456")
    page.get_by_role("button", name="Save").click()
    row.get_by_text("stored").wait_for()
    page.locator(".dialog").wait_for(state="detached")  # what was typed goes with it
    assert "sk-secret-of-mine-123456" not in page.content()
    row.get_by_role("button", name="Forget the key").click()
    page.locator(".dialog").get_by_role("button", name="Delete").click()
    row.get_by_text("missing").wait_for()


def test_language_and_theme_are_chosen_and_remembered(page: Any) -> None:
    page.goto("/settings")
    choose(page, "Theme", "Dark")
    page.wait_for_selector("body.body--dark")
    choose(page, "Language", "中文")
    page.get_by_role("heading", name="设置").wait_for()
    page.goto("/traces")
    page.get_by_role("heading", name="追踪").wait_for()
    assert page.locator("body.body--dark").count() == 1


def test_chinese_by_accept_language_and_usable_on_a_phone(chromium: Any, instance: Instance) -> None:
    context = chromium.new_context(base_url=instance.url, viewport={"width": 390, "height": 844}, locale="zh-CN")
    page = context.new_page()
    instance.enter(page)
    for path in ("/", "/playground", "/knowledge", "/traces", "/models", "/settings"):
        page.goto(path)
        page.locator(".page h1").wait_for()
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        assert page.evaluate("document.querySelector('.page').scrollWidth <= document.querySelector('.page').clientWidth"), path
    assert page.get_by_role("link", name="首页").is_visible()
    context.close()


def test_it_recovers_when_the_api_restarts(page: Any, instance: Instance) -> None:
    page.goto("/traces")
    page.locator(".page h1").wait_for()
    instance.stop("server")
    page.locator(".banner").get_by_text("does not answer").wait_for(timeout=20_000)
    page.locator(".nav-link", has_text="Models").click()
    page.get_by_text("This page could not be loaded.").wait_for()
    instance.start("server")
    page.locator(".card").first.wait_for(timeout=30_000)
    page.locator(".banner").wait_for(state="hidden")


def test_without_the_owners_key_one_signs_in(chromium: Any, instance: Instance, tmp_path: Path) -> None:
    """The console of another home, which has no key at hand, in front of an API that asks for one."""
    with instance.client() as client:
        issued = client.post("/v1/noria/keys", json={"name": "visitor", "scopes": ["inference", "data", "traces"]}).json()
    other = Instance(tmp_path)
    try:
        url = other.start("console", "--api-url", instance.facts("server")["url"])["url"]
        context = chromium.new_context(base_url=url, locale="en-US")
        page = context.new_page()
        page.goto("/")
        page.wait_for_url("**/sign-in")
        page.get_by_label("API key").fill("sk-noria-wrong")
        page.get_by_role("button", name="Sign in").click()
        page.locator(".problem").get_by_text(re.compile("key", re.IGNORECASE)).wait_for()
        page.get_by_label("API key").fill(issued["secret"])
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("heading", name="Home").wait_for()
        page.goto("/settings")
        page.get_by_text("need a key with the scope admin").wait_for()
        assert all(issued["secret"] not in path.read_text() for path in tmp_path.rglob("*.json"))
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/sign-in")
        context.close()
    finally:
        for name in list(other.processes):
            other.stop(name)
        with instance.client() as client:
            client.delete(f"/v1/noria/keys/{issued['id']}")
