"""OpenVINO GenAI's bare pipeline behind the thinnest HTTP that streams: the peer of `engine.py`, run in its own environment.

Run: python engine_genai.py MODEL.gguf SOCKET
"""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import openvino_genai as genai
import orjson
import uvicorn


class Host:
    def __init__(self, model: str) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = 1
        scheduler.max_num_batched_tokens = 256
        scheduler.enable_prefix_caching = True
        self.pipeline = genai.ContinuousBatchingPipeline(model, scheduler, "CPU")
        self.tokenizer = self.pipeline.get_tokenizer()
        self.lock = threading.Condition()
        self.new: list[tuple[int, str, Any, asyncio.Queue[Any], asyncio.AbstractEventLoop]] = []
        self.number = 0
        threading.Thread(target=self.loop, daemon=True).start()

    def loop(self) -> None:
        """Adds, steps, hands tokens out: one thread, as ours has."""
        live: dict[int, tuple[Any, asyncio.Queue[Any], asyncio.AbstractEventLoop]] = {}
        while True:
            with self.lock:
                while not self.new and not live:
                    self.lock.wait()
                new, self.new = self.new, []
            for number, text, config, queue, loop in new:
                live[number] = (self.pipeline.add_request(number, text, config), queue, loop)
            self.pipeline.step()
            for number, (handle, queue, loop) in list(live.items()):
                tokens: list[int] = []
                while handle.can_read():
                    for output in handle.read().values():
                        tokens += output.generated_ids
                ended = handle.get_status() != genai.GenerationStatus.RUNNING
                if tokens or ended:
                    loop.call_soon_threadsafe(queue.put_nowait, (tokens, ended))
                if ended:
                    del live[number]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/health":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})
            return
        data = b""
        while True:
            message = await receive()
            data += message.get("body", b"")
            if not message.get("more_body"):
                break
        body = orjson.loads(data)
        config = genai.GenerationConfig()
        config.max_new_tokens = body["max_tokens"]
        config.ignore_eos = True
        config.do_sample = False
        text = self.tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True)
        queue: asyncio.Queue[Any] = asyncio.Queue()
        with self.lock:
            self.number += 1
            self.new.append((self.number, text, config, queue, asyncio.get_running_loop()))
            self.lock.notify()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        ended = False
        while not ended:
            tokens, ended = await queue.get()
            piece = self.tokenizer.decode(tokens) if tokens else ""
            chunk = orjson.dumps({"choices": [{"index": 0, "delta": {"content": piece or " "}}]})
            await send({"type": "http.response.body", "body": b"data: " + chunk + b"\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


if __name__ == "__main__":
    uvicorn.run(Host(sys.argv[1]), uds=sys.argv[2], log_level="warning", lifespan="off")
