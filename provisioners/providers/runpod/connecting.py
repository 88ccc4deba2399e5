"""From a pod that was asked for to a host: waits until it runs, its sshd listens, and our agent answers on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from provisioners.bootstrap import state_dir
from provisioners.contract import Lease, MayStillBill
from provisioners.providers.runpod import reached
from provisioners.providers.runpod.answers import ApiError
from provisioners.providers.runpod.cloud import Cloud
from provisioners.providers.runpod.pace import Pace
from provisioners.providers.runpod.release import let_go
from provisioners.providers.runpod.values import Address, Pod
from provisioners.providers.runpod.waiting import Waiting, log_tail
from provisioners.shell.connection import Lost, NotAdmitted, Shell
from provisioners.shell.keys import LeaseKeys
from provisioners.shell.remote_host import RemoteHost
from recipes.errors import NoMachine

_SSH = 22
_KNOCK_S = 0.1
_CONNECT_S = 8.0


async def host(cloud: Cloud, lease: Lease, keys: LeaseKeys, pace: Pace, on_sight: Callable[[], None]) -> RemoteHost:
    """The lease's pod as a host. Raises NoMachine; a CancelledError has what was waited for as its argument."""
    assert lease.id is not None
    waiting = Waiting(cloud, lease.id, pace, on_sight=on_sight)
    twins = _Twins(cloud, lease.name, lease.id, pace)
    watching = asyncio.create_task(twins.watch())
    try:
        found = await _Connecting(lease, keys, waiting, pace).run()
        if twins.found:
            try:
                await watching
            except BaseException:
                await found.close()
                raise
    except asyncio.CancelledError as cancelled:
        cancelled.args = (f"pod {lease.id}: {waiting.reason}",)
        raise
    finally:
        watching.cancel()
    found.notes = (*found.notes, *twins.notes)
    return found


class _Connecting:
    """Tries again and again: RunPod says RUNNING before sshd is up, and may name a port that is out of date."""

    def __init__(self, lease: Lease, keys: LeaseKeys, waiting: Waiting, pace: Pace) -> None:
        self._lease, self._keys, self._waiting, self._pace = lease, keys, waiting, pace
        self._shell: Shell | None = None
        self._turned_away_since: float | None = None

    async def run(self) -> RemoteHost:
        """Raises NoMachine, and of its kinds HostKeyChanged at once: somebody else answers there."""
        try:
            while True:
                pod = await self._waiting.address()
                assert pod.address is not None
                shell = await self._shell_to(pod.address)
                try:
                    found = await RemoteHost.connect(shell, state_dir(self._lease.name), key=self._keys.engine_key())
                except Lost as error:
                    self._waiting.reason = f"it runs, and cannot be reached yet: {error.message}"
                except NotAdmitted as error:
                    await self._turned_away(pod, error)
                else:
                    self._shell = None  # closed with the host from now on
                    reached.remember(self._keys, pod.address)
                    opened = sorted((port, at) for port, at in pod.public.items() if port != _SSH)
                    found.notes = (
                        *found.notes,
                        *(f"port {port} is open to the internet at {at}" for port, at in opened),
                    )
                    return found
                await self._pause(pod.address)
        finally:
            if self._shell is not None:
                await self._shell.close()

    async def _shell_to(self, address: Address) -> Shell:
        target = reached.target_of(address, self._lease, self._keys)
        if self._shell is not None and self._shell.target != target:
            await self._shell.close()
            self._shell = None
        if self._shell is None:
            self._waiting.pause_s = 0.0
            self._shell = Shell(target, connect_timeout_s=_CONNECT_S)
        return self._shell

    async def _turned_away(self, pod: Pod, error: NotAdmitted) -> None:
        """Our key may arrive a moment after sshd, and a port out of date leads to somebody else. Raises NoMachine."""
        now = time.monotonic()
        self._turned_away_since = self._turned_away_since or now
        self._waiting.reason = f"it runs, and does not let us in: {error.message}"
        if now - self._turned_away_since > self._pace.turned_away_s:
            said = await log_tail(self._waiting.cloud, pod.id)
            raise NoMachine(
                f"pod {pod.id} does not let us in: {error.message}{said}",
                advice="its image may replace the keys or the sshd; try one of RunPod's own images",
            ) from error

    async def _pause(self, address: Address) -> None:
        """Until the next try: a little, or longer while nobody opens at that port."""
        pausing = asyncio.create_task(self._waiting.pause())
        try:
            if not await _opens(address):
                while not pausing.done() and not await _opens(address):
                    await asyncio.wait({pausing}, timeout=_KNOCK_S)
            else:
                await pausing
        finally:
            pausing.cancel()


async def _opens(address: Address) -> bool:
    """Whether somebody accepts connections there."""
    try:
        async with asyncio.timeout(_KNOCK_S * 5):
            _, writer = await asyncio.open_connection(address.host, address.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


class _Twins:
    """Other pods with the lease's name, should RunPod have made more than one: they are let go at once."""

    def __init__(self, cloud: Cloud, name: str, pod_id: str, pace: Pace) -> None:
        self._cloud, self._name, self._pod_id, self._pace = cloud, name, pod_id, pace
        self.found: set[str] = set()
        self.notes: list[str] = []
        """What people should know of them."""

    async def watch(self) -> None:
        for pause_s in (0.0, self._pace.twins_s):
            await asyncio.sleep(pause_s)
            with suppress(ApiError):
                listed = await self._cloud.pods(again_s=0.0)
                others = (pod for pod in listed if pod.name == self._name and not pod.terminated)
                new = {pod.id for pod in others} - self.found - {self._pod_id}
                self.found |= new
                for pod_id in sorted(new):
                    await self._end(pod_id)

    async def _end(self, pod_id: str) -> None:
        release = await let_go(self._cloud, self._name, [pod_id], self._pace, whole_name=False)
        said = f"may still bill: {release.reason}" if isinstance(release, MayStillBill) else "was let go at once"
        self.notes.append(f"RunPod made a second pod for the one that was asked for; {pod_id} {said}")
