"""What this plug-in needs of RunPod, whichever of its interfaces it speaks: the same outcomes from each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from provisioners.providers.runpod.values import BillingRecord, CloudName, Gpu, NetworkVolume, Pod


@dataclass(frozen=True)
class PersistentDisk:
    """A disk on the pod's own machine; it ends with the pod."""

    size_gb: int
    path: str


@dataclass(frozen=True)
class NetworkDisk:
    """An existing network volume, mounted."""

    volume_id: str
    path: str


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A pod that is asked for: everything that a create says."""

    name: str
    image: str
    gpu_id: str
    gpu_count: int
    cloud: CloudName
    data_centers: tuple[str, ...] = ()
    disk_gb: int
    mount: PersistentDisk | NetworkDisk | None = None
    ports: tuple[str, ...] = ("22/tcp",)
    args: str
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    min_cuda: str | None = None
    """The oldest CUDA, as major.minor, that the machine's driver must know for the image to start."""
    min_cpus: int | None = None
    min_memory_gb: int | None = None
    """For GraphQL; REST's create has no word for either, and gives what the kind of GPU comes with."""
    bid_usd_per_gpu_h: float | None = None
    """For spot; None asks for a pod that nobody can take away."""


class Named(Protocol):
    """A wish for something under a unique name."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True)
class Kind:
    """What is asked for and let go, in words."""

    noun: str
    command: str
    """What a person does to end one without us."""


class Rented(Protocol):
    """Something of RunPod's that bills under a unique name until it is let go."""

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def status(self) -> str: ...

    @property
    def terminated(self) -> bool: ...


W = TypeVar("W", bound=Named, contravariant=True)
R = TypeVar("R", bound=Rented, covariant=True)


class Rentals(Protocol[W, R]):
    """As much of RunPod as it takes to get exactly one of a name, and to let go of it with proof. Raises ApiError."""

    async def create(self, wish: W) -> R:
        """Ask once, and never again: an Ambiguous error leaves open whether it exists."""
        ...

    async def pods(self, *, again_s: float | None = None) -> Sequence[R]:
        """All of the account, to the last page."""
        ...

    async def pod(self, pod_id: str, *, again_s: float | None = None) -> R: ...

    async def end(self, pod_id: str) -> None:
        """Ask once for its end."""
        ...


class Cloud(Protocol):
    """RunPod. Every method raises ApiError; `again_s` says for how long a read is asked again."""

    @property
    def scarce_s(self) -> float:
        """For how long only what is urgent should be asked, so that letting go is never one request too many."""
        ...

    async def create(self, wish: Wish) -> Pod:
        """Ask once, and never again: an Ambiguous error leaves open whether a pod exists."""
        ...

    async def pods(self, *, again_s: float | None = None) -> list[Pod]:
        """All pods of the account, to the last page."""
        ...

    async def pod(self, pod_id: str, *, again_s: float | None = None) -> Pod: ...

    async def end(self, pod_id: str) -> None:
        """Ask once, by each way that there is, for the pod's end; returns when one of them accepted."""
        ...

    async def gpus(self, *, count: int, cloud: CloudName, spot: bool = False) -> Sequence[Gpu]:
        """The catalogue, with prices and stock for so many GPUs in one pod."""
        ...

    async def volumes(self, *, again_s: float | None = None) -> Sequence[NetworkVolume]: ...

    async def log_tail(self, pod_id: str, lines: int) -> list[str]:
        """The last lines that the pod has said; fewer, or none, if they do not come at once."""
        ...

    async def billing(self, pod_id: str) -> Sequence[BillingRecord]: ...
