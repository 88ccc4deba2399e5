"""An engine double: an OpenAI-compatible server on loopback that answers by a function, and fails where it is told to.

The wire is that of vLLM and llama.cpp: server-sent events, the usage in the last of them, their words for an error.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self

from aiohttp import web


@dataclass(frozen=True)
class Refuse:
    """An HTTP status instead of an answer; `body`, if given, is sent as it stands."""

    status: int
    message: str = "not now"
    retry_after: str | None = None
    body: bytes | None = None


@dataclass(frozen=True)
class Say:
    """An answer other than the function's."""

    text: str
    finish_reason: str = "stop"


@dataclass(frozen=True)
class SendEvent:
    """An event of this content after the first piece of the answer, and then the end."""

    data: str


class Break(Enum):
    """Ways to leave a client without an answer."""

    RESET = "the connection is reset before the answer"
    CUT = "the connection is closed after the first piece"
    UNFINISHED = "the stream ends well, but without a finish_reason"
    HANG = "nothing ever comes"


Fault = Refuse | Say | SendEvent | Break

VLLM_CONTEXT = Refuse(
    400,
    "This model's maximum context length is 2048 tokens. However, your prompt contains at least 2049 input tokens",
)
LLAMACPP_CONTEXT = Refuse(400, "request (6002 tokens) exceeds the available context size (2048 tokens)")


@contextmanager
def beside(double: EngineDouble) -> Iterator[asyncio.AbstractEventLoop]:
    """The double in a thread of its own, for a test that waits for other processes; gives its event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(double.__aenter__(), loop).result(60)
        try:
            yield loop
        finally:
            asyncio.run_coroutine_threadsafe(double.__aexit__(), loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def error_event(message: str, code: int = 500) -> SendEvent:
    """An error as engines report it once a stream has begun."""
    return SendEvent(_error(message, code))


def first_sentence(text: str) -> str:
    """The text up to its first full stop."""
    return re.split(r"(?<=\.)\s", text.strip(), maxsplit=1)[0]


@dataclass
class Asked:
    """One request, and the moments at which it came and its pieces went, on time.monotonic's clock."""

    path: str
    prompt: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    at: float = field(default_factory=time.monotonic)
    sent_at: list[float] = field(default_factory=list)


