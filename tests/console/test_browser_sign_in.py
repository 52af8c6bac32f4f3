"""Signing in, in a real Chromium: a fresh machine, its first key, and who comes after."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.console.conftest import Instance

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Instance]:
    made = Instance(tmp_path)
    made.start("server")
    try:
        made.start("console")
        yield made
    finally:
        for name in list(made.processes):
            made.stop(name)


def test_the_first_key_locks_all_others_out_and_not_its_maker(chromium: Any, fresh: Instance) -> None:
    maker = chromium.new_context(base_url=fresh.url, locale="en-US")
    page = maker.new_page()
    page.goto("/settings")
    page.get_by_role("button", name="Create key").click()
    page.get_by_label("Name").fill("first")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_text("This is the only time the key is shown.").wait_for()
    secret = page.locator(".q-dialog").last.inner_text()
    page.get_by_role("button", name="I have copied it").click()
    page.locator("td.name", has_text="first").wait_for()
    page.reload()
    page.locator("td.name", has_text="first").wait_for()

    other = chromium.new_context(base_url=fresh.url, locale="en-US")
    page = other.new_page()
    page.goto("/settings")
    page.wait_for_url("**/sign-in")
    page.get_by_text("noria up").wait_for()
    page.get_by_label("API key").fill("sk-noria-wrong")
    page.get_by_role("button", name="Sign in").click()
    page.locator(".problem").get_by_text(re.compile("key", re.IGNORECASE)).wait_for()
    found = re.search(r"sk-noria-\S+", secret)
    assert found is not None
    page.get_by_label("API key").fill(found[0])
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Home").wait_for()
    assert "token" not in page.url
    page.goto("/settings")
    page.get_by_text("need a key with the scope admin").wait_for()

    owner = chromium.new_context(base_url=fresh.url, locale="en-US")
    page = owner.new_page()
    page.goto("/enter?token=of-yesterday")
    page.get_by_text("an earlier start").wait_for()
    fresh.enter(page)
    page.goto("/settings")
    page.locator("td.name", has_text="first").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in")
    for context in (maker, other, owner):
        context.close()
