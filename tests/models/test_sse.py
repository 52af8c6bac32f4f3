"""Server-sent events cut anywhere: the quick decoder against the obvious one."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.errors import UpstreamError
from noria.models import SSEDecoder, WholeEvents, chunks

LINES = st.sampled_from(
    [
        b"data: a",
        b"data:b",
        b"data: \xe6\xb0\xb4",
        b"data: [DONE]",
        b": note",
        b"event: x",
        b"data:",
        b"",
        b"",
        b"id: 1",
        b"data: a:b",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def slowly(data: bytes) -> list[bytes]:
    """The definition, over the whole text at once. Payloads of events that an empty line has ended."""
    found: list[bytes] = []
    current: list[bytes] = []
    for line in data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[:-1]:
        if line.startswith(b"data:"):
            current.append(line[5:].removeprefix(b" "))
        elif not line and current:
            found.append(b"\n".join(current))
            current = []
    return found


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({place % (len(data) + 1) for place in places})
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


@given(st.lists(LINES, max_size=30), ENDS, st.lists(st.integers(0, 10_000), max_size=40))
def test_decodes_alike_wherever_it_is_cut(lines: list[bytes], end: bytes, places: list[int]) -> None:
    data = b"".join(line + end for line in lines)
    decoder = SSEDecoder()
    assert [event for piece in cut(data, places) for event in decoder.feed(piece)] == slowly(data)


@given(st.lists(LINES, max_size=30), ENDS, st.lists(st.integers(0, 10_000), max_size=40))
def test_whole_events_lose_nothing(lines: list[bytes], end: bytes, places: list[int]) -> None:
    data = b"".join(line + end for line in lines)
    whole = WholeEvents()
    pieces = [whole.feed(piece) for piece in cut(data, places)]
    assert all(not piece or piece.endswith(b"\n\n") or piece == b"\n" for piece in pieces)
    assert b"".join(pieces) + whole.rest() == data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def test_an_event_without_end_is_refused_in_linear_time() -> None:
    decoder = SSEDecoder()
    begun = time.process_time()
    with pytest.raises(UpstreamError, match="16 MiB"):
        any(decoder.feed(b"x" * 1024) for _ in range(20_000))
    assert time.process_time() - begun < 2


async def test_chunks_end_at_done_and_refuse_nonsense() -> None:
    async def of(*pieces: bytes):  # type: ignore[no-untyped-def]
        for piece in pieces:
            yield piece

    assert [chunk async for chunk in chunks(of(b'data: {"a":1}\n\ndata: [DONE]\n\n'))] == [{"a": 1}]
    for bad, message in [(b"data: [1]\n\n", "JSON object"), (b"data: {\n\n", "not JSON"), (b"", "before")]:
        with pytest.raises(UpstreamError, match=message):
            _ = [chunk async for chunk in chunks(of(bad))]
