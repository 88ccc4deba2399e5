"""A pod: its states, its container, and the end of both."""

from __future__ import annotations

import asyncio
import json
import logging
import shlex
import shutil
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from provisioners.rehearsal import container, sshd
from provisioners.rehearsal.asking import PodRequest
from provisioners.rehearsal.clock import Clock, rfc3339
from provisioners.rehearsal.faults import Faults
from provisioners.rehearsal.ledger import HOURS_PER_MONTH, Ledger, Rates
from provisioners.rehearsal.processes import descendants

Status = Literal["PROVISIONING", "STARTING", "RUNNING", "EXITED", "ERROR", "TERMINATED"]
Order = Literal["freeze", "cut", "rekey", "end"]
ORDERS: dict[str, Order] = {"freeze": "freeze", "cut": "cut", "rekey": "rekey", "restart": "end"}
"""What can be done to a container from outside, by the name of the mishap."""

DISK_USD_PER_GB_MONTH = 0.10
STOPPED_USD_PER_GB_MONTH = 0.20
KEPT_LINES = 5000
_CRASH = "echo this command cannot work >&2; exit 1"
_MOST_BACK_OFF_S = 2.0
_SPEC_LIMIT = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """What all pods of an emulator share."""

    root: Path
    clock: Clock
    ledger: Ledger
    faults: Callable[[], Faults]
    due: Callable[[str], bool]
    """Whether a counted fault happens now."""
    isolated: bool
    sshd: str
    image_path: Path | None
    visible: tuple[Path, ...]
    """Folders of this machine that a pod sees although its own /tmp or home hides them."""
    keep_disks: bool


@dataclass(frozen=True)
class LogLine:
    number: int
    ts: str
    source: str
    line: str


