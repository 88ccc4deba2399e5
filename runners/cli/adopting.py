"""Goes on with an earlier run of a recipe whose client died, where its provisioner keeps machines that can be found.

Such a provisioner says so in an attribute `adopts`. Its `create`, asked again for a lease, finds the machine that there
is, so that what it keeps of it is whole again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from provisioners.contract import MayStillBill, Offer
from provisioners.journal import Entry, Journal
from provisioners.named import underlying_of
from provisioners.naming import read_name
from provisioners.preflight import clear
from provisioners.unproven import LISTED_S, LOOK_EVERY_S, unproven
from recipes.errors import NoMachine, RecipeError, UsageError
from recipes.load import LoadedRecipe
from runners import registry
from runners.ledger import Ledger
from runners.machines import end, journalled
from runners.ordering import order_of
from runners.plan import Plan
from runners.planning import make_plan
from runners.reaching import recipe_of
from runners.run_folder import RunFolder
from runners.together import to_its_end

Say = Callable[[str], None]
_LISTED = timedelta(seconds=LISTED_S)
_SHORTEST = timedelta(minutes=2)
"""A machine that lets itself go sooner is not worth going on with."""


@dataclass(frozen=True)
class Standing:
    """A run whose client died, and its machine, which is there."""

    folder: RunFolder
    entry: Entry
    loaded: LoadedRecipe

    async def plan(self) -> Plan:
        """The run's plan again, for the machine that it has."""
        return await make_plan(self.loaded, os.environ, leased=leased_offer(self.folder, self.entry))

    async def taken_over(self, plan: Plan, say: Say) -> Entry:
        """Its machine, also where what was kept of it broke off. A failure is told: the machine is there anyway."""
        lease, journal = self.entry.lease, Journal(Ledger(self.folder.path.parents[1]).path)
        order = order_of(plan, plan.offer, self.folder.run_id, lease.deadline, os.environ)
        if hasattr(plan.provisioner, "says"):
            plan.provisioner.says = lambda text: say(plan.mask(text))
        try:
            lease = await plan.provisioner.create(replace(order, lease=lease), clear(plan.findings))
        except RecipeError as error:
            why = plan.mask(error.message)
            say(f"warning: {lease.name} is gone on with, though {plan.provisioner.name} says: {why}")
            return self.entry
        except asyncio.CancelledError:
            await to_its_end(_let_go(self.entry, Ledger(self.folder.path.parents[1]), say))
            raise
        lease = replace(lease, details={**self.entry.lease.details, **lease.details})
        journal.created(lease)
        return replace(self.entry, lease=lease)


async def standing(loaded: LoadedRecipe, ledger: Ledger, say: Say, *, but: Collection[str] = ()) -> Standing | None:
    """The newest run of this recipe that is to be gone on with, `but` none of these; None if there is none.

    One whose machine is not there, or ends too soon, is let go with proof. Raises MayStillBillError without one.
    """
    if not _adopts(loaded.recipe.resources.provisioner):
        return None
    provisioner = registry.provisioner(loaded.recipe.resources.provisioner)
    for entry in reversed(Journal(ledger.path).open_leases()):
        found = _of(loaded, entry, ledger) if entry.lease.provider == provisioner.name else None
        if found is None or found.folder.run_id in but:
            continue
        if await _is_there(entry, say) and not _ends_soon(entry):
            say(f"goes on with {entry.lease.run_id}, whose client died; --fresh begins anew")
            return found
        await _let_go(entry, ledger, say)
    return None


def leased_offer(folder: RunFolder, entry: Entry) -> Offer:
    """What was leased, as far as the plan tells."""
    offers = (folder.read_json("plan.json") or {}).get("offers") or []
    wanted = entry.lease.details.get("offer", offers[0]["id"] if offers else "")
    known = next((offer for offer in offers if offer["id"] == wanted), offers[0] if offers else None)
    lease = entry.lease
    costs = {"price_usd_per_h": lease.price_usd_per_h, "storage_usd_per_h": lease.storage_usd_per_h}
    return Offer(**{"provider": lease.provider, "id": lease.id or "", **(known or {}), **costs})


def _adopts(provisioner: str) -> bool:
    """Raises what there is to say against the provisioner's name: so would the plan."""
    return bool(getattr(registry.provisioner(provisioner), "adopts", False))


def _of(loaded: LoadedRecipe, entry: Entry, ledger: Ledger) -> Standing | None:
    """The lease's run, if it is one of this recipe as it is now, and nobody minds it."""
    folder = RunFolder(ledger.path.parent / "runs" / entry.lease.run_id)
    row = ledger.run(entry.lease.run_id)
    if row is None or row["status"] != "lost":
        return None
    try:
        earlier = recipe_of(folder)
    except (UsageError, OSError, ValueError, KeyError):
        return None
    return Standing(folder, entry, earlier) if earlier.digest == loaded.digest else None


async def _is_there(entry: Entry, say: Say) -> bool:
    """Looked for as long as it may not be shown yet. Raises NoMachine where nobody can be asked for so long."""
    provisioner, told, began = registry.provisioner(entry.lease.provider), False, datetime.now(UTC)
    while True:
        state = (await provisioner.observe(entry.lease)).state
        if state in ("starting", "running"):
            return True
        if state != "unknown":
            return False
        try:
            listed, asked_at = await _is_listed(entry), entry.asked_at or entry.changed_at
        except NoMachine:  # an answer that does not come says nothing of the machine
            listed, asked_at = False, began
            if datetime.now(UTC) >= began + _LISTED:
                raise
        if listed or datetime.now(UTC) >= asked_at + _LISTED:
            return listed
        if not told:
            say(f"{entry.lease.name}: looking whether an earlier run's machine is there")
            told = True
        await asyncio.sleep(LOOK_EVERY_S)


async def _is_listed(entry: Entry) -> bool:
    """Whether whoever lists the machines of its provisioner has this one. Raises NoMachine."""
    said = read_name(entry.lease.name)
    lister = registry.provisioner(underlying_of(registry.provisioner(entry.lease.provider)))
    return said is not None and any(one.name == entry.lease.name for one in await lister.owned(said.owner))


def _ends_soon(entry: Entry) -> bool:
    deadline = entry.lease.deadline
    return deadline is not None and deadline - datetime.now(UTC) < _SHORTEST


async def _let_go(entry: Entry, ledger: Ledger, say: Say) -> None:
    """Of a run that nobody goes on with. Raises MayStillBillError without proof."""
    say(f"{entry.lease.name}: of a run whose client died; it is let go")
    machine = next((m for m in journalled(ledger) if m.lease.name == entry.lease.name), None)
    release = await end(machine, ledger) if machine is not None else None
    if isinstance(release, MayStillBill):
        raise unproven(entry.lease, release)
