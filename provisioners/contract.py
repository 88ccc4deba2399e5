"""What every provisioner promises, and the values that it deals in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from recipes.spec import Resources

Output = Callable[[bytes], None]


@dataclass(frozen=True, kw_only=True)
class Offer:
    """One way to get the hardware."""

    provider: str
    id: str
    """The provider's own name of the hardware."""
    accelerator: str | None = None
    count: int = 0
    memory_gib: float | None = None
    """Memory of one accelerator, or the RAM of a machine without one."""
    cpus: int | None = None
    price_usd_per_h: float | None = None
    """None if nobody has said what it costs."""
    region: str | None = None
    stock: str | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One result of preflight."""

    level: Literal["ok", "warn", "block"]
    code: str
    message: str
    suggestion: str = ""
    numbers: Mapping[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True)
class Clearance:
    """Findings without a block: the permission to create. Made by `preflight.clear` and nowhere else."""

    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Lease:
    """Something that may be billing."""

    provider: str
    name: str
    """Unique; carries the run, so that it can be recognised without our files."""
    run_id: str
    id: str | None = None
    """What the provider calls it, once known."""
    price_usd_per_h: float | None = None
    deadline: datetime | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    """What the provisioner needs to reach it again from another process; JSON."""


@dataclass(frozen=True)
class Gone:
    """Let go, with the proof."""

    proof: str


@dataclass(frozen=True)
class MayStillBill:
    """Not proven gone: what happened, and the command that ends it."""

    reason: str
    command: str


Release = Gone | MayStillBill


class Process(Protocol):
    """A command that runs on a host, in the lease's process group."""

    @property
    def pid(self) -> int: ...

    async def wait(self) -> int:
        """The exit status; negative for a signal. May be awaited more than once. Raises what `on_output` raised."""
        ...


class Host(Protocol):
    """A machine that can be reached."""

    work_dir: Path
    """The run's own folder there."""
    cache_dir: Path
    """What outlives the run there: installed engines."""
    python: str
    python_tag: str
    """Its implementation, version and platform, as in cpython-311-linux-x86_64: what an environment depends on."""

    async def start(self, argv: Sequence[str], *, env: Mapping[str, str], on_output: Output) -> Process:
        """Start a command in the work directory; both its streams go to `on_output` as they come.

        Raises HostCommandFailed if there is no such command.
        """
        ...

    async def write(self, name: str, text: str) -> Path:
        """Put a small file into the work directory; returns its path there."""
        ...

    async def provide(self, path: Path) -> Path:
        """Make a file or folder of the client available; returns its path there."""
        ...

    async def fetch(self, pattern: str, into: Path) -> list[Path]:
        """Copy the work directory's files that match into a folder of the client."""
        ...

    async def free_port(self) -> int:
        """A port of the host that nobody listens on now."""
        ...

    def address(self, port: int) -> str:
        """Where the client reaches that port: host:port."""
        ...


@dataclass(frozen=True)
class Site:
    """Where this client keeps things."""

    home: Path
    """RECIPE_HOME: the ledger, the runs, their work directories."""
    cache: Path
    """What can be made again: engines installed on this machine."""


class Provisioner(Protocol):
    """Gets machines and lets them go. Every method may be called again after a failure."""

    name: str
    billable: bool
    """Whether a lease costs somebody money while nobody watches."""

    async def offers(self, resources: Resources) -> list[Offer]:
        """The ways to get this hardware now, cheapest or first-named first. Costs nothing. Raises NoMachine."""
        ...

    async def create(self, offer: Offer, clearance: Clearance, lease: Lease) -> Lease:
        """Ask for the machine; returns as soon as an id exists, with the lease completed. May start the billing.

        The caller has written the lease to the journal before. Raises NoMachine; then nothing was created.
        """
        ...

    async def host(self, lease: Lease) -> Host:
        """Wait until the machine can be used. Raises NoMachine."""
        ...

    async def destroy(self, lease: Lease) -> Release:
        """Let it go and prove it. Idempotent; never raises for something that is already gone."""
        ...

    def command_to_end(self, lease: Lease) -> str:
        """What a person types to end it without us."""
        ...
