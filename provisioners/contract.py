"""What every provisioner promises, and the values that it deals in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:  # the journal is read by commands that need no recipe
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
    storage_usd_per_h: float = 0.0
    """Of the disks that live as long as the machine, where they are billed besides its price."""
    storage_basis: str = ""
    """Who says so, for people; empty where nothing is billed besides."""
    region: str | None = None
    """The data centre, where one is asked for; else the provider chooses."""
    stock: str | None = None
    """As the provider puts it: high, medium, low or none."""
    cloud: str | None = None
    spot: bool = False
    """Cheaper, and taken away when somebody pays more."""
    usable_gib: float | None = None
    """Of one accelerator, as its driver reports it; None where only the label is known."""
    free_gib: float | None = None
    """Of one accelerator, what no other program has taken; None where nobody says, or nobody else is there."""
    disk_gib: float | None = None
    """What the run can write: the container's disk, or what is free."""
    cuda: str | None = None
    """The newest CUDA that its driver knows, as major.minor; None if it is not known, or can be asked for."""

    @property
    def usd_per_h(self) -> float | None:
        """All that is billed by the hour; None if the price is not known."""
        return None if self.price_usd_per_h is None else self.price_usd_per_h + self.storage_usd_per_h


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """A change to the recipe that makes it work."""

    text: str
    overrides: tuple[str, ...]
    """As for --set."""
    price_usd_per_h: float | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One result of preflight."""

    level: Literal["ok", "warn", "block"]
    code: str
    message: str
    suggestion: str = ""
    """What to do, if there is one thing to do."""
    numbers: Mapping[str, float | int | str] = field(default_factory=dict)
    quote: str = ""
    """What the engine itself would say, word for word, so that a search finds it."""
    path: str = ""
    """The field of the recipe that it is about."""
    forced: bool = False
    """Would be a block, and was let pass by its code."""
    works: tuple[Remedy, ...] = ()
    """Changes with which this recipe would pass, the best first; each was judged like a recipe."""


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
    storage_usd_per_h: float = 0.0
    """Of its disks, where they are billed besides."""
    deadline: datetime | None = None
    """When the machine lets itself go, whatever happens."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What the provisioner needs to reach it again from another process; JSON, without secrets.

    "warnings" are told to people; "reached" is set once the machine was used.
    """

    @property
    def usd_per_h(self) -> float | None:
        """All that is billed by the hour; None if the price is not known."""
        return None if self.price_usd_per_h is None else self.price_usd_per_h + self.storage_usd_per_h


@dataclass(frozen=True, kw_only=True)
class BootJob:
    """A command that the machine starts by itself; who later starts one of the same name joins it.

    `{python}`, `{work}`, `{cache}` in an argument stand for the host's Python, work and cache directories.
    """

    name: str
    argv: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Boot:
    """What a machine does from its first second on, without a client."""

    files: Mapping[str, str] = field(default_factory=dict)
    """Text files by their path in the work directory; placeholders as in a job are replaced in those named *.json."""
    jobs: tuple[BootJob, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Of the jobs; may hold secrets."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is asked for with one offer."""

    offer: Offer
    lease: Lease
    resources: Resources
    boot: Boot = field(default_factory=Boot)
    max_price_usd_per_h: float | None = None
    idle_s: float | None = None
    """The machine lets itself go after so long without a client or progress; the provisioner's default, if None."""
    ports: tuple[int, ...] = ()
    """To open to the internet."""
    min_cuda: str | None = None
    """The oldest CUDA, as major.minor, that the machine's driver has to know."""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What the provider says of a lease now."""

    state: Literal["starting", "running", "stopped", "failed", "gone", "unknown"]
    message: str = ""
    price_usd_per_h: float | None = None


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What the provider says that a lease has cost so far."""

    usd: float
    seconds: float | None = None
    """Of computing, as far as the bill lets it be known."""


@dataclass(frozen=True)
class Gone:
    """Let go, with the proof."""

    proof: str
    at: datetime | None = None
    """When it was first seen to be gone; the proof may take longer. None if nobody knows."""


@dataclass(frozen=True)
class MayStillBill:
    """Not proven gone: what happened, and the command that ends it."""

    reason: str
    command: str


Release = Gone | MayStillBill


class Process(Protocol):
    """A command that runs on a host, and ends with the lease at the latest."""

    @property
    def pid(self) -> int: ...

    async def wait(self) -> int:
        """The exit status; negative for a signal. May be awaited more than once. Raises what `on_output` raised.

        Raises NoMachine if contact to the host was lost and could not be had again: then nobody knows how it ended.
        """
        ...

    async def catch_up(self) -> None:
        """Hear everything that it has said so far. Raises NoMachine if that cannot be had."""
        ...


@dataclass(frozen=True)
class Forward:
    """A way from the client to a port of a host, for as long as the host is held."""

    address: str
    """host:port for the client."""
    kind: Literal["direct", "ssh -L", "forwarder", "on the host"]


