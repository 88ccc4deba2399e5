"""What a test or a person asks the emulator itself: the ledger, other faults, mishaps of one pod."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from aiohttp import web

from provisioners.rehearsal.account import Account
from provisioners.rehearsal.pods import ORDERS, Pod
from provisioners.rehearsal.problems import Problem
from provisioners.rehearsal.rest import json_body


class Control:
    """The handlers of /rehearsal; they know no faults and need the account's key."""

    def __init__(self, account: Account, inject: Callable[..., None]) -> None:
        self._account, self._inject = account, inject

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/rehearsal/ledger", self.ledger),
            web.get("/rehearsal/requests", self.requests),
            web.get("/rehearsal/faults", self.faults),
            web.post("/rehearsal/faults", self.change_faults),
            web.get("/rehearsal/pods/{id}", self.pod),
            web.post("/rehearsal/pods/{id}/{mishap}", self.mishap),
        ]

    async def ledger(self, request: web.Request) -> web.Response:
        return web.json_response(self._account.shop.ledger.to_json())

    async def requests(self, request: web.Request) -> web.Response:
        """How often each was asked with the account's key: what only looks has asked nothing but GET."""
        return web.json_response(dict(self._account.requests))

    async def faults(self, request: web.Request) -> web.Response:
        return web.json_response(asdict(self._account.mishaps.faults))

    async def change_faults(self, request: web.Request) -> web.Response:
        """The body holds the fields to change; what is not named stays."""
        body = await json_body(request)
        if not isinstance(body, dict):
            raise Problem(422, "faults are a JSON object")
        try:
            self._inject(**body)
        except ValueError as error:
            raise Problem(422, str(error)) from None
        return await self.faults(request)

    async def pod(self, request: web.Request) -> web.Response:
        """What only the emulator knows of a pod: its processes and folder on this machine."""
        pod = self._pod(request)
        processes = {str(pid): name for pid, name in pod.processes().items()}
        known: dict[str, Any] = {"id": pod.id, "status": pod.status, "pid": pod.pid, "processes": processes}
        return web.json_response({**known, "dir": str(pod.dir)})

    async def mishap(self, request: web.Request) -> web.Response:
        pod, mishap = self._pod(request), request.match_info["mishap"]
        if mishap == "preempt":
            await pod.stop()
        elif mishap in ORDERS:
            pod.order(ORDERS[mishap])
        else:
            raise Problem(404, "a pod can be made to preempt, restart, freeze, cut, rekey")
        return web.Response(status=204)

    def _pod(self, request: web.Request) -> Pod:
        pod = self._account.pods.get(request.match_info["id"])
        if pod is None or pod.gone.is_set():
            raise Problem(404, "pod not found")
        return pod
