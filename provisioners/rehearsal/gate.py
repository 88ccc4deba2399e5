"""What stands before every handler: keys, faults of the API as a whole, and the form of refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from provisioners.rehearsal.account import Account, Caller
from provisioners.rehearsal.faults import RequestKind
from provisioners.rehearsal.problems import AnswerLost, Problem
from provisioners.rehearsal.rest import CALLER

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_HTML = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\r\n"
_TIMED = {"revoke_key_after_s", "down_from_s", "down_for_s"}


class Gate:
    """Lets requests in."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._clock = account.shop.clock
        self._set_at = self._clock.now()
        self._requests = 0
        self._site: web.TCPSite | None = None
        self._outage: asyncio.Task[None] | None = None
        self._opened = False

    async def open(self, runner: web.AppRunner, host: str, port: int) -> int:
        """Listen; returns the port."""
        self._runner, self._host = runner, host
        await self._listen(port)
        self._opened = True
        self._plan_outage()
        return self._port

    async def close(self) -> None:
        self._opened = False
        if self._outage is not None:
            self._outage.cancel()
            await asyncio.gather(self._outage, return_exceptions=True)
        await self._hang_up()

    def faults_changed(self, changes: Mapping[str, Any]) -> None:
        """Time-based faults that were set count from now."""
        if "revoke_key_after_requests" in changes:
            self._requests = 0
        if _TIMED & set(changes):
            self._set_at = self._clock.now()
            if self._opened:
                self._plan_outage()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if not request.path.startswith("/rehearsal/"):
                await self._meet_faults(request)
            request[CALLER] = caller = self._caller(request)
            if caller.pod is None and not request.path.startswith("/rehearsal/"):
                self._account.requests[f"{request.method} {request.path}"] += 1
            return await handler(request)
        except Problem as problem:
            return refusal(problem)
        except AnswerLost:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)
        except web.HTTPBadGateway:
            raise
        except web.HTTPException as error:
            return refusal(Problem(error.status, error.reason, headers=_allow(error)))

    async def _meet_faults(self, request: web.Request) -> None:
        """Raises Problem, AnswerLost, or an answer of its own."""
        mishaps = self._account.mishaps
        faults = mishaps.faults
        if self._is_down():
            if faults.down_how == "refuse":
                raise AnswerLost("down")
            raise Problem(503, "service unavailable")
        await self._clock.sleep(faults.answer_delay_s)
        if mishaps.due("answer_429"):
            raise Problem(429, "rate limit exceeded", headers={"Retry-After": str(faults.retry_after_s)})
        if faults.gone_410:
            raise Problem(410, "this version of the API has been retired")
        if faults.html_502_kind in ("any", kind_of(request)) and mishaps.due("html_502"):
            raise web.HTTPBadGateway(text=_HTML, content_type="text/html")

    def _caller(self, request: web.Request) -> Caller:
        """Raises Problem 401, and 403 for a pod that wants to read."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if request.path == "/graphql" and "api_key" in request.query:
            scheme, key = "bearer", request.query["api_key"]
        if scheme.lower() != "bearer" or not key:
            raise Problem(401, "missing bearer token")
        caller = self._account.caller(key)
        if caller is None or (caller.pod is None and self._revoked(request)):
            raise Problem(401, "invalid bearer token")
        if caller.pod is not None and not may_act(request):
            raise Problem(403, "access denied")
        return caller

    def _revoked(self, request: web.Request) -> bool:
        faults = self._account.mishaps.faults
        if request.path.startswith("/rehearsal/"):
            return False
        self._requests += 1
        if faults.revoke_key_after_requests is not None and self._requests > faults.revoke_key_after_requests:
            return True
        seconds = faults.revoke_key_after_s
        return seconds is not None and not self._clock.lasts(seconds, self._set_at)

    def _is_down(self) -> bool:
        faults = self._account.mishaps.faults
        if faults.down_from_s is None:
            return False
        since = self._clock.since(self._set_at) - faults.down_from_s
        return since >= 0 and (faults.down_for_s < 0 or since < faults.down_for_s)

    def _plan_outage(self) -> None:
        if self._outage is not None:
            self._outage.cancel()
            self._outage = None
        faults = self._account.mishaps.faults
        if self._site is None or faults.down_from_s is not None:
            self._outage = asyncio.get_running_loop().create_task(self._go_down_and_up())

    async def _go_down_and_up(self) -> None:
        """Connections are refused for as long as a fault says so."""
        faults = self._account.mishaps.faults
        if faults.down_from_s is not None and faults.down_how == "refuse":
            await self._clock.sleep(max(0.0, faults.down_from_s - self._clock.since(self._set_at)))
            await self._hang_up()
            if faults.down_for_s < 0:
                return
            end = faults.down_from_s + faults.down_for_s
            await self._clock.sleep(max(0.0, end - self._clock.since(self._set_at)))
        if self._site is None:
            await self._listen(self._port)

    async def _listen(self, port: int) -> None:
        site = web.TCPSite(self._runner, self._host, port, reuse_address=True)
        await site.start()
        self._port = int(self._runner.addresses[0][1])
        self._site = site

    async def _hang_up(self) -> None:
        site, self._site = self._site, None
        if site is not None:
            await site.stop()


def refusal(problem: Problem) -> web.Response:
    return web.json_response(
        problem.to_json(), status=problem.status, headers=problem.headers, content_type="application/problem+json"
    )


def may_act(request: web.Request) -> bool:
    """Whether a request is of a kind that a pod's own key may make at all."""
    path, method = request.path, request.method
    if path == "/graphql":
        return True
    acting = method == "POST" and path.endswith("/action")
    return path.startswith("/v2/pods/") and (acting or (method == "DELETE" and path.count("/") == 3))


def kind_of(request: web.Request) -> RequestKind:
    """What a request is, in the words of the faults."""
    path, method = request.path, request.method
    if path == "/graphql":
        return "graphql"
    if path == "/v2/pods":
        return "create" if method == "POST" else "list"
    if path.startswith("/v2/pods/"):
        return "delete" if method == "DELETE" else "action" if path.endswith("/action") else "get"
    if path.startswith("/v2/catalog/"):
        return "catalog"
    return "billing" if path.startswith("/v2/billing/") else "other"


def _allow(error: web.HTTPException) -> dict[str, str]:
    return {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
