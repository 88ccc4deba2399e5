"""A pod's log as Server-Sent Events."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime

from aiohttp import web

from provisioners.rehearsal.pods import LogLine, Pod
from provisioners.rehearsal.problems import Checks

_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    "Connection": "keep-alive",
    "X-Accel-Buffering": "no",
}


async def stream(request: web.Request, pod: Pod) -> web.StreamResponse:
    """Lines that were said, then those to come, until the pod is gone or the client leaves. Raises Problem 422."""
    source = request.query.get("source")
    number = _start(request, pod)
    response = web.StreamResponse(headers=_HEADERS)
    await response.prepare(request)
    with suppress(ConnectionResetError):
        while True:
            for line in pod.said_after(number):
                number = line.number
                if source in (None, line.source):
                    await response.write(_event(line))
            async with pod.said:
                if pod.gone.is_set():
                    break
                if not pod.lines or pod.lines[-1].number <= number:
                    await pod.said.wait()
    return response


def _start(request: web.Request, pod: Pod) -> int:
    """The number of the last line that is not sent."""
    checks = Checks()
    if "source" in request.query:
        checks.one_of("source", request.query["source"], ("container", "system"))
    given = request.query.get("tail", "100")
    if not given.isdigit() or int(given) > 5000:
        checks.errors.append("tail: must be an integer from 0 to 5000")
    since = request.headers.get("Last-Event-ID") or request.query.get("since")
    instant = _instant(since.partition("/")[0], checks) if since else None
    checks.raise_if_wrong()
    if instant is not None:
        # Stamps are compared as they are shown: in whole seconds of one form.
        return max((line.number for line in pod.lines if datetime.fromisoformat(line.ts) <= instant), default=0)
    source = request.query.get("source")
    numbers = [line.number for line in pod.lines if source in (None, line.source)]
    last = pod.lines[-1].number if pod.lines else 0
    tail = int(given)
    return last if tail == 0 else numbers[-tail] - 1 if len(numbers) >= tail else 0


def _instant(text: str, checks: Checks) -> datetime | None:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        checks.errors.append("since: must be an RFC 3339 time")
        return None
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant


def _event(line: LogLine) -> bytes:
    data = json.dumps({"ts": line.ts, "source": line.source, "line": line.line})
    return f"id: {line.ts}\ndata: {data}\n\n".encode()
