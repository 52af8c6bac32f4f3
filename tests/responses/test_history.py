"""Items of stored responses, found by their ids."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from sqlalchemy import event

from noria.errors import NotFound
from noria.messages import ItemReference
from noria.responses._history import ResponseStore
from noria.store import DEFAULT_PROJECT, Database, StoredResponse, new_id
from tests.conftest import NoriaServer


def reference(server: NoriaServer, items: Any) -> httpx.Response:
    with server.client() as client:
        return client.post("/v1/responses", json={"model": "scripted", "input": items})


@pytest.mark.parametrize("bare", [{}, {"type": "item_reference"}, {"type": None}])
def test_an_item_is_named_by_its_id(server: NoriaServer, bare: dict[str, Any]) -> None:
    first = server.openai().responses.create(model="scripted", input="the first words")
    item = server.openai().responses.input_items.list(first.id).data[0]
    again = reference(server, [{"role": "user", "content": "other"}, {"id": item.id, **bare}])
    assert again.status_code == 200, again.text
    assert again.json()["output"][0]["content"][0]["text"] == "the first words"
    answered = reference(server, [{"id": first.output[0].id, **bare}, {"role": "user", "content": "next"}])
    assert answered.status_code == 200, answered.text


def test_references_have_a_limit_and_must_exist(server: NoriaServer) -> None:
    many = reference(server, [{"type": "item_reference", "id": f"msg_{place}"} for place in range(101)])
    assert (many.status_code, many.json()["error"]["param"]) == (400, "input")
    with pytest.raises(openai.NotFoundError, match="msg_none"):
        server.openai().responses.create(model="scripted", input=[{"type": "item_reference", "id": "msg_none"}])


def test_input_items_page_by_cursor(server: NoriaServer) -> None:
    said: Any = [{"role": "user", "content": str(place)} for place in range(3)]
    made = server.openai().responses.create(model="scripted", input=said)
    page = server.openai().responses.input_items.list(made.id, limit=2, order="asc")
    assert page.has_more
    rest: Any = page.get_next_page().data
    assert [item.content[0].text for item in rest] == ["2"]
    with pytest.raises(openai.BadRequestError):
        server.openai().responses.input_items.list(made.id, after="msg_none")


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    on_disk = f"sqlite:///{tmp_path / 'noria.db'}"
    opened = await Database.open(on_disk if request.param == "sqlite" else request.getfixturevalue("postgres_database"))
    yield opened
    await opened.aclose()


@pytest.fixture
def loaded() -> Iterator[list[str]]:
    """The ids of the responses that were read from the database and parsed."""
    seen: list[str] = []

    def note(row: StoredResponse, _: Any) -> None:
        seen.append(row.id)

    event.listen(StoredResponse, "load", note)
    yield seen
    event.remove(StoredResponse, "load", note)


async def test_finding_an_item_reads_its_response_alone(database: Database, loaded: list[str]) -> None:
    store = ResponseStore(database)
    ids: list[str] = []
    for number in range(50):
        response_id, item_id = new_id("resp_"), new_id("msg_")
        item = {"type": "message", "role": "assistant", "id": item_id, "content": str(number)}
        await store.save(DEFAULT_PROJECT, response_id, None, [], {"output": [item]})
        ids.append(item_id)
    loaded.clear()
    found = await store.resolve_references(DEFAULT_PROJECT, [ItemReference(id=ids[3]), ItemReference(id=ids[40])])
    assert [item.content for item in found] == ["3", "40"]
    assert len(loaded) == 2
    hour_ago = f"msg_{int(time.time() * 1000) - 4_000_000:012x}" + "0" * 20
    with pytest.raises(NotFound):
        await store.resolve_references(DEFAULT_PROJECT, [ItemReference(id=hour_ago)])
    assert len(loaded) == 2
