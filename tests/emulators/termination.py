"""What a dead-man switch calls: a small server on loopback that records the calls and answers as it is told."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Call:
    way: str
    """start, terminate, delete or graphql."""
    pod: str
    authorization: str | None


@dataclass
class Termination:
    """Answers by way; the last of a list stays. Whoever is told to hold answers only when the event is set."""

    port: int = 0
    scheme: str = "http"
    answers: dict[str, list[int]] = field(default_factory=dict)
    graphql_errors: bool = False
    holds: dict[str, threading.Event] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    said: threading.Condition = field(default_factory=threading.Condition)

    @property
    def api(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/v2"

    @property
    def graphql(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/graphql"

    def ways(self) -> list[str]:
        return [call.way for call in self.calls]

    def wait_for(self, *ways: str, seconds: float = 120) -> None:
        """Return when each of these ways has been tried, in this order."""

        def tried() -> bool:
            seen = iter(self.ways())
            return all(way in seen for way in ways)

        with self.said:
            assert self.said.wait_for(tried, seconds), f"tried: {self.ways()}"

    def answer(self, way: str) -> int:
        statuses = self.answers.get(way, [409 if way == "start" else 204])
        return statuses.pop(0) if len(statuses) > 1 else statuses[0]

    def record(self, call: Call) -> None:
        with self.said:
            self.calls.append(call)
            self.said.notify_all()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    world: Termination

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)))
        if self.path == "/graphql":
            assert "podTerminate" in body["query"]
            self._answer("graphql", body["variables"]["id"])
        else:
            version, pods, pod, action = self.path.strip("/").split("/")
            assert (version, pods, action) == ("v2", "pods", "action")
            self._answer(body["action"], pod)

    def do_DELETE(self) -> None:
        self._answer("delete", self.path.removeprefix("/v2/pods/"))

    def _answer(self, way: str, pod: str) -> None:
        status = self.world.answer(way)
        self.world.record(Call(way, pod, self.headers["Authorization"]))
        if way in self.world.holds:
            self.world.holds[way].wait(60)
        failed = way == "graphql" and self.world.graphql_errors
        content = json.dumps({"errors": [{"message": "no"}]} if failed else {"data": {}}).encode()
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/v2/elsewhere")
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if status != 204:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def termination(certificate: Path | None = None) -> Iterator[Termination]:
    """The server, with TLS if there is a certificate (and its key in the same file)."""
    world = Termination()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"world": world}))
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        world.scheme = "https"
    world.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield world
    finally:
        for event in world.holds.values():
            event.set()
        server.shutdown()
        server.server_close()
