"""An endpoint in a thread that says what it is told to, for clients that block; it keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NO_TEMPLATE = (
    "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat template"
)


@dataclass
class Parrot:
    """What it says, and what it heard."""

    pieces: Sequence[str] = ("Two", " words")
    models: Sequence[str] = ("double",)
    template: bool = True
    key: str | None = None
    breaks_off: bool = False
    """In the middle of an answer."""
    url: str = ""
    heard: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Path and body of each question."""


@contextmanager
def parrot(**settings: Any) -> Iterator[Parrot]:
    """While entered, it listens at `url`."""
    bird = Parrot(**settings)

    class Handler(_Handler):
        parrot = bird

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        bird.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield bird
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    parrot: Parrot

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing."""

    def do_GET(self) -> None:
        if self._is_let_in():
            self._answer(
                200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.parrot.models]}
            )

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._is_let_in():
            return
        self.parrot.heard.append((self.path, body))
        chat = self.path.endswith("/chat/completions")
        if chat and not self.parrot.template:
            self._answer(400, {"error": {"message": NO_TEMPLATE, "code": 400}})
        elif not body.get("stream"):
            said: dict[str, Any] = {"message": {"role": "assistant", "content": "x"}} if chat else {"text": "x"}
            self._answer(200, {"id": "1", "object": "x", "choices": [{"index": 0, "finish_reason": "length", **said}]})
        else:
            self._stream(chat=chat)

    def _stream(self, *, chat: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        if self.parrot.breaks_off:
            self.send_header("Content-Length", "1000000")
        self.end_headers()
        for piece in self.parrot.pieces:
            said = {"delta": {"content": piece}} if chat else {"text": piece}
            self.wfile.write(f"data: {json.dumps({'choices': [{'index': 0, **said}]})}\n\n".encode())
        if not self.parrot.breaks_off:
            self.wfile.write(b"data: [DONE]\n\n")

    def _is_let_in(self) -> bool:
        if self.parrot.key is None or self.headers["Authorization"] == f"Bearer {self.parrot.key}":
            return True
        self._answer(401, {"error": {"message": "invalid key", "code": 401}})
        return False

    def _answer(self, status: int, data: dict[str, Any]) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
