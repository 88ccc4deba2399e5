"""The launch phase: start the engine, and believe it only when it has generated a token."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from provisioners.contract import Forward, Host, Process
from recipes.errors import EngineFailed, NoMachine
from recipes.spec import Workload
from runners.client import Client, Endpoint, RequestFailed, Transport
from runners.http.errors import HttpFailed
from runners.plan import Plan
from runners.prepare import Prepared
from runners.run_folder import RunFolder
from runners.telemetry import EngineLog

T = TypeVar("T")
ENGINE = "engine"
"""The name of its command on the host."""
EXPOSED_PORT = 8000
"""Where an engine listens that a recipe opens to the internet."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_LAST_WORDS_S = 1.0
_CONTACT_S = 20.0


@dataclass(frozen=True)
class Running:
    """An engine that answers. `process` is None if it runs elsewhere."""

    endpoint: Endpoint
    process: Process | None
    log: EngineLog
    plan: Plan
    way: str = "direct"
    """How the client reaches it: directly, or through which tunnel."""

    async def while_alive(self, work: Awaitable[T]) -> T:
        """The work's result. Raises EngineFailed at once, with the cause from its log, if the engine ends before."""
        if self.process is None:
            return await work
        task, ended = asyncio.ensure_future(work), asyncio.ensure_future(self.process.wait())
        try:
            await asyncio.wait([task, ended], return_when=asyncio.FIRST_COMPLETED)
            if task.done() and task.exception() is None:
                return task.result()
            # Work that failed may have failed because the engine is about to be seen dead.
            await asyncio.wait([ended], timeout=_LAST_WORDS_S if task.done() else None)
            if ended.done():
                raise self._failed(ended.result())
            await self._still_there(self.process)
            return task.result()
        finally:
            for future in (task, ended):
                future.cancel()
            await asyncio.wait([task, ended])

    @staticmethod
    async def _still_there(process: Process) -> None:
        """Work that fails because nobody reaches the machine any more is no failure of the work. Raises NoMachine."""
        try:
            async with asyncio.timeout(_CONTACT_S):
                await process.catch_up()
        except TimeoutError:
            raise NoMachine(
                f"no contact to the machine for {_CONTACT_S:.0f} s", advice="see recipe ps, then run again"
            ) from None

    def _failed(self, status: int) -> EngineFailed:
        failure = self.plan.engine.failure(self.log.tail())
        if status >= 0:
            return EngineFailed(
                f"{self.plan.engine.name} ended with exit status {status}: {failure.cause}", advice=failure.advice
            )
        number = -status
        name = signal.Signals(number).name if number in set(signal.Signals) else "a real-time signal"
        what = f"{self.plan.engine.name} was killed by signal {number} ({name})"
        if failure.known:
            return EngineFailed(f"{what}: {failure.cause}", advice=failure.advice)
        if number == signal.SIGKILL:
            advice = "somebody killed it, or the kernel did because memory ran out; see dmesg"
            return EngineFailed(what, advice=advice)
        return EngineFailed(what, advice=failure.advice)


class Driver(Protocol):
    """What asks the engine on its host, and goes on there by itself."""

    async def begin(self, host: Host, running: Running) -> None:
        """Start it there, or join the one that there is."""
        ...

    async def ready(self) -> None:
        """Returns when the engine has generated a token. Raises EngineFailed."""
        ...


async def engine_port(plan: Plan, host: Host, folder: RunFolder) -> int | None:
    """Where the engine listens: kept, because a client that takes over must know it. None if it runs elsewhere."""
    if plan.recipe.engine.url is not None:
        return None
    if (known := folder.read_json("engine.json")) is not None:
        return int(known["port"])
    port = EXPOSED_PORT if plan.recipe.engine.expose else await host.free_port()
    folder.write_json("engine.json", {"port": port})
    return port


async def launch(
    plan: Plan,
    host: Host,
    prepared: Prepared,
    env: Mapping[str, str],
    port: int | None,
    log: EngineLog,
    transport: Transport,
    driver: Driver | None = None,
) -> Running:
    """Start the engine, or find the one that runs already, and wait until it is ready. Raises EngineFailed.

    `port` is where it will listen, or listens; None if it runs elsewhere. A driver on the host asks it in our stead.
    """
    running = await _start(plan, host, prepared, env, port, log)
    if driver is not None:
        await driver.begin(host, running)
    await running.while_alive(until_ready(running, transport) if driver is None else driver.ready())
    return running


async def _start(
    plan: Plan, host: Host, prepared: Prepared, env: Mapping[str, str], port: int | None, log: EngineLog
) -> Running:
    spec, served = plan.recipe.engine, plan.recipe.model.identifier
    if spec.url is not None:
        own = env.get(spec.api_key_env) if spec.api_key_env else None
        base = spec.url.rstrip("/")
        return Running(Endpoint(base.removesuffix("/v1"), served, own, base), None, log, plan)
    started = plan.launch(
        python=prepared.python, onhost=prepared.onhost, model_path=prepared.model_path, port=str(port), key=host.key
    )
    assert started is not None, f"{plan.engine.name} neither launches nor has a url"
    assert port is not None
    started_env = {**env, **started.env, **spec.env}
    process = await host.start(ENGINE, started.argv, env=started_env, on_output=log.feed)
    on_host = Forward(f"127.0.0.1:{port}", "on the host")
    way = await host.forward(port) if plan.recipe.workload.where == "client" else on_host
    served = plan.engine.served_name(prepared.model_path, served)
    return Running(Endpoint(f"http://{way.address}", served, host.key), process, log, plan, way.kind)


async def until_ready(running: Running, transport: Transport) -> None:
    """HTTP 200 on the health page, and then one generated token: a server may be up and its model broken."""
    plan, pause_s = running.plan, _FIRST_PAUSE_S
    url = plan.engine.health_url(running.endpoint, plan.engine_version or "")
    while (trouble := await _trouble_at(url, running, transport)) is not None:
        if running.process is None:
            raise EngineFailed(f"{url}: {trouble}", advice="check engine.url, and that the endpoint runs")
        await asyncio.sleep(pause_s)
        pause_s = min(_LONGEST_PAUSE_S, pause_s * 1.5)
    settings = plan.recipe.workload
    if running.process is not None:  # nobody else asks it: what it refuses now, it will refuse again
        settings = settings.model_copy(update={"retries": 0})
    await _generate_one(Client(transport, running.endpoint, settings, mask=running.log.mask), running, settings)


async def _trouble_at(url: str, running: Running, transport: Transport) -> str | None:
    """Why the page does not answer 200; None if it does."""
    try:
        status, _ = await transport.get(url, headers=running.endpoint.headers)
        return None if status == 200 else f"HTTP {status}"
    except (HttpFailed, OSError) as error:
        return str(error) or type(error).__name__


async def _generate_one(client: Client, running: Running, settings: Workload) -> None:
    try:
        answer = await client.complete("Hello", max_tokens=1)
    except RequestFailed as error:
        raise EngineFailed(
            f"{running.plan.engine.name} answers its health page, but generates no token: {error.message}",
            advice=f"{'the whole log is in engine.log; ' if running.process else ''}workload.api was {settings.api}",
        ) from error
    if not (answer.output_tokens or answer.text):
        raise EngineFailed(f"{running.plan.engine.name} answered with no token at all", advice="look into engine.log")