class Pod:
    """One pod, from its creation to the death of its last process."""

    def __init__(
        self, pod_id: str, asked: PodRequest, shop: Workshop, *, key: str, data_center: str, cuda: str, usd_per_h: float
    ) -> None:
        self.id, self.asked, self.key = pod_id, asked, key
        self.data_center, self.cuda = data_center, cuda
        self.usd_per_h = usd_per_h
        self.status: Status = "PROVISIONING"
        self.locked = False
        self.started_at: float | None = None
        self.container_started_at = 0.0
        """The last time; it may have been restarted."""
        self.ended_at: float | None = None
        self.port: int | None = None
        self.stale_port, self._stale_keeper = sshd.kept_port()
        self._keeper: socket.socket | None = None
        self.lines: deque[LogLine] = deque(maxlen=KEPT_LINES)
        self.said = asyncio.Condition()
        self.gone = asyncio.Event()
        self._shop = shop
        self._log_file = (shop.root / "logs" / f"{pod_id}.log").open("a")
        self._process: asyncio.subprocess.Process | None = None
        self._timers: set[asyncio.Task[None]] = set()
        self._acting: set[asyncio.Task[None]] = set()
        self._ending: asyncio.Task[None] | None = None
        self._killing = asyncio.Lock()
        self._clearing: asyncio.Task[None] | None = None
        self.dir = shop.root / "pods" / pod_id
        self.created_at = shop.ledger.open_pod(
            pod_id, asked.name, gpu=asked.gpu_id, count=asked.gpu_count, cloud=asked.cloud, rates=self._running_rates()
        )
        self._life = self._begin_life()

    @property
    def actions(self) -> tuple[str, ...]:
        """What can be done in this state."""
        if self._ending is not None:
            return ()
        return {
            "RUNNING": ("stop", "restart", "terminate"),
            "EXITED": ("start", "terminate"),
            "ERROR": ("start", "terminate"),
            "PROVISIONING": ("stop", "terminate"),
            "STARTING": ("stop", "terminate"),
        }.get(self.status, ())

    @property
    def cost_usd_per_h(self) -> float:
        return 0.0 if self.status in ("EXITED", "TERMINATED") else self.usd_per_h

    @property
    def ssh_port(self) -> int | None:
        """The port that the API reports for SSH now; None for none."""
        shop, faults = self._shop, self._shop.faults()
        if self.status != "RUNNING" or self.started_at is None or "22/tcp" not in self.asked.ports:
            return None
        if shop.clock.lasts(faults.no_direct_s, self.started_at) and faults.no_direct_s:
            return None
        stale = faults.stale_port_s and shop.clock.lasts(faults.stale_port_s, self.started_at)
        return self.stale_port if stale else self.port

    @property
    def pid(self) -> int | None:
        """The process that leads the container, while it lives."""
        return self._process.pid if self._process and self._process.returncode is None else None

    def processes(self) -> dict[int, str]:
        """Every living process of the container, by this machine's numbers."""
        return descendants(self.pid) if self.pid is not None else {}

    def said_after(self, number: int) -> list[LogLine]:
        """The lines of the log that come after the one of this number."""
        found = list(takewhile(lambda line: line.number > number, reversed(self.lines)))
        return found[::-1]

    async def act(self, action: str, by: str) -> None:
        """Do what `actions` allows."""
        if action == "terminate":
            await self.terminate(by)
        elif action == "stop":
            await self.stop()
        elif action == "restart":
            self.order("end")
        elif action == "start":
            for name in ("tmp", "home", "layers", "ssh"):
                shutil.rmtree(self.dir / name, ignore_errors=True)
            self._shop.ledger.change_rates(self.id, self._running_rates())
            self.status = "PROVISIONING"
            self._life = self._begin_life()

    async def stop(self) -> None:
        """EXITED: the container dies, and with it what is not on a volume; disks bill on."""
        await self._kill()
        if self._ending is None:
            self.status = "EXITED"
            self._shop.ledger.change_rates(self.id, self._stopped_rates())

    async def terminate(self, by: str) -> None:
        """Returns when nothing of the pod is alive, and the ledger is closed. May be called again."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._terminate(by))
        await asyncio.shield(self._ending)

    def order(self, order: Order) -> None:
        """Tell the process that leads the container to do something."""
        if self._process is not None and self._process.returncode is None:
            assert self._process.stdin is not None
            self._process.stdin.write(f"{order}\n".encode())

    async def _terminate(self, by: str) -> None:
        await self._kill()
        self.status = "TERMINATED"
        self._shop.ledger.close_pod(self.id, by)
        self.ended_at = self._shop.clock.now()
        self.gone.set()
        self._log_file.close()
        for keeper in (self._stale_keeper, self._keeper):
            if keeper is not None:
                keeper.close()
        async with self.said:
            self.said.notify_all()
        if not self._shop.keep_disks:
            # Nobody waits for this but the emulator's own end: a disk with an engine on it takes its time.
            self._clearing = asyncio.create_task(asyncio.to_thread(shutil.rmtree, self.dir, ignore_errors=True))

    async def cleared(self) -> None:
        """Returns when a terminated pod has left no disk."""
        if self._clearing is not None:
            await self._clearing

    async def _kill(self) -> None:
        """Returns when nothing of the container is alive."""
        for task in (self._life, *self._timers):
            task.cancel()
        async with self._killing:
            await asyncio.gather(self._life, return_exceptions=True)
            process = self._process
            if process is not None:
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.close()
                while await process.stdout.read(1 << 16):
                    pass
                await process.wait()

    def _begin_life(self) -> asyncio.Task[None]:
        life = asyncio.create_task(self._live())
        life.add_done_callback(_tell_of_bugs)
        return life

    async def _live(self) -> None:
        """The pod's states by themselves, until it is stopped."""
        shop, faults = self._shop, self._shop.faults()
        if faults.error_after_s is not None:
            self._later(faults.error_after_s, self._fail)
        if shop.due("stuck_provisioning"):
            await self._log("system", "waiting for a machine")
            await asyncio.Event().wait()
        await shop.clock.sleep(faults.provisioning_s)
        self.status = "STARTING"
        await self._log("system", f"pull image {self.asked.image}")
        await shop.clock.sleep(faults.starting_s)
        self._take_port()
        crash = shop.due("crash_loop")
        back_off = 0.1
        while True:
            await self._run_container(["sh", "-c", _CRASH] if crash else self._argv())
            await asyncio.sleep(back_off)
            back_off = min(2 * back_off, _MOST_BACK_OFF_S)

    def _take_port(self) -> None:
        """Another one than before, for as long as this pod is there."""
        before = self._keeper
        self.port, self._keeper = sshd.kept_port()
        if before is not None:
            before.close()

    def _argv(self) -> list[str]:
        """The start command; an image without one waits, as RunPod's own do."""
        try:
            return shlex.split(self.asked.args) or ["sleep", "infinity"]
        except ValueError:  # a quote that is not closed
            return [self.asked.args]

    async def _run_container(self, argv: Sequence[str]) -> None:
        """One run of the container, from its start to the death of its last process."""
        self._make_disk()
        errors = (self.dir / "container.err").open("ab")
        with errors:
            self._process = process = await asyncio.create_subprocess_exec(
                *container.leader_argv(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=_SPEC_LIMIT,
                start_new_session=True,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(self._spec(argv).to_line())
        try:
            while line := await process.stdout.readline():
                await self._hear(json.loads(line))
        finally:
            process.stdin.close()
        await process.wait()

    async def _hear(self, event: dict[str, Any]) -> None:
        if event["event"] == "log":
            await self._log(event["source"], event["line"], event["ts"])
        elif event["event"] == "started":
            await self._log("system", "start container")
            self.container_started_at = self._shop.clock.now()
            if self.status == "STARTING":
                self.status = "RUNNING"
                self.started_at = self.container_started_at
                self._set_timers()
        elif event["event"] == "ended":
            await self._log("system", f"container ended, status {event['status']}")

    def _set_timers(self) -> None:
        faults = self._shop.faults()
        orders: dict[Order, float | None] = {
            "rekey": faults.rekey_after_s,
            "freeze": faults.freeze_after_s,
            "cut": faults.cut_after_s,
            "end": faults.restart_after_s,
        }
        for order, seconds in orders.items():
            if seconds is not None:
                self._later(seconds, partial(self._do, order))
        if faults.preempt_after_s is not None:
            self._later(faults.preempt_after_s, self.stop)

    async def _do(self, order: Order) -> None:
        self.order(order)

    async def _fail(self) -> None:
        await self._kill()
        if self._ending is None:
            self.status = "ERROR"

    def _later(self, seconds: float, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async def wait() -> None:
            await self._shop.clock.sleep(seconds)
            # By itself: what it does may cancel this pod's timers.
            acting = asyncio.create_task(act())
            self._acting.add(acting)
            acting.add_done_callback(self._acting.discard)

        timer = asyncio.create_task(wait())
        self._timers.add(timer)
        timer.add_done_callback(self._timers.discard)

    async def _log(self, source: str, line: str, ts: str | None = None) -> None:
        number = self.lines[-1].number + 1 if self.lines else 1
        said = LogLine(number, ts or rfc3339(self._shop.clock.now()), source, line)
        self.lines.append(said)
        self._log_file.write(f"{said.ts} {source} {line}\n")
        self._log_file.flush()
        async with self.said:
            self.said.notify_all()

    def _make_disk(self) -> None:
        shop = self._shop
        for name in ("home", "tmp", "ssh", "root", "volume"):
            (self.dir / name).mkdir(parents=True, exist_ok=True)
        (self.dir / "tmp").chmod(0o1777)
        (self.dir / "home").chmod(0o700)
        assert self.port is not None
        sshd.write_config(self.dir, self.port, isolated=shop.isolated, image_path=shop.image_path)
        if key := self._env().get("PUBLIC_KEY"):
            sshd.let_in(self.dir / "home", key)

    def _env(self) -> dict[str, str]:
        shop = self._shop
        return {
            "PATH": sshd.search_path(shop.image_path),
            **self.asked.env,
            "HOME": sshd.user().pw_dir if shop.isolated else str(self.dir / "home"),
            "RUNPOD_POD_ID": self.id,
            "RUNPOD_API_KEY": self.key,
            "RUNPOD_DC_ID": self.data_center,
            "RUNPOD_GPU_COUNT": str(self.asked.gpu_count),
            "RUNPOD_PUBLIC_IP": "127.0.0.1",
            "RUNPOD_TCP_PORT_22": str(self.port),
        }

    def _spec(self, argv: Sequence[str]) -> container.Spec:
        shop, asked = self._shop, self.asked
        mounts = []
        if asked.persistent:
            mounts.append((str(self.dir / "volume"), asked.persistent.path))
        if asked.network:
            mounts.append((str(shop.root / "volumes" / asked.network.volume_id), asked.network.path))
        env = self._env()
        return container.Spec(
            pod=str(self.dir),
            isolated=shop.isolated,
            argv=argv,
            env=env,
            home=env["HOME"],
            sshd=shop.sshd,
            sshd_delay_s=shop.clock.real(shop.faults().sshd_delay_s),
            mounts=mounts,
            visible=[str(path) for path in shop.visible],
            disk_kib=shop.faults().disk_kib,
        )

    def _running_rates(self) -> Rates:
        volume = self.asked.persistent.size_gb if self.asked.persistent else 0
        gb = self.asked.disk_gb + volume
        return Rates(gpu_usd_per_h=self.usd_per_h, disk_usd_per_h=gb * DISK_USD_PER_GB_MONTH / HOURS_PER_MONTH)

    def _stopped_rates(self) -> Rates:
        volume = self.asked.persistent.size_gb if self.asked.persistent else 0
        return Rates(gpu_usd_per_h=0.0, disk_usd_per_h=volume * STOPPED_USD_PER_GB_MONTH / HOURS_PER_MONTH)

    def change(self, settings: dict[str, Any]) -> None:
        """Apply a PATCH; what concerns the container counts from its next start on."""
        self.locked = settings.pop("locked", self.locked)
        self.asked = replace(self.asked, **settings)


def _tell_of_bugs(life: asyncio.Task[None]) -> None:
    if not life.cancelled() and (error := life.exception()) is not None:
        logging.getLogger(__name__).error("a pod's life ended by a bug of the emulator", exc_info=error)
