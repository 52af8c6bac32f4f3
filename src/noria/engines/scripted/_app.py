"""The scripted model's routes, as plain ASGI: OpenAI's shapes, whole or streamed."""

from __future__ import annotations

import asyncio
import base64
import struct
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import orjson

from noria.engines._spans import EngineSpans, Stage, spans_wanted

from ._script import Reply, Script, embed, last_user_text, words

__all__ = ["ScriptedApp"]


class ScriptedApp:
    def __init__(self, name: str, script: Script) -> None:
        self._name, self._script = name, script

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        if scope["method"] == "GET":
            known = {
                "/health": {"status": "ready"},
                "/v1/models": {"object": "list", "data": [{"id": self._name, "object": "model"}]},
            }
            await _json(send, known.get(path), 200 if path in known else 404)
            return
        timed = _Timed(self._name, spans_wanted(scope["headers"], "noria-scripted"))
        body = orjson.loads(await _body(receive))
        if self._script.delay_s:
            await asyncio.sleep(self._script.delay_s)
        if path == "/v1/embeddings":
            await _json(send, self._embeddings(body), spans=timed)
            return
        if path == "/v1/noria/tokenize":
            given = body.get("text") or " ".join(str(message.get("content") or "") for message in body.get("messages") or [])
            await _json(send, {"num_tokens": len(words(given))})
            return
        reply = self._script.answer(last_user_text(body))
        if reply.error is not None:
            await _json(
                send, {"error": {"message": f"scripted {reply.error}", "type": "server_error", "code": None}}, reply.error
            )
        elif body.get("stream"):
            await self._stream(send, body, reply, timed)
        else:
            await _json(send, self._whole(body, reply, chat="messages" in body), spans=timed)

    # --- answers ------------------------------------------------------------------------------------------------------

    def _embeddings(self, body: dict[str, Any]) -> dict[str, Any]:
        given = body["input"]
        texts = [given] if isinstance(given, str) else [str(text) for text in given]
        vectors: list[Any] = [embed(text, self._script.dimensions) for text in texts]
        if body.get("encoding_format") == "base64":
            vectors = [base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() for vector in vectors]
        used = sum(len(words(text)) for text in texts)
        data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
        return {"object": "list", "data": data, "model": self._name, "usage": {"prompt_tokens": used, "total_tokens": used}}

    def _whole(self, body: dict[str, Any], reply: Reply, *, chat: bool) -> dict[str, Any]:
        pieces, reason = _cut(reply, body)
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason, "logprobs": None}
        if chat:
            message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
            if reply.tool is None:
                message["content"] = "".join(pieces)
            else:
                message["tool_calls"] = [_call(reply)]
            choice["message"] = message
        else:
            choice["text"] = "".join(pieces)
        kind = "chat.completion" if chat else "text_completion"
        return {**self._frame(kind, chat=chat), "choices": [choice], "usage": _usage(body, len(pieces))}

    async def _stream(self, send: Any, body: dict[str, Any], reply: Reply, timed: _Timed) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        async for event in self._events(body, reply, chat="messages" in body):
            await send({"type": "http.response.body", "body": b"data: " + event + b"\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n" + timed.comment(), "more_body": False})

    async def _events(self, body: dict[str, Any], reply: Reply, *, chat: bool) -> AsyncIterator[bytes]:
        frame = self._frame("chat.completion.chunk" if chat else "text_completion", chat=chat)

        def chunk(delta: Any, reason: str | None = None) -> bytes:
            key, value = ("delta", delta) if chat else ("text", delta.get("content", ""))
            choice = {"index": 0, key: value, "finish_reason": reason, "logprobs": None}
            return orjson.dumps({**frame, "choices": [choice]})

        pieces, reason = _cut(reply, body)
        if chat:
            yield chunk({"role": "assistant", "content": "" if reply.tool is None else None})
        if reply.tool is not None:
            yield chunk({"tool_calls": [{"index": 0, **_call(reply)}]})
        for piece in pieces:
            if self._script.chunk_delay_s:
                await asyncio.sleep(self._script.chunk_delay_s)
            yield chunk({"content": piece})
        yield chunk({}, reason)
        if (body.get("stream_options") or {}).get("include_usage"):
            yield orjson.dumps({**frame, "choices": [], "usage": _usage(body, len(pieces))})

    def _frame(self, kind: str, *, chat: bool) -> dict[str, Any]:
        prefix = "chatcmpl-" if chat else "cmpl-"
        return {"id": prefix + uuid.uuid4().hex, "object": kind, "created": int(time.time()), "model": self._name}


def _cut(reply: Reply, body: dict[str, Any]) -> tuple[list[str], str]:
    """The words of an answer within the token limit, and why it ends."""
    if reply.tool is not None:
        return [], "tool_calls"
    pieces = words(reply.text or "")
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    return (pieces[:limit], "length") if limit and len(pieces) > limit else (pieces, "stop")


def _call(reply: Reply) -> dict[str, Any]:
    function = {"name": reply.tool, "arguments": reply.arguments}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def _usage(body: dict[str, Any], produced: int) -> dict[str, Any]:
    given = body.get("prompt") or " ".join(str(message.get("content") or "") for message in body.get("messages") or [])
    used = len(words(str(given)))
    return {"prompt_tokens": used, "completion_tokens": produced, "total_tokens": used + produced}


class _Timed:
    """What the answer's spans say: nothing computes here, so the whole and the answering are all there is."""

    def __init__(self, name: str, spans: EngineSpans | None) -> None:
        self._name, self._spans, self._begun = name, spans, time.monotonic()

    def _stages(self) -> tuple[Stage, list[Stage]]:
        now = time.monotonic()
        return Stage(f"engine {self._name}", self._begun, now), [Stage("answer", self._begun, now)]

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [self._spans.header(*self._stages())] if self._spans else []

    def comment(self) -> bytes:
        return self._spans.comment(*self._stages()) if self._spans else b""


async def _body(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _json(send: Any, value: Any, status: int = 200, spans: _Timed | None = None) -> None:
    headers = [(b"content-type", b"application/json")] + ([(b"retry-after", b"1")] if status in {429, 503} else [])
    headers += spans.headers() if spans else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": orjson.dumps(value), "more_body": False})
