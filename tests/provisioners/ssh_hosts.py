"""Hosts of somebody's own for tests: real servers on loopback, each with a home and a lock, and clients of them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from provisioners.contract import Boot, Clearance, Host, Lease, Offer, Order, Process, Site
from provisioners.providers.ssh import PLUGIN
from provisioners.providers.ssh.provider import SshProvisioner
from recipes.spec import Resources
from tests.emulators.sshd import Sshd, running_sshd

TICK_S = 0.05
SLEEPER = "import time; print('on', flush=True); time.sleep(600)"


@dataclass
class Machine:
    """One host."""

    sshd: Sshd
    lock: Path

    @property
    def address(self) -> str:
        return f"{self.sshd.user}@127.0.0.1:{self.sshd.port}"

    @property
    def states(self) -> list[str]:
        """The leases of which there is something."""
        folder = self.sshd.home / ".recipe"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    @property
    def is_free(self) -> bool:
        """Whether nobody holds its lock."""
        if not self.lock.exists():
            return True
        with self.lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    def is_as_found(self) -> bool:
        return self.is_free and not (self.sshd.home / ".recipe").exists()


@dataclass
class Client:
    """One user's side: a home of their own, and the hosts that their recipe names."""

    home: Path
    resources: Resources
    provisioner: SshProvisioner = field(init=False)

    def __post_init__(self) -> None:
        self.again()

    def again(self) -> None:
        """As another process would find things."""
        self.provisioner = PLUGIN(Site(home=self.home, cache=self.home / "cache"))

    def order(self, offer: Offer, *, lasts_s: float = 3600, idle_s: float = 600, boot: Boot | None = None) -> Order:
        run_id = f"test-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        lease = Lease(
            provider="ssh",
            name=f"recipe-ana-{run_id}-60m",
            run_id=run_id,
            price_usd_per_h=offer.price_usd_per_h,
            deadline=datetime.now(UTC) + timedelta(seconds=lasts_s),
        )
        return Order(offer=offer, lease=lease, resources=self.resources, idle_s=idle_s, boot=boot or Boot())

    async def offer(self) -> Offer:
        return (await self.provisioner.offers(self.resources))[0]

    async def take(self, **how: Any) -> Lease:
        return await self.provisioner.create(self.order(await self.offer(), **how), Clearance(()))

    def forgetting(self, lease: Lease) -> Lease:
        """The lease as a journal has it whose client died before it heard of it."""
        return replace(lease, id=None, details={})


def client(home: Path, *machines: Machine, key: Path | None = None, **resources: Any) -> Client:
    """Whose key is that of the first machine, unless another is given."""
    given = {"provisioner": "ssh", "hosts": [machine.address for machine in machines], **resources}
    if key or machines:
        given.setdefault("ssh_key", str(key or machines[0].sshd.key))
    return Client(home, Resources.model_validate(given))


@contextmanager
def machine(folder: Path, lock: Path | None = None, key: str | None = None, **env: str) -> Iterator[Machine]:
    """A host; `lock` if it is the same machine as another, `key` a public key that is let in as well."""
    lock = lock or folder / "lock"
    settings = {"HOME": str(folder / "home"), "RECIPE_HOST_LOCK": str(lock), "RECIPE_TICK_S": str(TICK_S), **env}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with running_sshd(folder, SetEnv=" ".join(f'"{name}={value}"' for name, value in settings.items())) as sshd:
        if key:
            sshd.authorize(key, sshd.key.with_name("client_key.pub").read_text())
        yield Machine(sshd, lock)


async def start(host: Host, program: str, name: str = "job", **env: str) -> Process:
    """A Python program that says something when it is on."""
    said = asyncio.Event()
    process = await host.start(name, [sys.executable, "-c", program], env=env, on_output=lambda _: said.set())
    async with asyncio.timeout(60):
        await said.wait()
    return process


def process_alive(pid: int) -> bool:
    """Whether it runs; one that has ended and is not yet waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def marked(lease: Lease) -> list[int]:
    """The processes that carry the lease's mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("RECIPE_LEASE") == lease.name and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def switch_of(lease: Lease) -> list[int]:
    """The dead-man switch of a lease."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if lease.name in words and any(word.endswith("switch.sh") for word in words) and process.pid != os.getpid():
            found.append(process.pid)
    return found
