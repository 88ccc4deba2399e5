"""RunPod as it is told to be: a server that answers from a script, and a cloud in memory that goes wrong on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from provisioners.providers.runpod.answers import ApiError, NotFound
from provisioners.providers.runpod.cloud import Wish
from provisioners.providers.runpod.pace import PACE
from provisioners.providers.runpod.values import BillingRecord, CloudName, Gpu, NetworkVolume, Pod

KEY = "rpa_THEKEYTHATNOBODYMAYSEE"
# Letting go may take as long as a busy machine needs.
QUICK = replace(PACE.scaled(0.01), release_s=60.0)
NAME = "recipe-ana-test-20261121-051200-9f3a-60m"


@dataclass
class Script:
    """Answers requests in turn; the last answer is given again. An answer is (status, JSON or text, headers)."""

    answers: list[Any]
    asked: list[web.Request] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        text = await request.text()
        self.bodies.append(json.loads(text) if text else None)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer == "hang up":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if answer == "silence":
            await asyncio.sleep(3600)
        if callable(answer):
            return await answer(request)
        status, content, *headers = answer
        if isinstance(content, str):
            return web.Response(status=status, text=content, headers=headers[0] if headers else None)
        return web.json_response(content, status=status, headers=headers[0] if headers else None)

    @property
    def lines(self) -> list[str]:
        return [f"{request.method} {request.path_qs}" for request in self.asked]


@asynccontextmanager
async def serving(*answers: Any) -> AsyncIterator[Script]:
    script = Script(list(answers))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", script.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    script.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/v2"
    try:
        yield script
    finally:
        await runner.cleanup()


def pod_json(**changes: Any) -> dict[str, Any]:
    """A pod as the API describes it."""
    pod = {
        "id": "pod1",
        "name": NAME,
        "status": "RUNNING",
        "cost": 3.58,
        "gpu": {"id": "NVIDIA A100 80GB PCIe", "count": 2},
        "cloud": "SECURE",
        "dataCenterId": "US-KS-2",
        "image": "runpod/pytorch",
        "env": {"HF_TOKEN": "hf_secret"},
        "ssh": {"proxy": None, "direct": {"host": "10.0.0.1", "port": 2222, "username": "root", "command": "ssh"}},
        "runtime": {"ports": [{"private": 22, "public": 2222, "type": "tcp", "ip": "10.0.0.1"}]},
        "createdAt": "2026-11-21T05:12:03Z",
    }
    return {**pod, **changes}


def wish(**changes: Any) -> Wish:
    asked: dict[str, Any] = {
        "name": NAME,
        "image": "image",
        "gpu_id": "NVIDIA A40",
        "gpu_count": 1,
        "cloud": "secure",
        "disk_gb": 20,
        "args": "sh -c 'true'",
        "env": {"PUBLIC_KEY": "ssh-ed25519 AAAA", "HF_TOKEN": "hf_secret_value"},
    }
    return Wish(**{**asked, **changes})


Trouble = ApiError | Callable[[], None] | None


@dataclass
class CloudDouble:
    """Implements Cloud in memory. `trouble` is by method, in turn: an error to raise before it does anything.

    `after` is the same, raised after it was done. Pods that a list or a read should not show are in `hidden`.
    """

    running: dict[str, Pod] = field(default_factory=dict)
    trouble: dict[str, list[Trouble]] = field(default_factory=dict)
    after: dict[str, list[Trouble]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    hidden_from_lists: set[str] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)
    create_blocks: asyncio.Event | None = None
    scarce_s: float = 0.0
    deaf: int = 0
    """So many accepted ends do nothing."""
    on_call: Callable[[str], None] = lambda call: None

    def add(self, pod_id: str, name: str = NAME, status: str = "RUNNING") -> Pod:
        self.running[pod_id] = Pod(id=pod_id, name=name, status=status, cost_usd_per_h=1.0)
        return self.running[pod_id]

    async def create(self, asked: Wish) -> Pod:
        self._stumble("create", self.trouble)
        pod = self.add(f"made{len([c for c in self.calls if c == 'create'])}", asked.name, "PROVISIONING")
        if self.create_blocks is not None:
            await self.create_blocks.wait()
        self._stumble("create", self.after, count=False)
        return pod

    async def pods(self, *, again_s: float | None = None) -> list[Pod]:
        self._stumble("pods", self.trouble)
        return [pod for pod in self.running.values() if pod.id not in self.hidden_from_lists]

    async def pod(self, pod_id: str, *, again_s: float | None = None) -> Pod:
        self._stumble("pod", self.trouble)
        if pod_id not in self.running or pod_id in self.unreadable:
            raise NotFound(f"GET {pod_id} → 404", short="404")
        return self.running[pod_id]

    async def end(self, pod_id: str) -> None:
        self._stumble("end", self.trouble)
        if pod_id not in self.running:
            raise NotFound(f"DELETE {pod_id} → 404", short="404")
        if self.deaf:
            self.deaf -= 1
            return
        del self.running[pod_id]
        self._stumble("end", self.after, count=False)

    async def gpus(self, *, count: int, cloud: CloudName, spot: bool = False) -> Sequence[Gpu]:
        raise NotImplementedError

    async def volumes(self, *, again_s: float | None = None) -> Sequence[NetworkVolume]:
        raise NotImplementedError

    async def log_tail(self, pod_id: str, lines: int) -> list[str]:
        return ["exec: no such file"]

    async def billing(self, pod_id: str) -> Sequence[BillingRecord]:
        raise NotImplementedError

    def count(self, call: str) -> int:
        return self.calls.count(call)

    def _stumble(self, call: str, troubles: Mapping[str, list[Trouble]], *, count: bool = True) -> None:
        if count:
            self.calls.append(call)
            self.on_call(call)
        waiting = troubles.get(call)
        if not waiting:
            return
        trouble = waiting[0] if len(waiting) == 1 and getattr(waiting[0], "stays", False) else waiting.pop(0)
        if isinstance(trouble, ApiError):
            raise trouble
        if trouble is not None:
            trouble()


def always(error: ApiError) -> list[Trouble]:
    """The same trouble, however often."""
    error.stays = True  # type: ignore[attr-defined]
    return [error]
