"""Before the load, the endpoint is checked once through OpenAI's own client, as people's programs will use it.

That client takes half a second to import, so that it lives in a process of its own. Where recipe starts the engine,
the import comes while that loads, and the verdict before the load. An endpoint that is up already is not kept waiting:
recipe's own client looks whether the model is listed and has a token (`launch.until_ready`), and OpenAI's is asked
beside the load, if that takes long enough to be worth it. What it finds is a warning: our client's token has shown
that the load can go on.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from runners.client import Endpoint
from runners.http.errors import HttpFailed
from runners.http.pool import Transport
from runners.launch import Running
from runners.plan import Plan

_PROGRAM = Path(__file__).with_name("openai_check.py")
_PATIENCE_S, _LOOK_S = 15.0, 5.0
WORTH_IT_S = 1.0
"""A load that is over sooner is not disturbed."""


@asynccontextmanager
async def checking(plan: Plan, transport: Transport, warn: Callable[[str], None]) -> AsyncIterator[EndpointCheck]:
    """While entered, a check that can be waited for; what it has begun ends with the block."""
    check = EndpointCheck(plan, transport, warn)
    try:
        if plan.recipe.engine.url is None and plan.recipe.workload.where == "client":
            await check.prepare()
        yield check
    finally:
        await check.close()


class EndpointCheck:
    """One check of one endpoint."""

    def __init__(self, plan: Plan, transport: Transport, warn: Callable[[str], None]) -> None:
        self._plan, self._transport, self._warn = plan, transport, warn
        self._process: Process | None = None
        self._beside: asyncio.Task[None] | None = None

    async def prepare(self) -> None:
        """Begin to import what it needs. A machine that cannot even do that has no check, and its run goes on."""
        with suppress(OSError):
            self._process = await asyncio.create_subprocess_exec(
                # -P: a folder of the user's that is called openai is not what is meant.
                *(sys.executable, "-P", str(_PROGRAM)),
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
            )

    async def before_load(self, running: Running) -> None:
        """The verdict, if the engine is ours; else only what costs nothing, and the rest beside the load."""
        if self._plan.recipe.workload.where != "client":
            return
        if self._process is not None:
            await self._judge(running)
        else:
            await self._look_up(running)
            self._beside = asyncio.create_task(self._later(running))

    async def close(self) -> None:
        if self._beside is not None:
            self._beside.cancel()
            await asyncio.wait([self._beside])
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _later(self, running: Running) -> None:
        await asyncio.sleep(WORTH_IT_S)
        await self.prepare()
        await self._judge(running)

    async def _judge(self, running: Running) -> None:
        said = await self._asked(running.endpoint)
        if said and said["error"]:
            self._warn(running.log.mask(f"OpenAI's client cannot use the endpoint as it is: {said['error']}"))

    async def _look_up(self, running: Running) -> None:
        """Whether the model is listed, asked by our own client; an endpoint need not list anything."""
        endpoint = running.endpoint
        try:
            status, body = await self._transport.get(
                f"{endpoint.api_url}/models", headers=endpoint.headers, timeout_s=_LOOK_S
            )
            names = [str(one["id"]) for one in json.loads(body)["data"]] if status == 200 else []
        except (HttpFailed, OSError, ValueError, KeyError, TypeError):
            return
        if warning := unlisted(endpoint.model, names):
            self._warn(running.log.mask(warning))

    async def _asked(self, endpoint: Endpoint) -> dict[str, Any] | None:
        """What the process says; None if it says nothing in time."""
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return None
        api = self._plan.recipe.workload.api
        question = {"url": endpoint.api_url, "key": endpoint.key, "model": endpoint.model, "api": api}
        try:
            async with asyncio.timeout(_PATIENCE_S):
                process.stdin.write(json.dumps(question).encode() + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
            said: dict[str, Any] = json.loads(line)
        except (TimeoutError, OSError, ValueError):
            return None
        return said


def unlisted(model: str, names: Sequence[str]) -> str | None:
    """A warning if an endpoint serves other models than the one that requests will name."""
    if not names or model in names:
        return None
    shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    return f"the endpoint does not list {model}, but {shown}; requests name it as model.served_name says"
