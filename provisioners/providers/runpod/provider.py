"""RunPod: pods that are rented, reached over SSH with a key of their own, and let go with proof."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

from provisioners import naming
from provisioners.contract import (
    Bill,
    Clearance,
    Gone,
    Host,
    Lease,
    MayStillBill,
    Observed,
    Offer,
    Order,
    Release,
    Site,
)
from provisioners.phase_times import PhaseTimes
from provisioners.providers.runpod import offers, pods, reached, storage
from provisioners.providers.runpod.answers import ApiError, NotFound, Refusal, as_no_machine
from provisioners.providers.runpod.cloud import Cloud, NetworkDisk, Wish
from provisioners.providers.runpod.pace import Pace
from provisioners.providers.runpod.purchase import Attempt, buy, refused
from provisioners.providers.runpod.release import COMMAND, let_go
from provisioners.providers.runpod.settings import Settings
from provisioners.providers.runpod.values import (
    ERROR,
    EXITED,
    PROVISIONING,
    RUNNING,
    STARTING,
    TERMINATED,
    Gpu,
    NetworkVolume,
    Pod,
)
from provisioners.providers.runpod.volumes import VolumeKeeping
from provisioners.shell.keys import LeaseKeys
from recipes.errors import NoCapacity, NoMachine, Unsettled
from recipes.ranges import Range
from recipes.spec import Resources

State = Literal["starting", "running", "stopped", "failed", "gone", "unknown"]
_STATES: dict[str, State] = {
    PROVISIONING: "starting",
    STARTING: "starting",
    RUNNING: "running",
    EXITED: "stopped",
    ERROR: "failed",
    TERMINATED: "gone",
}


class RunPodProvisioner(VolumeKeeping):
    """Leases of RunPod's GPUs. Implements Provisioner, and VolumeKeeper."""

    name = "runpod"
    billable = True
    secrets: tuple[str, ...] = ("RUNPOD_API_KEY",)
    at_once = True
    # A pod was reachable 90 s after it was called RUNNING; images of some 10 GB are pulled first, unless the host has
    # them. A deletion is proven by two lists some seconds apart. The rest is assumed.
    phase_times = PhaseTimes(
        provision_s=Range(30.0, 90.0, 300.0), collect_s=Range(0.3, 2.0, 20.0), release_s=Range(3.0, 10.0, 45.0)
    )

    def __init__(self, site: Site, pace: Pace | None = None) -> None:
        self._site, self._pace = site, pace or Pace.of(site.env)
        self._attempts: dict[str, Attempt] = {}
        self._seen: set[str] = set()
        """Pods that RunPod has shown: its denial of one of these means something."""

    async def offers(self, resources: Resources) -> list[Offer]:
        """The recipe's GPUs in RunPod's catalogue as it is now. Raises NoMachine, also without a key."""
        volume = storage.volume_of(resources)
        async with self._cloud(resources.api) as cloud:
            place = None
            if volume is not None and volume.name is not None:
                place = storage.find(volume.name, await cloud.volumes()).data_center
            entries = offers.entries_of(resources, only_region=place)
            asked = offers.questions_of(entries)
            found = await asyncio.gather(*(cloud.gpus(count=q.count, cloud=q.cloud, spot=q.spot) for q in asked))
        return offers.offers_of(entries, dict(zip(asked, found, strict=True)), self.name)

    async def catalogue(self, *, cloud: str | None = None, accelerator: str | None = None) -> list[Offer]:
        """RunPod's catalogue as it is now. Raises NoMachine, also without a key."""
        asked = offers.catalogue_questions(cloud)
        async with self._cloud("rest") as client:
            found = await asyncio.gather(*(client.gpus(count=q.count, cloud=q.cloud, spot=q.spot) for q in asked))
        return offers.catalogue_of(dict(zip(asked, found, strict=True)), accelerator, self.name)

    def installed(self, environment: str) -> bool | None:
        return None

    def stored(self, repo: str, commit: str) -> bool | None:
        return None

    async def create(self, order: Order, clearance: Clearance) -> Lease:
        """One pod for this offer, if its price of this moment is still allowed."""
        lease, offer = order.lease, order.offer
        attempt = self._attempts.setdefault(lease.name, Attempt())
        keys = LeaseKeys.create(self._site.home, lease.name)
        reached.begin(self._site.home, lease.name)
        settings = Settings.of(self._site.env)
        start = pods.start_of(order, keys.public_key, settings.rest_url, settings.graphql_url, datetime.now(UTC))
        try:
            async with self._cloud(order.resources.api) as cloud:
                gpu, volumes = await self._look_again(cloud, order)
                wish = pods.wish_for(order, start, gpu, volumes)
                try:
                    pod = await buy(cloud, wish, self._pace, attempt)
                except Refusal as error:
                    if attempt.pod_ids or attempt.unanswered:
                        # Whatever was refused, it was not each of the creates.
                        raise Unsettled(f"RunPod may have made the pod {wish.name}: {error.what}") from error
                    raise refused(error, f"{offer.count} × {offer.id} in its {wish.cloud} cloud") from error
                return await self._accept(cloud, order, wish, pod, pods.price_of(gpu, offer.count))
        except NoCapacity:
            keys.remove()
            raise

    async def observe(self, lease: Lease) -> Observed:
        try:
            async with self._cloud(_api_of(lease)) as cloud:
                found = await self._find(cloud, lease)
        except NoMachine as error:
            return Observed(state="unknown", message=error.message)
        if found is not None:
            return Observed(
                state=_STATES.get(found.status, "unknown"),
                message=f"pod {found.id} is {found.status}",
                price_usd_per_h=found.cost_usd_per_h,
            )
        if self._is_known(lease):
            return Observed(state="gone", message=f"RunPod has no pod {lease.id or lease.name} any more")
        return Observed(state="unknown", message=f"RunPod has no pod {lease.id or lease.name}, or not yet")

    async def host(self, lease: Lease) -> Host:
        """The pod, once it runs and its agent answers. A CancelledError has what was waited for as its argument."""
        from provisioners.providers.runpod import connecting  # SSH libraries take long to load

        keys = LeaseKeys.load(self._site.home, lease.name)
        async with self._cloud(_api_of(lease)) as cloud:
            if lease.id is None:
                found = await self._find(cloud, lease)
                if found is None:
                    raise NoMachine(f"RunPod has no pod called {lease.name}", advice="recipe down ends its run")
                lease = replace(lease, id=found.id)
            name = lease.name
            return await connecting.host(
                cloud, lease, keys, self._pace, on_sight=lambda: reached.saw(self._site.home, name)
            )

    async def destroy(self, lease: Lease, *, patience_s: float = 60.0) -> Release:
        """Every pod of the lease's name, and that of its id, until all are proven gone."""
        attempt = self._attempts.get(lease.name, Attempt(unanswered=1))
        pod_ids = attempt.pod_ids | ({lease.id} if lease.id else set())
        release: Release = Gone("RunPod was never asked for a pod of this name, or refused it each time")
        if pod_ids or attempt.unanswered:
            apis = dict.fromkeys([_api_of(lease), "rest"])  # RunPod ends GraphQL some day; a pod is the same in both
            for api in apis:
                release = await self._let_go(api, lease, sorted(pod_ids), patience_s / len(apis))
                if isinstance(release, Gone):
                    break
        if isinstance(release, Gone):
            reached.forget(self._site.home, lease.name, release.proof)
            self._attempts.pop(lease.name, None)
        return release

    async def owned(self, owner: str) -> list[Lease]:
        async with self._cloud("rest") as cloud:
            found = await cloud.pods()
        leases = []
        for pod in found:
            said = naming.read_name(pod.name)
            if said is None or said.owner != owner or pod.terminated:
                continue
            self._seen.add(pod.id)
            leases.append(
                Lease(
                    provider=self.name,
                    name=pod.name,
                    run_id=said.run,
                    id=pod.id,
                    price_usd_per_h=pod.cost_usd_per_h,
                    deadline=said.deadline,
                    details=_details(pod),
                )
            )
        return leases

    async def bill(self, lease: Lease) -> Bill | None:
        """RunPod's own records of the pod; they come late, by minutes or more."""
        if lease.id is None:
            return None
        try:
            async with self._cloud("rest") as cloud:
                records = await cloud.billing(lease.id)
        except NoMachine:
            return None
        if not records:
            return None
        compute_usd = sum(record.compute_usd for record in records)
        seconds = compute_usd / lease.price_usd_per_h * 3600 if lease.price_usd_per_h else None
        return Bill(usd=sum(record.total_usd for record in records), seconds=seconds)

    def login(self, lease: Lease) -> Sequence[str] | None:
        return reached.login(self._site.home, lease)

    def command_to_end(self, lease: Lease) -> str:
        return COMMAND

    @asynccontextmanager
    async def _cloud(self, api: str) -> AsyncIterator[Cloud]:
        """RunPod; what goes wrong within is NoMachine."""
        async with Settings.of(self._site.env).cloud(api, self._pace) as cloud:
            try:
                yield cloud
            except ApiError as error:
                raise as_no_machine(error) from error

    async def _let_go(self, api: str, lease: Lease, pod_ids: Sequence[str], patience_s: float) -> Release:
        known = self._is_known(lease)
        try:
            async with Settings.of(self._site.env).cloud(api, self._pace) as cloud:
                return await let_go(cloud, lease.name, pod_ids, self._pace, patience_s=patience_s, known=known)
        except NoMachine as error:
            return MayStillBill(error.message, COMMAND)

    async def _look_again(self, cloud: Cloud, order: Order) -> tuple[Gpu, Sequence[NetworkVolume]]:
        """The offer as the catalogue has it now, and the volumes if one is named. Raises NoCapacity above max_price."""
        offer = order.offer
        volume = storage.volume_of(order.resources)
        volumes = await cloud.volumes() if volume is not None and volume.name is not None else ()
        found = await cloud.gpus(count=offer.count, cloud=pods.cloud_of(offer.cloud), spot=offer.spot)
        gpu = next((gpu for gpu in found if gpu.id == offer.id), None)
        if gpu is None:
            raise NoCapacity(f"RunPod does not offer {offer.id} in its {offer.cloud} cloud any more")
        pods.check_price(pods.price_of(gpu, offer.count), order, f"{offer.id} × {offer.count} now costs")
        return gpu, volumes

    async def _accept(self, cloud: Cloud, order: Order, wish: Wish, pod: Pod, price_usd_per_h: float | None) -> Lease:
        """The completed lease. A pod that costs more than is allowed is let go again: then NoCapacity is raised."""
        storage, price = order.offer.storage_usd_per_h, price_usd_per_h or order.offer.price_usd_per_h
        cost = pods.price_without_disks(pod.cost_usd_per_h, price, storage)
        try:
            pods.check_price(cost, order, f"RunPod charges for pod {pod.id}")
        except NoCapacity as error:
            release = await let_go(cloud, wish.name, [pod.id], self._pace)
            if isinstance(release, MayStillBill):
                raise Unsettled(f"{error.message}; it is not proven gone: {release.reason}") from error
            self._attempts.pop(wish.name, None)
            raise
        warning = pods.price_warning(order, cost)
        details = {
            **_details(pod),
            "api": order.resources.api,
            "gpu": f"{wish.gpu_count} × {wish.gpu_id}",
            "cloud": wish.cloud,
            "image": wish.image,
            **({"network_volume": wish.mount.volume_id} if isinstance(wish.mount, NetworkDisk) else {}),
            **({"volume_path": wish.mount.path} if wish.mount else {}),
            **({"warnings": [warning]} if warning else {}),
        }
        lease = replace(order.lease, id=pod.id, details={**order.lease.details, **details})
        return replace(lease, price_usd_per_h=cost, storage_usd_per_h=storage)

    async def _find(self, cloud: Cloud, lease: Lease) -> Pod | None:
        """The lease's pod as RunPod shows it; by its id, else by its name. None if it shows none. Raises ApiError."""
        pod = None
        if lease.id is not None:
            try:
                pod = await cloud.pod(lease.id)
            except NotFound:
                pod = None
        if pod is None:
            listed = [p for p in await cloud.pods() if p.id == lease.id or (not lease.id and p.name == lease.name)]
            pod = next(iter(listed), None)
        if pod is not None:
            self._seen.add(pod.id)
            reached.saw(self._site.home, lease.name)
        return pod

    def _is_known(self, lease: Lease) -> bool:
        """Whether the pod is sure to have existed for long enough, so that RunPod's denial of it can be believed."""
        if lease.details.get("reached") or lease.id in self._seen or reached.was_seen(self._site.home, lease.name):
            return True
        try:
            created_at = datetime.fromisoformat(str(lease.details.get("created_at")))
        except ValueError:
            return False
        return (datetime.now(UTC) - created_at).total_seconds() > self._pace.unreadable_s


def _api_of(lease: Lease) -> str:
    return str(lease.details.get("api") or "rest")


def _details(pod: Pod) -> dict[str, str]:
    """What is kept of a pod with its lease. The time is ours: the pod is at least as old as it says."""
    details = {"created_at": datetime.now(UTC).isoformat(timespec="seconds")}
    gpu = f"{pod.gpu_count} × {pod.gpu_id}" if pod.gpu_id and pod.gpu_count else None
    told = {"data_center": pod.data_center, "gpu": gpu, "cloud": (pod.cloud or "").lower()}
    return {**details, **{name: text for name, text in told.items() if text}}


PLUGIN = RunPodProvisioner
