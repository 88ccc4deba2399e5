"""A job on a machine, heard from here: over as many connections as it takes, each byte once."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import suppress
from typing import Any

from provisioners.contract import Output
from provisioners.shell.agent import Agent, Patience
from provisioners.shell.connection import Lost
from recipes.errors import HostCommandFailed, NoMachine


class RemoteProcess:
    """A job that was started or joined. It goes on whether it is heard or not."""

    def __init__(self, agent: Agent, name: str, pid: int, on_output: Output) -> None:
        self.name, self._pid = name, pid
        self._agent, self._on_output = agent, on_output
        self._offset, self._heard = 0, hashlib.sha256()
        self._moved = asyncio.Event()
        self._failed: Exception | None = None
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        # Whoever never asks how it ended need not be told that nobody did.
        self._ended.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        self._following = asyncio.create_task(self._follow(), name=f"follow {name}")

    @property
    def pid(self) -> int:
        return self._pid

    async def wait(self) -> int:
        """The exit status, once everything that the job said was heard; negative for a signal.

        May be awaited more than once. Raises what `on_output` raised, and NoMachine if nobody can say how it ended.
        """
        return await asyncio.shield(self._ended)

    async def catch_up(self) -> None:
        """Hear everything that it has said so far. Raises NoMachine if that cannot be had."""
        known = await self._agent.insist("status", self.name, timeout_s=60)
        while self._offset < known["bytes"]:
            if self._ended.done():
                self._ended.result()
                return
            self._moved.clear()
            await self._moved.wait()

    async def close(self) -> None:
        """Hear no more of it."""
        self._following.cancel()
        with suppress(asyncio.CancelledError):
            await self._following
        if not self._ended.done():
            self._settle(NoMachine(f"{self.name} is no longer listened to: the connection was closed"))

    async def _follow(self) -> None:
        try:
            status = self._status(await self._hear_all())
        except Exception as error:
            self._settle(error)
        else:
            self._settle(self._failed or status)

    def _settle(self, outcome: int | Exception) -> None:
        self._moved.set()
        if isinstance(outcome, int):
            self._ended.set_result(outcome)
        else:
            self._ended.set_exception(outcome)

    async def _hear_all(self) -> dict[str, Any]:
        """Follow the log to its end, from where it was cut; returns what the agent says of it then."""
        patience = self._agent.patience()
        first = True
        while True:
            try:
                if not first:
                    await self._find_again(patience)
                first = False
                return await self._hear_on(patience)
            except Lost as error:
                await patience.after(error)

    async def _hear_on(self, patience: Patience) -> dict[str, Any]:
        def hear(data: bytes) -> None:
            self._offset += len(data)
            self._heard.update(data)
            self._moved.set()
            patience.progress()
            try:
                self._on_output(data)
            except Exception as error:
                self._failed = self._failed or error

        argv = self._agent.argv("follow", self.name, str(self._offset))
        # Its input stays open for as long as somebody listens: that is how the other side knows.
        ran = await self._agent.shell.stream(argv, input=None, on_output=hear)
        if ran.status == 0:
            with suppress(ValueError, IndexError):
                said: dict[str, Any] = json.loads(ran.err.splitlines()[-1])
                return said
        raise self._agent.missing(ran)

    async def _find_again(self, patience: Patience) -> None:
        """Whether the job is still known there, and its log as long as what was heard of it."""
        known = await self._agent.call("status", self.name, timeout_s=60)
        patience.progress()
        if not known.get("known") or known.get("bytes", 0) < self._offset:
            raise NoMachine(
                f"{self._agent.shell.target} does not know {self.name} any more: it was made anew, or let go",
                advice="recipe attach starts what is missing again, from the answers that there are",
            )

    def _status(self, said: dict[str, Any]) -> int:
        where = self._agent.shell.target
        if said.get("lost") or not isinstance(said.get("status"), int):
            raise NoMachine(
                f"{self.name} on {where} was cut off: nobody knows how it ended",
                advice="the machine may have restarted, or run out of memory; its log says how far it came",
            )
        if (said.get("bytes"), said.get("sha256")) != (self._offset, self._heard.hexdigest()):
            bytes_there = said.get("bytes")
            raise HostCommandFailed(
                f"what {self.name} said on {where} did not arrive as it was: {self._offset} bytes of {bytes_there}",
                advice="its log there was changed while it was read, or the disk is full",
            )
        return int(said["status"])
