"""Disks that outlive machines, for provisioners that have them: what a provisioner promises of its network volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from provisioners.contract import Offer, Release

if TYPE_CHECKING:
    from recipes.spec import Resources


@dataclass(frozen=True, kw_only=True)
class StoredVolume:
    """A network volume. It bills until it is deleted."""

    id: str
    name: str
    size_gb: int
    """Of 10⁹ bytes."""
    region: str
    """Its data centre; machines that mount it are rented there."""


@dataclass(frozen=True, kw_only=True)
class Stocked:
    """What a data centre has of one wish for hardware."""

    stock: str
    """high, medium, low or none: of the best offer there."""
    usd_per_h: float | None = None
    """Of the cheapest machine there that is wanted and in stock."""
    excluded: bool = False
    """The wish itself leaves this data centre out."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A data centre that can hold a network volume, and what there is of the wanted hardware."""

    region: str
    wished: tuple[Stocked, ...] = ()
    """Of each wish, in their order."""

    @property
    def has_all(self) -> bool:
        """Whether every wish is in stock."""
        return all(one.stock != "none" for one in self.wished)


class VolumeKeeper(Protocol):
    """Makes, grows and deletes network volumes. Every method may be called again after a failure. All raise NoMachine.

    A provisioner that has network volumes is one.
    """

    smallest_gb: int
    largest_gb: int
    volumes_page: str
    """Where people see them, and delete one by hand."""

    def volume_usd_per_month(self, size_gb: int) -> float | None:
        """What a network volume costs; None if nobody has said."""
        ...

    async def places(self, wanted: Sequence[Resources]) -> list[Place]:
        """Where a volume for all of these can lie, the best first: where each is in stock, then the cheapest.

        Costs nothing and changes nothing.
        """
        ...

    async def volumes(self) -> list[StoredVolume]:
        """All of the account."""
        ...

    async def find_volume(self, volume_id: str) -> StoredVolume | None:
        """As the provider has it now; None if it can neither be read nor is listed."""
        ...

    async def make_volume(self, name: str, size_gb: int, region: str, *, fresh: bool = False) -> StoredVolume:
        """The volume of this unique name: found, or else made; then it bills.

        `fresh`: nobody can have asked for this name before, so one look is enough; else it is looked for until even a
        list that lags would have it. After an answer that was lost it is looked for by its name, and never made twice.
        Raises Unsettled if nobody can say whether it exists.
        """
        ...

    async def grow_volume(self, volume_id: str, size_gb: int) -> StoredVolume:
        """Make it at least so large; it is never made smaller."""
        ...

    async def delete_volume(self, volume_id: str | None, name: str, *, patience_s: float = 60.0) -> Release:
        """Delete it, and prove it. Idempotent. One without an id is looked for by its name."""
        ...

    async def delete_one(self, volume: StoredVolume, *, patience_s: float = 60.0) -> Release:
        """Delete this one alone, whatever others bear its name, and prove it."""
        ...

    async def fillers(self, volume: StoredVolume) -> list[Offer]:
        """The machines with one accelerator that could mount it now, the cheapest first."""
        ...