class Host(Protocol):
    """A machine that can be reached."""

    work_dir: Path
    """The run's own folder there."""
    cache_dir: Path
    """What outlives the run there: installed engines."""
    python: str
    python_tag: str
    """Its implementation, version and platform, as in cpython-311-linux-x86_64: what an environment depends on."""
    key: str
    """What an engine there asks of its clients: random, and the same for every client of the lease."""
    notes: tuple[str, ...]
    """What people should know of this machine, such as a switch that could not be proven."""
    clock_offset_s: float
    """By how much its clock is ahead of the client's, as far as their link lets it be told."""

    async def start(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str], on_output: Output, counts: bool = False
    ) -> Process:
        """Start a command in the work directory; both its streams go to `on_output` as they come.

        On a machine that outlives its client, a command of this name that was started before is joined instead: its
        output is heard from the beginning. What a command writes that `counts` is a sign of life, also without a
        client. Raises HostCommandFailed if there is no such command.
        """
        ...

    async def ready_for(self, boot: Boot) -> None:
        """Put the boot's files into the work directory, unless the machine was given them when it was created.

        Its jobs are not started by this.
        """
        ...

    async def write(self, name: str, text: str) -> Path:
        """Put a small file into the work directory; returns its path there."""
        ...

    async def provide(self, path: Path) -> Path:
        """Make a file or folder of the client available; returns its path there."""
        ...

    async def fetch(self, pattern: str, into: Path) -> list[Path]:
        """Copy the work directory's files that match into a folder of the client; whole and checked, or not at all."""
        ...

    def place(self, path: str) -> str:
        """Where a path that a recipe names for the machine lies there."""
        ...

    async def free_port(self) -> int:
        """A port of the host that nobody listens on now."""
        ...

    async def forward(self, port: int) -> Forward:
        """A way from the client to a port of the host's loopback; it heals by itself after a cut."""
        ...

    def bear_silence(self, seconds: float | None = None) -> None:
        """Go on for so long without contact, because what runs there needs nobody; None: as usual."""
        ...

    async def close(self) -> None:
        """End the client's connections; what runs on the host goes on."""
        ...


@dataclass(frozen=True)
class Site:
    """Where this client keeps things."""

    home: Path
    """RECIPE_HOME: the ledger, the runs, their work directories."""
    cache: Path
    """What can be made again: engines installed on this machine."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The client's environment: where keys and addresses come from."""


class Provisioner(Protocol):
    """Gets machines and lets them go. Every method may be called again after a failure.

    One that knows how long it takes says so in an attribute `phase_times`; see `provisioners.phase_times`. One that
    looks long for a machine which is asked for again tells so by an attribute `says`, which whoever asks sets.
    """

    name: str
    billable: bool
    """Whether a lease costs somebody money while nobody watches."""
    secrets: tuple[str, ...]
    """Environment variables whose values may show nowhere."""
    at_once: bool
    """Whether several leases may be held at the same time without sharing a machine."""

    async def offers(self, resources: Resources) -> list[Offer]:
        """The ways to get this hardware now, in the order in which they are tried. Costs nothing. Raises NoMachine."""
        ...

    async def catalogue(self, *, cloud: str | None = None, accelerator: str | None = None) -> list[Offer]:
        """Everything with accelerators that could be asked for now, in each usual count, the cheapest first.

        Of one cloud, or of one kind of accelerator, if that is wanted. Costs nothing. Raises NoMachine.
        """
        ...

    def installed(self, environment: str) -> bool | None:
        """Whether the machine has this engine's environment already; None if nobody can see that before the lease."""
        ...

    def stored(self, repo: str, commit: str) -> bool | None:
        """Whether the machine has this model of the Hub where it would be loaded from; None as for `installed`."""
        ...

    async def create(self, order: Order, clearance: Clearance) -> Lease:
        """Ask for the machine; returns as soon as an id exists, with the lease completed. May start the billing.

        The caller has written the lease to the journal before. Raises NoCapacity if this offer cannot be had now, and
        another might; NoMachine if none will. In both cases nothing was created, or what was created is gone. After an
        answer that was lost the machine is looked for by its name; no second one is ever asked for blindly.
        """
        ...

    async def observe(self, lease: Lease) -> Observed:
        """What the provider says of it now; "unknown" if it says nothing. Costs nothing. Never raises for silence."""
        ...

    async def host(self, lease: Lease) -> Host:
        """Wait until the machine can be used; also from another process than the one that created it.

        Raises NoMachine. The caller sets the deadline by cancelling.
        """
        ...

    async def destroy(self, lease: Lease, *, patience_s: float = 60.0) -> Release:
        """Let it go and prove it. Idempotent; never raises for something that is already gone.

        A lease without an id is looked for by its name. Gives up after `patience_s`, with MayStillBill.
        """
        ...

    async def owned(self, owner: str) -> list[Lease]:
        """Everything of this owner that the provider has, recognised by its name alone. Raises NoMachine."""
        ...

    async def bill(self, lease: Lease) -> Bill | None:
        """The provider's own account of a lease; None if it gives none. Never raises for silence."""
        ...

    def login(self, lease: Lease) -> Sequence[str] | None:
        """The command that opens a shell there; None if there is no way, or no need."""
        ...

    def command_to_end(self, lease: Lease) -> str:
        """What a person types to end it without us."""
        ...
