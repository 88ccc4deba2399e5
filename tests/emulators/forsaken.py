"""Runs whose client died: sessions against a machine double that starts an engine, one client after the other."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

from provisioners.contract import Forward, Host, Lease, MayStillBill, Output, Process
from provisioners.journal import Entry, Journal
from runners.clock import Clock
from runners.engine import Installation
from runners.engines.llamacpp import LlamaCpp
from runners.events import Driven, Event
from runners.ledger import Ledger
from runners.plan import Plan
from runners.run_folder import RunFolder
from runners.session import Session
from tests.emulators.drives import plan_over, prose
from tests.emulators.engine import EngineDouble
from tests.emulators.provisioner import COMMAND, HostDouble, ProvisionerDouble, hang

TEXTS = {"a": prose("Geneva", 12)}
AGO_S = 100.0
NOBODY = 2**22 + 1
"""A process that there never was: no system counts so far."""


class Installed(LlamaCpp):
    """Launched, and there already."""

    def installation(self, version: str, *, accelerated: bool) -> Installation | None:  # type: ignore[override]
        return None


@dataclass
class Started:
    """A process of the host double; it runs until the test ends."""

    pid: int = 1

    async def wait(self) -> int:
        await hang()
        raise AssertionError

    async def catch_up(self) -> None:
        pass


@dataclass
class Machine(ProvisionerDouble):
    """A provisioner whose hosts start commands, and lead to the engine double."""

    engine_address: str = ""
    started: list[tuple[str, str]] = field(default_factory=list)
    forwarded: list[int] = field(default_factory=list)
    ports_given: int = 0

    async def host(self, lease: Lease) -> Host:
        await self.asked("host")
        return MachineHost(self)


@dataclass
class MachineHost(HostDouble):
    provisioner: Machine

    async def start(self, name: str, argv: Sequence[str], *, env: Mapping[str, str], on_output: Output) -> Process:
        self.provisioner.started.append((name, " ".join(argv)))
        on_output(b"listening\n")
        return Started()

    async def free_port(self) -> int:
        self.provisioner.ports_given += 1
        return 40_000 + self.provisioner.ports_given

    async def forward(self, port: int) -> Forward:
        self.provisioner.forwarded.append(port)
        return Forward(self.provisioner.engine_address, "ssh -L")


class Bench:
    """A run's folder and journal; sessions of it, each with a provisioner and an engine of its own."""

    def __init__(self, base: Path) -> None:
        self.base, self.home = base, base / "home"
        self.ledger = Ledger(self.home)
        self.journal = Journal(self.ledger.path)
        self.folder = RunFolder.create(self.home, "test")
        self.machine = Machine()
        self.limits: dict[str, Any] = {}

    def plan(self, *, price: float | None = 36.0) -> Plan:
        sections = {"engine": {"name": "llamacpp"}, "model": {"builtin": "lead", "served_name": "double"}}
        folder, limits = self.base / "texts", self.limits
        plan = plan_over(folder, TEXTS, provisioner=self.machine, price=price, limits=limits, **sections)
        return replace(plan, engine=Installed())

    def dies(self, *, after: int = 3) -> Entry:
        """A client leases a machine, gets so many answers, and dies; its lease as the journal has it, some time ago."""
        self.machine.release = MayStillBill("the client is dead", COMMAND)
        result = self.run(until=after)
        assert result["requests"]["ok"] == after
        (self.folder.path / "result.json").unlink()
        self.forsaken()
        lease = Lease(
            provider="double",
            name=result["lease"]["name"],
            run_id=self.folder.run_id,
            id="id-1",
            price_usd_per_h=36.0,
            storage_usd_per_h=3.6,
            deadline=datetime.now(UTC) + timedelta(minutes=30),
        )
        self.journal.reached(lease)
        entry = self.journal.of_run(self.folder.run_id)
        assert entry is not None
        self.machine = Machine()
        at = datetime.now(UTC) - timedelta(seconds=AGO_S)
        return replace(entry, intended_at=at, created_at=at)

    def forsaken(self) -> None:
        """In the ledger the run goes on, with a client that lives no more."""
        with closing(sqlite3.connect(self.ledger.path)) as db, db:
            db.execute("UPDATE experiments SET status = 'running', result = NULL, pid = ?", (NOBODY,))

    def run(
        self, *, adopted: Entry | None = None, price: float | None = 36.0, until: int = 1000, **engine: Any
    ) -> dict[str, Any]:
        """One client's session; it is interrupted after so many answers."""

        def watch(event: Event) -> None:
            if isinstance(event, Driven) and event.done == until:
                session.interrupt("SIGTERM")

        async def run() -> dict[str, Any]:
            nonlocal session
            double = EngineDouble(key=HostDouble(self.machine).key, **engine)
            async with asyncio.timeout(60), double:
                self.machine.engine_address = double.url.removeprefix("http://")
                plan = self.plan(price=price)
                session = Session(plan, self.folder, Clock(), self.ledger, {}, watch, adopted=adopted)
                return await session.run()

        session: Session
        # Each answer is seen; and no process imports a library beside each client, and asks the engine as well.
        with patch("runners.drive._SHOWN_EVERY_S", 0.0), patch("runners.checking.EndpointCheck.prepare"):
            return asyncio.run(run())

    @property
    def answered(self) -> int:
        return len((self.folder.path / "answers.jsonl").read_text().splitlines())

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder.path / "events.jsonl").read_text().splitlines()]