@dataclass(kw_only=True)
class EngineDouble:
    """`async with EngineDouble(…) as engine`: listens at `engine.url` until it is left."""

    answer: Callable[[str], str] = first_sentence
    faults: Mapping[int, Fault] = field(default_factory=dict)
    """By the number of the completion request, from 1."""
    model: str | None = "double"
    """The served name; without one there is no /v1/models."""
    key: str | None = None
    usage: bool = True
    prompt_pause_s: float = 0.0
    piece_pause_s: float = 0.0
    close_after_answer: bool = False
    """Close each connection once its answer is sent, unannounced."""
    drop_kept: bool = False
    """Close a kept connection when the next request comes in on it, as if it had been closed meanwhile."""

    url: str = field(default="", init=False)
    asked: list[Asked] = field(default_factory=list, init=False)
    dropped: int = field(default=0, init=False)
    running: int = field(default=0, init=False)
    most_running: int = field(default=0, init=False)
    gate: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    """Answers wait while it is cleared; open at first."""

    async def __aenter__(self) -> Self:
        self._tokens = {"prompt": 0, "output": 0}
        self._used: list[object] = []
        self._changed, self._ending = asyncio.Condition(), asyncio.Event()
        self.gate.set()
        app = web.Application(client_max_size=2**26)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._complete)
        app.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ending.set()
        self.gate.set()
        await self._runner.cleanup()

    async def until_running(self, count: int) -> None:
        """Returns once so many requests are under way."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.running >= count)

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _metrics(self, _: web.Request) -> web.Response:
        figures = {
            "vllm:prompt_tokens_total": self._tokens["prompt"],
            "vllm:generation_tokens_total": self._tokens["output"],
            "vllm:num_requests_running": self.running,
            "vllm:num_requests_waiting": 0,
            "vllm:kv_cache_usage_perc": min(1.0, self.running / 100),
        }
        return web.Response(text="".join(f'{name}{{engine="0"}} {value}\n' for name, value in figures.items()))

    async def _models(self, _: web.Request) -> web.Response:
        if self.model is None:
            raise web.HTTPNotFound
        return web.json_response({"object": "list", "data": [{"id": self.model, "object": "model"}]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        if self.drop_kept and request.protocol in self._used:
            self.dropped += 1
            return _reset(request)
        self._used.append(request.protocol)
        body = await request.json()
        prompt = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
        asked = Asked(request.path, prompt, body, dict(request.headers))
        self.asked.append(asked)
        fault = self.faults.get(len(self.asked))
        await self._count(+1)
        try:
            await self.gate.wait()
            return await self._serve(request, asked, fault)
        finally:
            await self._count(-1)

    async def _serve(self, request: web.Request, asked: Asked, fault: Fault | None) -> web.StreamResponse:
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            fault = Refuse(401, "Unauthorized")
        if fault is Break.RESET:
            return _reset(request)
        if fault is Break.HANG:
            await self._ending.wait()
            return _reset(request)
        if isinstance(fault, Refuse):
            headers = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
            content = fault.body if fault.body is not None else _error(fault.message, fault.status).encode()
            return web.Response(status=fault.status, body=content, headers=headers, content_type="application/json")
        said = fault if isinstance(fault, Say) else Say(self.answer(asked.prompt))
        return await self._stream(request, asked, said, fault)

    async def _stream(self, request: web.Request, asked: Asked, said: Say, fault: Fault | None) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await asyncio.sleep(self.prompt_pause_s)
        await response.prepare(request)
        chat = asked.path.endswith("/chat/completions")
        usage: dict[str, Any] = {
            "prompt_tokens": len(asked.prompt.split()),  # a word is the double's token
            "completion_tokens": len(said.text.split()),
            "prompt_tokens_details": None,
        }
        self._tokens["prompt"] += usage["prompt_tokens"]
        for number, piece in enumerate(re.findall(r"\s*\S+|\s+$", said.text)):
            if number:
                await asyncio.sleep(self.piece_pause_s)
            await _send(response, {"choices": [_choice(piece, None, chat=chat)], "usage": None})
            asked.sent_at.append(time.monotonic())
            self._tokens["output"] += 1
            if fault is Break.CUT and request.transport is not None:
                request.transport.close()
                return response
            if isinstance(fault, SendEvent):
                await _send(response, fault.data)
                return response
        if fault is not Break.UNFINISHED:
            await _send(response, {"choices": [_choice("", said.finish_reason, chat=chat)]})
        if self.usage and asked.body.get("stream_options", {}).get("include_usage"):
            await _send(response, {"choices": [], "usage": usage})
        await _send(response, "[DONE]")
        await response.write_eof()
        if self.close_after_answer and request.transport is not None:
            request.transport.close()
        return response

    async def _count(self, change: int) -> None:
        async with self._changed:
            self.running += change
            self.most_running = max(self.most_running, self.running)
            self._changed.notify_all()


def _choice(text: str, finish_reason: str | None, *, chat: bool) -> dict[str, Any]:
    content: dict[str, Any] = {"delta": {"content": text}} if chat else {"text": text}
    return {"index": 0, **content, "finish_reason": finish_reason}


async def _send(response: web.StreamResponse, data: str | dict[str, Any]) -> None:
    text = data if isinstance(data, str) else json.dumps(data)
    await response.write(f"data: {text}\n\n".encode())


def _error(message: str, code: int) -> str:
    return json.dumps({"error": {"message": message, "type": "error", "param": None, "code": code}})


def _reset(request: web.Request) -> web.Response:
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return web.Response()
