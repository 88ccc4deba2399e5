"""The wire of the slots double: OpenAI's API over HTTP/1.1, with as little work per token as can be; see slots.py."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from typing import Any

from tests.emulators.slots_engine import MODEL, Asked, Settings, Slots

_SYLLABLES = ("ba", "de", "fi", "ko", "lu", "mar", "nes", "or", "pal", "qui", "ras", "sol", "tem", "ur", "vin", "zet")
WORDS = tuple(a + b for a in _SYLLABLES for b in _SYLLABLES)
"""What answers are made of: 256 words, each a token of this engine."""


class Wire(asyncio.Protocol):
    """One connection: HTTP/1.1, one request after the other."""

    def __init__(self, engine: Slots) -> None:
        self._engine = engine
        self._buffer = bytearray()
        self._began_s = 0.0
        self._wanted = 0
        """Bytes until the request that is coming in is whole; 0 while its header is not."""
        self._asked: Asked | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        if self._asked:
            self._engine.forget(self._asked)

    def data_received(self, data: bytes) -> None:
        if not self._buffer:
            self._began_s = time.monotonic()
        self._buffer += data
        if self._asked is None:
            self._next()

    def _next(self) -> None:
        """Take the next request out of the buffer, once it is whole."""
        if len(self._buffer) < self._wanted:
            return
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end]).split(b"\r\n")
        fields = {k.strip().lower(): v.strip() for k, _, v in (line.partition(b":") for line in head[1:])}
        length = int(fields.get(b"content-length", b"0"))
        self._wanted = end + 4 + length
        if len(self._buffer) < self._wanted:
            if fields.get(b"expect", b"").lower() == b"100-continue":
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            return
        body = bytes(self._buffer[end + 4 : self._wanted])
        del self._buffer[: self._wanted]
        self._wanted = 0
        method, path = head[0].split(b" ")[:2]
        self._handle(method.decode(), path.decode().partition("?")[0], fields, body)

    def _handle(self, method: str, path: str, fields: dict[bytes, bytes], body: bytes) -> None:
        engine = self._engine
        key = engine.settings.key
        if key and path.startswith("/v1/") and fields.get(b"authorization") != f"Bearer {key}".encode():
            self._answer(401, error("Unauthorized", 401))
        elif method == "POST" and path in ("/v1/completions", "/v1/chat/completions"):
            self._complete(path, body)
        elif path == "/health":
            self._answer(200, b"")
        elif path == "/metrics" and engine.settings.metrics != "none":
            self._answer(200, engine.metrics().encode(), "text/plain; version=0.0.4")
        elif path == "/v1/models":
            self._answer(200, _json({"object": "list", "data": [{"id": MODEL, "object": "model"}]}))
        elif path == "/requests":
            self._answer(200, _json({"requests": [asked.row() for asked in engine.asked], "refused": engine.refused}))
        elif method == "POST" and path == "/reset":
            engine.reset()
            self._answer(200, b"{}")
        elif method == "POST" and path == "/admit":
            engine.admit(json.loads(body))
            self._answer(200, b"{}")
        else:
            self._answer(404, error("Not Found", 404))

    def _complete(self, path: str, body: bytes) -> None:
        try:
            asked = self._understood(path, json.loads(body))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as problem:
            return self._answer(400, error(f"not understood: {problem!r}", 400))
        if self._engine.full():
            return self._answer(429, error("too many requests", 429))
        self._asked = asked
        if asked.stream:
            self._transport.write(_STREAM_HEAD)
        self._engine.submit(asked)
        return None

    def _understood(self, path: str, body: dict[str, Any]) -> Asked:
        chat = path.endswith("/chat/completions")
        prompt = json.dumps(body["messages"], ensure_ascii=False) if chat else body["prompt"]
        digest = hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        words, finish_reason = answer_of(digest, body, self._engine.settings)
        return Asked(
            line=self,
            digest=digest,
            prompt_tokens=max(1, len(prompt) // 4),
            words=words,
            finish_reason=finish_reason,
            chat=chat,
            stream=bool(body.get("stream")),
            usage=bool((body.get("stream_options") or {}).get("include_usage")),
            arrived_s=self._began_s,
            complete_s=time.monotonic(),
        )

    def close(self) -> None:
        self._transport.abort()

    def send(self, asked: Asked, words: bytes, *, last: bool) -> None:
        """The next words of an answer, and its end if they are the last."""
        if not asked.stream:
            if last:
                self._answer(200, _whole(asked))
                self._asked = None
                self._next()
            return
        pieces = _CHAT_PIECES if asked.chat else _TEXT_PIECES
        block = [pieces[word] for word in words]
        if last:
            block.append(_ends(asked))
        self._transport.write(b"".join(block))
        if last:
            self._asked = None
            self._next()

    def _answer(self, status: int, body: bytes, kind: str = "application/json") -> None:
        wait = "Retry-After: 1\r\n" if status == 429 else ""
        head = f"HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\n{wait}Content-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)


def answer_of(digest: str, body: dict[str, Any], settings: Settings) -> tuple[bytes, str]:
    """The words of an answer and why it ends: a function of the prompt, and of the length that is asked for."""
    chance = random.Random(digest)
    wanted = max(1, round(settings.tokens * (1 + settings.spread * (2 * chance.random() - 1))))
    most = body.get("max_completion_tokens") or body.get("max_tokens") or wanted
    if body.get("ignore_eos"):
        wanted = most
    wanted = max(wanted, body.get("min_tokens") or 0)
    return chance.randbytes(min(wanted, most)), "length" if wanted >= most else "stop"


def error(message: str, code: int) -> bytes:
    return _json({"error": {"message": message, "type": "error", "param": None, "code": code}})


def _json(data: object) -> bytes:
    return json.dumps(data).encode()


def _frame(data: bytes) -> bytes:
    """A server-sent event as a chunk of a chunked body (RFC 9112, 7.1)."""
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


def _event(choices: list[dict[str, Any]], usage: dict[str, Any] | None, *, chat: bool) -> bytes:
    kind = "chat.completion.chunk" if chat else "text_completion"
    told = {"id": "cmpl-0123456789abcdef0123456789abcdef", "object": kind, "created": 1767225600, "model": MODEL}
    return _frame(_json({**told, "choices": choices, "usage": usage}))


def _choice(text: str, finish_reason: str | None, *, chat: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"delta": {"content": text}} if chat else {"text": text}
    return {"index": 0, **said, "logprobs": None, "finish_reason": finish_reason, "stop_reason": None}


def _usage(asked: Asked) -> dict[str, Any]:
    prompt, output = asked.prompt_tokens, len(asked.words)
    return {"prompt_tokens": prompt, "total_tokens": prompt + output, "completion_tokens": output}


def _ends(asked: Asked) -> bytes:
    chat = asked.chat
    usage = _event([], _usage(asked), chat=chat) if asked.usage else b""
    return _event([_choice("", asked.finish_reason, chat=chat)], None, chat=chat) + usage + _DONE


def _whole(asked: Asked) -> bytes:
    text = "".join(f" {WORDS[word]}" for word in asked.words)
    choice = {**_choice(text, asked.finish_reason, chat=False), "message": {"role": "assistant", "content": text}}
    return _json({"id": "cmpl-0", "object": "text_completion", "choices": [choice], "usage": _usage(asked)})


_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_TEXT_PIECES = tuple(_event([_choice(f" {word}", None, chat=False)], None, chat=False) for word in WORDS)
_CHAT_PIECES = tuple(_event([_choice(f" {word}", None, chat=True)], None, chat=True) for word in WORDS)
_DONE = _frame(b"[DONE]") + b"0\r\n\r\n"
