"""RunPod as a whole on loopback: the server, its faults, and the ledger that judges."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from aiohttp import web

from provisioners.rehearsal import sshd
from provisioners.rehearsal.account import Account, new_key
from provisioners.rehearsal.clock import Clock
from provisioners.rehearsal.control import Control
from provisioners.rehearsal.faults import Faults, Mishaps
from provisioners.rehearsal.gate import Gate
from provisioners.rehearsal.graphql import GraphQL
from provisioners.rehearsal.ledger import Ledger
from provisioners.rehearsal.pods import Pod, Workshop
from provisioners.rehearsal.rest import Rest
from recipes.errors import NoMachine

HOST = "127.0.0.1"
_LARGEST_BODY = 4 << 20


class Emulator:
    """`async with Emulator(root) as emulator:` serves until the context ends; then every pod is killed.

    `root` holds the ledger, volumes and the pods' disks. `time_scale` makes the emulator's seconds, in faults and on
    the bill, pass faster than the real ones. `image_path` is a folder of programs that pods have first on their PATH,
    as if their image had brought them; `visible` are further folders that pods see although their own /tmp or home hide
    them.
    `isolated` False makes pods plain processes also for root. Raises NoMachine without sshd.
    """

    def __init__(
        self,
        root: Path,
        *,
        faults: Faults | None = None,
        time_scale: float = 1.0,
        port: int = 0,
        key: str | None = None,
        image_path: Path | None = None,
        visible: Sequence[Path] = (),
        isolated: bool | None = None,
        keep_disks: bool = False,
    ) -> None:
        self.root = root.absolute()
        self.key = key or new_key()
        self.port = port
        self._lock = take_over(self.root)
        clock, self._mishaps = Clock(time_scale), Mishaps(faults or Faults())
        self.ledger = Ledger(self.root / "ledger.db", scale=time_scale)
        self._account = Account(
            Workshop(
                root=self.root,
                clock=clock,
                ledger=self.ledger,
                faults=lambda: self._mishaps.faults,
                due=self._mishaps.due,
                isolated=can_isolate() if isolated is None else isolated,
                sshd=sshd.find_sshd(),
                image_path=image_path.absolute() if image_path else None,
                visible=seen_through(image_path, visible),
                keep_disks=keep_disks,
            ),
            self._mishaps,
            key=self.key,
        )
        self._gate = Gate(self._account)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/v2"

    @property
    def graphql_url(self) -> str:
        return f"http://{HOST}:{self.port}/graphql"

    @property
    def faults(self) -> Faults:
        return self._mishaps.faults

    @property
    def pods(self) -> dict[str, Pod]:
        """Every pod that was created, by its id; terminated ones too."""
        return self._account.pods

    def inject(self, **changes: Any) -> None:
        """Change some faults from now on; counts and times of what is named begin again."""
        self._mishaps.change(changes)
        self._gate.faults_changed(changes)

    async def __aenter__(self) -> Emulator:
        app = web.Application(middlewares=[self._gate.middleware], client_max_size=_LARGEST_BODY)
        app.add_routes(Rest(self._account).routes())
        app.add_routes(GraphQL(self._account).routes())
        app.add_routes(Control(self._account, self.inject).routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        try:
            self.port = await self._gate.open(self._runner, HOST, self.port)
        except OSError as error:
            raise NoMachine(f"the rehearsal cannot listen on port {self.port}: {error.strerror}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.shield(self._close())

    async def _close(self) -> None:
        await self._gate.close()
        await self._account.close("emulator: closed")
        await self._runner.cleanup()
        self.ledger.close()
        self._lock.close()


def take_over(root: Path) -> IO[str]:
    """Make the folder ours for as long as the returned file is open, and clear what died with an emulator before."""
    for name in ("logs", "volumes"):
        (root / name).mkdir(parents=True, exist_ok=True)
    lock = (root / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise NoMachine(f"another rehearsal uses {root}") from None
    shutil.rmtree(root / "pods", ignore_errors=True)
    return lock


def can_isolate() -> bool:
    """Whether pods can have namespaces of their own here."""
    return sys.platform == "linux" and os.geteuid() == 0 and _may_unshare()


def _may_unshare() -> bool:
    """Containers without CAP_SYS_ADMIN have a root who may not."""
    status = Path("/proc/self/status").read_text().splitlines()
    effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    return bool(effective >> 21 & 1)


def seen_through(image_path: Path | None, visible: Sequence[Path]) -> tuple[Path, ...]:
    """The folders that the image's programs need: their own, that above a bin, and that of the Python they run on."""
    found = [path.absolute() for path in visible]
    if image_path is not None:
        if not image_path.is_dir():
            raise NoMachine(f"the rehearsal's image path {image_path} is no folder")
        home = image_path.absolute()
        found.append(home.parent if home.name == "bin" else home)
        python = home / "python3"
        while python.is_symlink():
            python = python.parent / python.readlink()
            found.append(python.parent.parent if python.parent.name == "bin" else python.parent)
    return tuple(path for path in dict.fromkeys(found) if path != Path("/") and path != Path("/usr"))
