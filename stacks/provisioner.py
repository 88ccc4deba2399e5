"""The provisioner `pulumi`: RunPod's machines, each in a Pulumi stack of its own, so that others can end it too.

Pulumi's word is never the proof: RunPod is asked itself. A missing engine, a lock, a broken state keep no machine.
Nothing of Pulumi is imported before a machine is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from provisioners.contract import (
    Bill,
    Clearance,
    Host,
    Lease,
    MayStillBill,
    Observed,
    Offer,
    Order,
    Release,
    Site,
)
from provisioners.named import provisioner_named
from provisioners.phase_times import PhaseTimes, phase_times_of
from provisioners.threads import in_thread
from recipes.errors import NoMachine, RecipeError, Unsettled
from recipes.ranges import Range
from stacks import engine
from stacks.automation import Managed
from stacks.holding import Place
from stacks.masks import mask_of
from stacks.orders import Request, lease_of
from stacks.values import Heard, NoEngine, NoSuchStack

if TYPE_CHECKING:
    from recipes.spec import Resources

UNDERLYING = "runpod"
_SHORTEST_S = 3.0
_TIDY_S = 15.0


class PulumiProvisioner:
    """Leases of RunPod's GPUs, created and destroyed through Pulumi's Automation API. Implements Provisioner."""

    name = "pulumi"
    billable = True
    secrets: tuple[str, ...] = ("RUNPOD_API_KEY", "PULUMI_CONFIG_PASSPHRASE", "PULUMI_ACCESS_TOKEN")
    at_once = True
    adopts = True
    """A run whose client died is gone on with by the next one of the same recipe."""
    underlying = UNDERLYING
    """Who lists its machines."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._runpod = provisioner_named(site, UNDERLYING)
        self._mask = mask_of(site.env)
        self._told: dict[str, Lease] = {}
        """What a pod's provider has told of it, also where Pulumi did not get to its end."""
        self.says: Heard = lambda _: None
        """Is told what a pod's provider does that takes long."""

    @property
    def phase_times(self) -> PhaseTimes:
        """RunPod's, and what Pulumi takes to start and to write its state."""
        base = phase_times_of(self._runpod)
        return replace(base, provision_s=_longer(base.provision_s), release_s=_longer(base.release_s))

    async def offers(self, resources: Resources) -> list[Offer]:
        """RunPod's. Raises NoMachine without Pulumi's engine: nothing is planned that could not be had."""
        await in_thread(engine.need, self._site)
        return await self._runpod.offers(resources)

    async def catalogue(self, *, cloud: str | None = None, accelerator: str | None = None) -> list[Offer]:
        return await self._runpod.catalogue(cloud=cloud, accelerator=accelerator)

    def installed(self, environment: str) -> bool | None:
        return self._runpod.installed(environment)

    def stored(self, repo: str, commit: str) -> bool | None:
        return self._runpod.stored(repo, commit)

    async def create(self, order: Order, clearance: Clearance) -> Lease:
        """The order's pod, in a stack of its name. Called again for a lease, it finds the pod that there is."""
        place, request = Place.of(order.lease), Request.of(order, clearance)

        def program() -> None:
            from stacks.gpu_pod.program import run_request  # Pulumi takes long to load

            run_request(request, provisioner=UNDERLYING, first=managed.fresh)

        try:
            managed = await Managed.open(self._site, place.project, place.name, program, create=True)
        except RecipeError as error:  # nothing was asked for
            raise NoMachine(error.message, advice=error.advice) from error
        try:
            outputs = await managed.up(self.says)
        except NoMachine:
            if not managed.report.created:
                if managed.fresh:  # else it may hold a pod that only could not be asked for
                    await self._forgotten(managed, force=True)
                raise
            raise self._unsettled(order.lease, managed, "it was made, and then given up") from None
        except RecipeError as error:
            raise self._unsettled(order.lease, managed, error.message) from error
        finally:
            for told in managed.report.created:
                self._told[order.lease.name] = lease_of(told)
        return lease_of(outputs["lease"])

    def _unsettled(self, lease: Lease, managed: Managed, why: str) -> Unsettled:
        made = managed.report.created
        what = f"pod {made[-1]['id']} exists" if made else f"nobody knows whether {lease.name} exists"
        return Unsettled(f"Pulumi did not get to its end, and {what}: {why}")

    async def observe(self, lease: Lease) -> Observed:
        return await self._runpod.observe(self._known(lease))

    async def host(self, lease: Lease) -> Host:
        return await self._runpod.host(self._known(lease))

    async def destroy(self, lease: Lease, *, patience_s: float = 60.0) -> Release:
        """Through Pulumi for half of the time at most; whatever that says, RunPod's own word is the proof."""
        known = self._known(lease)
        loop = asyncio.get_running_loop()
        end = loop.time() + patience_s
        managed, note = await self._destroyed(known, patience_s / 2)
        release: Release | None = (
            managed.report.released[-1] if managed is not None and managed.report.released else None
        )
        if release is None or (await self._runpod.observe(known)).state not in ("gone", "unknown"):
            release = await self._runpod.destroy(known, patience_s=max(_SHORTEST_S, end - loop.time()))
        if isinstance(release, MayStillBill):
            return replace(release, reason=_joined(release.reason, note))
        self._told.pop(lease.name, None)
        if managed is not None and Place.of(lease).own:
            note = _joined(note, await self._forgotten(managed, force=bool(note)))
        return replace(release, proof=_joined(release.proof, note))

    async def _destroyed(self, lease: Lease, patience_s: float) -> tuple[Managed | None, str]:
        """What Pulumi did, and what went wrong with it; a backend that does not answer is not waited for longer.

        A stack of several lives may hold another machine by now, which is none of ours to end.
        """
        place, managed = Place.of(lease), None
        patience_s = max(_SHORTEST_S, patience_s)
        end = asyncio.get_running_loop().time() + patience_s
        try:
            async with asyncio.timeout(patience_s):
                managed = await Managed.open(self._site, place.project, place.name, create=False)
                if not place.own and (await managed.outputs()).get("name") != lease.name:
                    return None, ""
            left_s = end - asyncio.get_running_loop().time()
            await managed.destroy(patience_s=max(_SHORTEST_S, left_s))
        except NoSuchStack:
            return None, ""
        except NoEngine as error:
            return None, f"not through Pulumi: {error.message}"
        except TimeoutError:
            return None, f"not through Pulumi: it did not answer in {patience_s:.0f} s"
        except RecipeError as error:
            return managed, f"Pulumi's own destroy failed: {error.message}"
        except Exception as error:
            return managed, self._mask(f"Pulumi's own destroy failed: {type(error).__name__}: {error}")
        return managed, ""

    async def _forgotten(self, managed: Managed, *, force: bool) -> str:
        """The stack is of no use any more; what its state may still tell of a machine that is gone goes with it."""
        try:
            async with asyncio.timeout(_TIDY_S):
                await managed.remove(force=force)
        except Exception as error:
            return self._mask(f"its stack stays: {str(error) or 'Pulumi did not answer'}")
        return ""

    async def owned(self, owner: str) -> list[Lease]:
        """Nothing: RunPod lists its pods, whoever has asked for them."""
        return []

    async def bill(self, lease: Lease) -> Bill | None:
        return await self._runpod.bill(self._known(lease))

    def login(self, lease: Lease) -> Sequence[str] | None:
        return self._runpod.login(lease)

    def command_to_end(self, lease: Lease) -> str:
        return self._runpod.command_to_end(lease)

    def _known(self, lease: Lease) -> Lease:
        """With its id, if a provider has told it."""
        told = self._told.get(lease.name)
        return lease if lease.id or told is None else replace(lease, id=told.id, details=told.details)


def _longer(usual: Range) -> Range:
    """By what Pulumi's engine and its provider take.

    Assumed: five processes of the engine, each of which derives its key from the passphrase, and writes to a backend.
    """
    return Range(usual.low + 3.0, usual.likely + 8.0, usual.high + 20.0)


def _joined(text: str, note: str) -> str:
    return "; ".join(filter(None, [text, note]))


PLUGIN = PulumiProvisioner
