"""The page's server: on loopback alone, for this machine's own names alone, and it only answers questions."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

from aiohttp import web

from recipes.errors import UsageError
from runners.ongoing.overview import overview
from runners.ongoing.reader import Reader
from runners.run_folder import RUN_ID
from runners.watch_page.feed import Feed, running
from runners.watch_page.peer import may_ask

_ADDRESS = "127.0.0.1"
_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""Another name that leads here is somebody's who would have a browser read this page for him (DNS rebinding)."""
_PORT = re.compile(r":\d+\Z")
_GRACE_S = 0.3
_HERE = Path(__file__).parent
_SHARED = _HERE.parent / "web"
_FILES = {
    "/": (_HERE / "watch.html", "text/html"),
    "/watch.js": (_HERE / "watch.js", "text/javascript"),
    "/watch.css": (_HERE / "watch.css", "text/css"),
    "/base.css": (_SHARED / "base.css", "text/css"),
    "/page.js": (_SHARED / "page.js", "text/javascript"),
}
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A report brings what it needs with it, and says itself which scripts. In an origin of its own it can ask nothing here.
_REPORT_CSP = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "sandbox allow-scripts allow-downloads allow-popups allow-modals"
)
_HEADERS = {
    "Content-Security-Policy": _CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def serve(reader: Reader, home: Path, tell: Callable[[str], None], *, port: int, any_port: bool) -> None:
    """Until Ctrl-C; `tell` hears the address. `any_port`: where this one is taken, a free one will do.

    Raises UsageError if the port cannot be had.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    feed = Feed(lambda: overview(reader.read()))
    runner = web.AppRunner(application(feed, home), access_log=None, shutdown_timeout=_GRACE_S)
    await runner.setup()
    try:
        url = f"http://{_ADDRESS}:{await _bound(runner, port, any_port=any_port)}/"
        async with running(feed):
            tell(url)
            await stop.wait()
    finally:
        await runner.cleanup()


async def _bound(runner: web.AppRunner, port: int, *, any_port: bool) -> int:
    """The port that is listened on."""
    try:
        await web.TCPSite(runner, _ADDRESS, port).start()
    except OSError as error:
        if any_port and error.errno == errno.EADDRINUSE:
            return await _bound(runner, 0, any_port=False)
        why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be had: {os.strerror(error.errno or 0)}"
        raise UsageError(f"port {port} {why}", advice="recipe watch --web 0 takes a free one") from error
    return int(runner.addresses[0][1])


def application(feed: Feed, home: Path) -> web.Application:
    """What is answered."""
    app = web.Application(middlewares=[_guarded])

    async def state(_: web.Request) -> web.StreamResponse:
        return web.Response(text=await feed.now(), content_type="application/json")

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={**_HEADERS, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        with suppress(ConnectionError):
            await response.write(b"retry: 1000\n\n")
            async with feed.listening() as texts:
                async for text in texts:
                    await response.write(f"data: {text}\n\n".encode())
        return response

    async def report(request: web.Request) -> web.StreamResponse:
        path = report_of(home, request.match_info["run_id"])
        if path is None:
            raise web.HTTPNotFound(text="this run has no report\n")
        response = web.FileResponse(path)
        response.content_type, response.charset = "text/html", "utf-8"
        response.headers["Content-Security-Policy"] = _REPORT_CSP
        return response

    for route in _FILES:
        app.router.add_get(route, _file)
    app.router.add_get("/state.json", state)
    app.router.add_get("/events", events)
    app.router.add_get("/runs/{run_id}/report.html", report)
    return app


async def _file(request: web.Request) -> web.StreamResponse:
    path, kind = _FILES[request.path]
    return web.Response(body=path.read_bytes(), content_type=kind, charset="utf-8")


def report_of(home: Path, run_id: str) -> Path | None:
    """The report of a run of this home; None for what is no run's id, and for a link that leads out of its folder."""
    if not RUN_ID.fullmatch(run_id) or "/" in run_id or "\\" in run_id:
        return None
    path = home / "runs" / run_id / "report.html"
    runs = (home / "runs").resolve()
    return path if path.is_file() and path.resolve().parent.parent == runs else None


@web.middleware
async def _guarded(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Refuses what no page of this machine asks; every answer says what a browser may do with it."""
    if _PORT.sub("", request.headers.get("Host", "")) not in _NAMES:
        return _refused(HTTPStatus.MISDIRECTED_REQUEST, f"ask for http://{_ADDRESS}/ or http://localhost/\n")
    if (ends := _ends(request)) and not may_ask(*ends):
        return _refused(HTTPStatus.FORBIDDEN, "this page is another user's\n")
    if request.method != "GET":
        return _refused(HTTPStatus.METHOD_NOT_ALLOWED, "this page can only be read\n", Allow="GET")
    try:
        response = await handler(request)
    except web.HTTPException as error:
        response = _refused(HTTPStatus(error.status), error.text or error.reason)
    if not response.prepared:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
    return response


def _ends(request: web.Request) -> tuple[tuple[str, int], tuple[str, int]] | None:
    """The connection's two ends, the asker's first; None if it is closed already."""
    transport = request.transport
    ends = [transport.get_extra_info(name) for name in ("peername", "sockname")] if transport else []
    return (ends[0], ends[1]) if all(ends) and ends else None


def _refused(status: HTTPStatus, text: str, **headers: str) -> web.Response:
    return web.Response(status=status, text=text, headers={**_HEADERS, **headers})
