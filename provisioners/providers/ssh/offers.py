"""From what the hosts say of themselves to offers, in the order in which they are tried. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from provisioners import naming
from provisioners.contract import Offer
from provisioners.hardware import Gpu, Hardware, Match, cuda_of, match, no_match, shortage
from recipes.errors import NoMachine
from recipes.spec import Resources
from recipes.units import GIB

FREE, TAKEN = "free", "taken"


@dataclass(frozen=True)
class Seen:
    """A host that would do."""

    address: str
    has: Hardware
    match: Match | None
    taken: bool


def judge(address: str, said: dict[str, Any], resources: Resources) -> Seen:
    """Raises NoMachine if the host is not what is asked for."""
    gpus = tuple(Gpu(gpu["name"], gpu["memory_mib"] / 1024, _free_gib(gpu)) for gpu in said["gpus"])
    has = Hardware(
        cpus=said["cpus"],
        memory_bytes=said["memory_bytes"],
        disk_free_bytes=said["disk_free_bytes"],
        gpus=gpus,
        cuda=next((cuda_of(gpu.get("driver", "")) for gpu in said["gpus"]), None),
    )
    if not said["venv"]:
        raise NoMachine("its python3 cannot make environments", advice="install it there: apt-get install python3-venv")
    if lacks := shortage(resources, has):
        raise NoMachine(lacks)
    found = match(resources, gpus)
    if resources.accelerators is not None and found is None:
        raise NoMachine(no_match(resources, gpus), advice="leave resources.accelerators out to run on the CPU")
    return Seen(address, has, found, said["taken"] is not None)


def _free_gib(gpu: dict[str, Any]) -> float | None:
    free = gpu.get("free_mib")
    return None if free is None else free / 1024


def offers_of(seen: Sequence[Seen], provider: str, price_usd_per_h: float | None) -> list[Offer]:
    """The free ones first; of these what the recipe wants most; then in the recipe's order."""
    ordered = sorted(seen, key=lambda one: (one.taken, one.match.place if one.match else 0))
    return [
        Offer(
            provider=provider,
            id=one.address,
            accelerator=one.match.asked.name if one.match else None,
            count=one.match.asked.count if one.match else 0,
            memory_gib=one.match.memory_gib if one.match else one.has.memory_bytes / GIB,
            cpus=one.has.cpus,
            usable_gib=one.match.memory_gib if one.match else None,
            free_gib=one.match.free_gib if one.match else None,
            disk_gib=one.has.disk_free_bytes / GIB,
            cuda=one.has.cuda,
            price_usd_per_h=price_usd_per_h,
            stock=TAKEN if one.taken else FREE,
        )
        for one in ordered
    ]


def none_left(refusals: Sequence[tuple[str, NoMachine]]) -> NoMachine:
    """One error that says of each host why."""
    if len(refusals) == 1:
        ((address, only),) = refusals
        return NoMachine(f"{address} cannot be used: {only.message}", advice=only.advice)
    reasons = "\n".join(f"  {address}: {error.message}" for address, error in refusals)
    advices = list(dict.fromkeys(error.advice for _, error in refusals if error.advice))
    return NoMachine(f"none of {len(refusals)} hosts can be used:\n{reasons}", advice="; ".join(advices))


def holder(taken: dict[str, Any]) -> str:
    """Who has a host, and since when."""
    lease = taken.get("lease")
    named = naming.read_name(lease) if lease else None
    who = f"run {named.run}" if named else (lease or "somebody who left no name")
    since = taken.get("since")
    when = f" since {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M} UTC" if since else ""
    user = f", of its user {taken['user']}" if taken.get("user") else ""
    return f"{who}{when}{user}"
