"""A machine over SSH as a host: everything that a run does there goes through the agent in the state directory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from queue import SimpleQueue
from typing import Any

from provisioners.contract import Boot, Forward, Output, Process
from provisioners.shell import fetching
from provisioners.shell.agent import Agent, Patience
from provisioners.shell.connection import Shell
from provisioners.shell.following import RemoteProcess
from provisioners.shell.tunnel import Tunnel, open_tunnel
from provisioners.shell.upload import Moved, folder, piece, put_folder, put_piece
from provisioners.threads import in_thread
from recipes.errors import HostCommandFailed, NoMachine

# What another lease left half-sent a day ago is not gone on with.
_THERE = '[ -e "$1" ] || { find "$2" -mindepth 2 -maxdepth 2 -name "*.part" -mtime +0 -exec rm -rf {} +; exit 1; }'
_FIRST_PAUSE_S = 0.2
_WRITE = 'umask 077; mkdir -p "$(dirname "$1")" && cat > "$1.part" && mv -f "$1.part" "$1"'


class RemoteHost:
    """A machine that can be reached over SSH. While it is held, the machine hears so every few seconds."""

    def __init__(self, agent: Agent, probe: Mapping[str, Any], *, key: str, beat_s: float) -> None:
        self.work_dir, self.cache_dir = Path(probe["work"]), Path(probe["cache"])
        self.python: str = probe["python"]
        self.python_tag: str = probe["python_tag"]
        self.key = key
        self.notes = _notes(probe)
        self.clock_offset_s: float = probe.get("clock_offset_s", 0.0)
        self.probe = probe
        """All that the machine said of itself: cpus, memory_bytes, disk_free_bytes, gpus, switch and more."""
        self._agent, self._patience_s = agent, agent.patience_s
        self._volume: Mapping[str, str | None] = probe.get("volume") or {}
        self._jobs: list[RemoteProcess] = []
        self._tunnels: dict[int, asyncio.Task[Tunnel]] = {}
        self._beating = asyncio.create_task(self._beat(beat_s), name="heartbeat")

    @classmethod
    async def connect(
        cls, shell: Shell, state_dir: str, *, key: str, beat_s: float = 5.0, patience_s: float = 90.0
    ) -> RemoteHost:
        """The machine that the shell leads to, if a lease has this state directory there. `key` is for its engine.

        Asks once: raises Lost while it does not answer or has no agent yet, NotAdmitted, HostKeyChanged. Afterwards
        what is asked is asked again until there was no contact for `patience_s`. The shell is closed with the host.
        """
        agent = Agent(shell, state_dir, patience_s=patience_s)
        asked_at = time.time()
        probe = await agent.call("probe")
        probe["clock_offset_s"] = probe.get("now", time.time()) - (asked_at + time.time()) / 2
        idle_s = (probe.get("switch") or {}).get("idle_s")
        # Some beats may come late before the machine takes its client for gone.
        return cls(agent, probe, key=key, beat_s=min(beat_s, float(idle_s) / 4) if idle_s else beat_s)

    async def start(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str], on_output: Output, counts: bool = False
    ) -> Process:
        request = {"argv": list(argv), "env": dict(env), "again": True, "counts": counts}
        said = await self._agent.insist("start", name, request=request, timeout_s=60)
        job = RemoteProcess(self._agent, name, said["pid"], on_output)
        self._jobs.append(job)
        return job

    async def ready_for(self, boot: Boot) -> None:
        """A machine that boots by itself has its files from there; another is given them now."""
        if self.probe.get("booted"):
            return
        words = {"{python}": self.python, "{work}": str(self.work_dir), "{cache}": str(self.cache_dir)}
        for name, text in boot.files.items():
            await self.write(name, _replaced(text, words) if name.endswith(".json") else text)

    async def write(self, name: str, text: str) -> Path:
        path = self.work_dir / name
        argv = ["sh", "-c", _WRITE, "sh", str(path)]
        ran = await self._agent.patiently(lambda _: self._agent.shell.run(argv, input=text.encode()))
        if ran.status != 0:
            raise HostCommandFailed(f"cannot write {path} on {self._agent.shell.target}: {ran.err.decode().strip()}")
        return path

    async def provide(self, path: Path) -> Path:
        """The file or folder under its digest in the cache, so that a machine is sent it once."""
        try:
            return await self._provided(path)
        except OSError as error:
            raise HostCommandFailed(f"{path} cannot be read: {error.strerror or error}") from error

    async def _provided(self, path: Path) -> Path:
        shell, provided = self._agent.shell, self.cache_dir / "provided"
        sending: Callable[[str, Moved], Awaitable[None]]
        if path.is_dir():
            whole = await in_thread(folder, path)
            digest, sending = whole.sha256, partial(put_folder, shell, whole)
        else:
            single = await in_thread(piece, path)
            digest, sending = single.sha256, partial(put_piece, shell, single)
        place = provided / digest[:32] / (path.name or "folder")

        async def attempt(patience: Patience) -> None:
            ran = await shell.run(["sh", "-c", _THERE, "sh", str(place), str(provided)])
            if ran.status != 0:
                await sending(str(place), patience.progress)

        await self._agent.patiently(attempt)
        return place

    async def fetch(self, pattern: str, into: Path) -> list[Path]:
        return await fetching.fetch(self._agent, [pattern], into)

    def place(self, path: str) -> str:
        """Below a volume that is not mounted: in the directory that stands for it."""
        asked, at = self._volume.get("asked"), self._volume.get("at")
        if not asked or not at or not PurePosixPath(path).is_relative_to(asked):
            return path
        return str(PurePosixPath(at) / PurePosixPath(path).relative_to(asked))

    async def free_port(self) -> int:
        return int((await self._agent.insist("port"))["port"])

    async def forward(self, port: int) -> Forward:
        """One tunnel for each port, however often it is asked for."""
        if port not in self._tunnels:
            target = self._agent.shell.target
            opening = self._agent.patiently(lambda _: open_tunnel(target, port))
            self._tunnels[port] = asyncio.create_task(opening)
        try:
            tunnel = await asyncio.shield(self._tunnels[port])
        except Exception:
            self._tunnels.pop(port, None)
            raise
        return Forward(tunnel.address, tunnel.kind)

    def bear_silence(self, seconds: float | None = None) -> None:
        self._agent.patience_s = self._patience_s if seconds is None else seconds

    async def close(self) -> None:
        self._beating.cancel()
        for job in self._jobs:
            await job.close()
        for opening in self._tunnels.values():
            opening.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await (await opening).close()
        with suppress(asyncio.CancelledError):
            await self._beating
        await self._agent.shell.close()

    async def _beat(self, beat_s: float) -> None:
        """Say every few seconds that somebody is here. From the event loop: one that hangs is nobody."""
        loop, pause_s = asyncio.get_running_loop(), _FIRST_PAUSE_S
        while True:
            began = loop.time()
            lines: SimpleQueue[bytes | None] = SimpleQueue()
            ticking = asyncio.create_task(_tick(lines, beat_s))
            try:
                await self._agent.shell.stream(
                    self._agent.argv("beat"), input=partial(_feed, lines), on_output=lambda _: None
                )
            except NoMachine:
                pass  # what is asked of the host says so as well, and says why
            finally:
                ticking.cancel()
                lines.put(None)
            pause_s = _FIRST_PAUSE_S if loop.time() - began > beat_s else min(beat_s, 2 * pause_s)
            await asyncio.sleep(pause_s)


def _replaced(text: str, words: Mapping[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text


async def _tick(lines: SimpleQueue[bytes | None], beat_s: float) -> None:
    while True:
        lines.put(b"\n")
        await asyncio.sleep(beat_s)


def _feed(lines: SimpleQueue[bytes | None], write: Any) -> None:
    while (line := lines.get()) is not None:
        write(line)


def _notes(probe: Mapping[str, Any]) -> tuple[str, ...]:
    """What the machine warns of, and a switch whose power is not proven."""
    notes = [str(warning) for warning in probe.get("warnings") or ()]
    switch = probe.get("switch") or {}
    if switch.get("proof") != "allowed" and not any("switch" in note for note in notes):
        notes.append(f"the dead-man switch is not proven: {switch.get('said') or switch.get('proof') or 'not armed'}")
    return tuple(notes)
