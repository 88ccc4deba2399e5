"""Metrics pages over HTTP: one for each address that the recipes name, for as long as the command lasts."""

from __future__ import annotations

import errno
import os
import statistics
import threading
import time
from collections import deque
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from socket import AF_INET6, SOCK_STREAM, getaddrinfo
from socketserver import TCPServer
from typing import Any

from recipes.errors import UsageError
from runners.metrics.exposed import KEPT_S, ExposedRun

_PATH = "/metrics"
_ABOUT = b"The runs of a recipe command, for Prometheus: /metrics\n"
_REQUEST_S = 10.0
_LATE_S = 2.0
"""By how much a scrape may come late where there is much to do; usually nobody waits so long."""
_LONGEST_WAIT_S = 22.0
"""For the last scrape. Who comes less often than that does not ask for the last seconds."""


class MetricsPage:
    """Serves from its making on; in threads that end with the process."""

    def __init__(self, address: str, port: int) -> None:
        """Raises UsageError if nothing can be served there."""
        self.runs: list[ExposedRun] = []
        self._scraped: deque[float] = deque(maxlen=4)
        self._again = threading.Condition()
        try:
            self._server = _server(address, port, partial(_Handler, self))
        except OSError as error:
            raise _cannot_serve(address, port, error) from error
        self.address, self.port = address, int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True, name="metrics").start()

    @property
    def target(self) -> str:
        """Where Prometheus on this machine finds it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.address, self.address)  # noqa: S104 (asked for by the user)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.target}{_PATH}"

    def text(self) -> bytes:
        from runners.metrics.page import text_of

        now = time.time()
        for run in list(self.runs):  # others may be added meanwhile
            if run.ended_at is not None and now - run.ended_at >= KEPT_S:
                with suppress(ValueError):
                    self.runs.remove(run)
        return text_of(run.read() for run in list(self.runs))

    def scraped(self, began: float) -> None:
        """Somebody has had the page, as it was at a moment of the monotonic clock."""
        with self._again:
            self._scraped.append(began)
            self._again.notify_all()

    @property
    def wait_s(self) -> float:
        """How long the next scrape may take, by those before; 0 if none is to be expected."""
        times = sorted(self._scraped)
        if len(times) < 2:
            return 0.0
        usual_s = statistics.median(b - a for a, b in pairwise(times))
        due_s = times[-1] + 1.5 * usual_s + _LATE_S - time.monotonic()
        return due_s if 0 < due_s <= _LONGEST_WAIT_S else 0.0

    def wait_for_scrape(self, seconds: float) -> None:
        """Return when somebody has had the page as it is now, or later."""
        now = time.monotonic()
        with self._again:
            self._again.wait_for(lambda: self._scraped[-1] >= now, seconds)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Answers GET /metrics; says nothing on the terminal."""

    timeout = _REQUEST_S
    server_version, sys_version = "recipe", ""

    def __init__(self, page: MetricsPage, *arguments: Any) -> None:
        self._page = page
        super().__init__(*arguments)

    def do_GET(self) -> None:
        from runners.metrics.page import CONTENT_TYPE

        path, began = self.path.partition("?")[0], time.monotonic()
        if path == _PATH:
            self._answer(200, CONTENT_TYPE, self._page.text())
            if self.command == "GET":
                self._page.scraped(began)
        elif path == "/":
            self._answer(200, "text/plain; charset=utf-8", _ABOUT)
        else:
            self._answer(404, "text/plain; charset=utf-8", b"there is /metrics\n")

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        with suppress(ConnectionError, TimeoutError):
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody asked."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """HTTPServer's own asks the name service for this machine's name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, *_: object) -> None:
        """A client that went away is no news."""


class _Server6(_Server):
    address_family = AF_INET6


def _server(address: str, port: int, handler: Any) -> _Server:
    family = getaddrinfo(address, port, type=SOCK_STREAM)[0][0]
    return (_Server6 if family == AF_INET6 else _Server)((address, port), handler)


def _cannot_serve(address: str, port: int, error: OSError) -> UsageError:
    advice = {
        errno.EADDRINUSE: "another program has it, perhaps another recipe; --metrics-port 0 takes any that is free",
        errno.EACCES: "ports below 1024 are for root; --metrics-port 0 takes any that is free",
    }.get(error.errno or 0, "metrics.address is one of this machine's own, such as 127.0.0.1 or 0.0.0.0")
    what = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
    return UsageError(f"metrics: {address}:{port} can't be served: {what}", advice=advice)
