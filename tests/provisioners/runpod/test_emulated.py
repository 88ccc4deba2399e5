"""Whole leases against the emulator, whose ledger judges: one pod for each accepted create, none bills after."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from provisioners import naming
from provisioners.contract import Boot, Clearance, Gone, Lease, MayStillBill, Offer, Order, Site
from provisioners.providers.runpod.pace import PACE
from provisioners.providers.runpod.provider import RunPodProvisioner
from provisioners.rehearsal.emulator import Emulator
from provisioners.rehearsal.faults import Faults
from provisioners.shell.target import HostKeyChanged
from recipes.errors import NoCapacity, NoMachine
from recipes.spec import Resources
from runners.failures import waited_for

pytestmark = pytest.mark.real

T = TypeVar("T")
SECRET = "hf_secret_that_nobody_may_see"
# The waits of minutes in seconds.
# What ends as soon as it is done may take as long as a busy machine needs.
HERE = replace(PACE.scaled(0.1), poll_first_s=0.1, again_s=30.0, release_s=60.0)


class User:
    """Somebody with a key of the emulated RunPod, and a recipe for two A100."""

    def __init__(self, home: Path, emulator: Emulator, **resources: Any) -> None:
        self.home, self.emulator = home, emulator
        self.asked = {"provisioner": "runpod", "accelerators": "A100-80GB:2", "cloud": "secure", **resources}
        self.resources = Resources.model_validate(self.asked)
        self.provisioner = self.another_process()
        self.deadline = datetime.now(UTC) + timedelta(minutes=30)
        self.run_id = f"rehearsed-{datetime.now(UTC):%Y%m%d-%H%M%S}-9f3a"
        name = naming.lease_name("ana", self.run_id, self.deadline)
        self.lease = Lease(provider="runpod", name=name, run_id=self.run_id, deadline=self.deadline)

    def another_process(self) -> RunPodProvisioner:
        """The same, knowing nothing that is not on disk."""
        env = {"RUNPOD_API_KEY": self.emulator.key, "RECIPE_RUNPOD_URL": self.emulator.url}
        return RunPodProvisioner(Site(home=self.home, cache=self.home / "cache", env=env), HERE)

    async def offer(self) -> Offer:
        return (await self.provisioner.offers(self.resources))[0]

    async def create(self, **changes: Any) -> Lease:
        asked = Order(
            offer=await self.offer(),
            lease=self.lease,
            resources=self.resources,
            boot=Boot(env={"HF_TOKEN": SECRET}),
            max_price_usd_per_h=5.0,
        )
        self.lease = await self.provisioner.create(replace(asked, **changes), Clearance(()))
        return self.lease

    async def use(self) -> str:
        """What a command says on the pod."""
        host = await self.provisioner.host(self.lease)
        try:
            said = bytearray()
            job = await host.start("hello", ["sh", "-c", "echo $HF_TOKEN; nproc"], env={}, on_output=said.extend)
            assert await job.wait() == 0
            return said.decode()
        finally:
            await host.close()

    def billing(self) -> list[str]:
        return [entry.id for entry in self.emulator.ledger.billing()]

    def made(self) -> list[str]:
        return [entry.id for entry in self.emulator.ledger.entries() if entry.name == self.lease.name]


def rehearse(
    tmp_path: Path, what: Callable[[User], Awaitable[T]], *, billing: bool = False, faults: Any = None, **resources: Any
) -> T:
    """What comes of it; afterwards nothing bills, unless that is the point."""

    async def rehearsal() -> T:
        async with Emulator(tmp_path / "runpod", faults=Faults(**(faults or {}))) as emulator:
            user = User(tmp_path / "home", emulator, **resources)
            result = await asyncio.wait_for(what(user), 100)
            assert bool(user.billing()) is billing
            return result

    return asyncio.run(rehearsal())


async def whole(user: User) -> str:
    """Create, use, let go: the proof."""
    await user.create()
    assert "hf_secret" in await user.use()
    release = await user.provisioner.destroy(user.lease)
    assert isinstance(release, Gone), release
    assert not (user.home / "leases" / user.lease.name).exists()
    kept = b"".join(path.read_bytes() for path in user.home.rglob("*") if path.is_file())
    assert SECRET.encode() not in kept
    assert user.emulator.key.encode() not in kept
    return release.proof


def test_a_lease_from_its_offer_to_its_proof(tmp_path: Path) -> None:
    async def lease(user: User) -> None:
        offer = await user.offer()
        assert (offer.accelerator, offer.count) == ("A100 PCIe 80GB", 2)
        created = await user.create()
        assert user.made() == [created.id]
        assert created.price_usd_per_h == offer.price_usd_per_h
        (span,) = user.emulator.ledger.spans(created.id)
        assert created.storage_usd_per_h == pytest.approx(span.rates.disk_usd_per_h, rel=1e-3)
        assert created.price_usd_per_h == pytest.approx(span.rates.gpu_usd_per_h)
        await user.use()
        argv = user.another_process().login(user.lease)
        assert argv is not None
        login = await asyncio.to_thread(subprocess.run, [*argv, "echo in"], capture_output=True, text=True)
        assert login.stdout.strip() == "in", login.stderr
        assert (await user.provisioner.observe(user.lease)).state == "running"
        (owned,) = await user.another_process().owned("ana")
        assert (owned.id, owned.name, owned.run_id) == (created.id, created.name, user.run_id)
        assert await user.another_process().owned("bob") == []
        bill = await user.provisioner.bill(user.lease)
        assert bill is not None
        assert bill.usd > 0
        asked = user.emulator._account.requests
        before = asked.copy()
        release = await user.another_process().destroy(owned)
        assert isinstance(release, Gone)
        at = f"/v2/pods/{created.id}"
        assert asked - before == {f"DELETE {at}": 1, f"GET {at}": 2, "GET /v2/pods": 2}
        assert f"pod {created.id} deleted" in release.proof
        assert (await user.provisioner.observe(user.lease)).state == "gone"
        assert isinstance(await user.another_process().destroy(user.lease), Gone)

    rehearse(tmp_path, lease, volumes=[{"size": "200GB", "path": "/workspace"}], disk_size="50GB")


@pytest.mark.parametrize(
    "faults",
    [
        {"create_500_after": 1},
        {"create_lost_after": 1},
        {"create_500_after": 1, "list_lag_new_s": 2.0},
        {"create_lost_after": 1, "unreadable_s": 2.0, "page_size": 1},
        {"create_429": 2, "retry_after_s": 1},
        {"unreadable_s": 3.0},
        {"provisioning_s": 1.0, "starting_s": 1.0},
        {"no_direct_s": 2.0},
        {"sshd_delay_s": 3.0},
        {"stale_port_s": 3.0},
        {"list_lag_gone_s": 2.0},
        {"terminated_visible_s": 2.0},
        {"delete_500": 2},
        {"delete_ignored": 2},
        {"delete_404": 2},
        {"html_502": 3, "html_502_kind": "get"},
        {"html_502": 3, "html_502_kind": "catalog"},
        {"answer_delay_s": 0.2},
    ],
    ids=lambda faults: "+".join(faults),
)
def test_what_goes_wrong_costs_one_pod_all_the_same(tmp_path: Path, faults: dict[str, Any]) -> None:
    async def lease(user: User) -> None:
        await whole(user)
        assert len(user.made()) == 1

    rehearse(tmp_path, lease, faults=faults)


def test_a_create_that_made_nothing_is_asked_again(tmp_path: Path) -> None:
    async def lease(user: User) -> None:
        await whole(user)
        assert len(user.made()) == 1
        assert user.emulator.ledger.requests()[user.lease.name][0] == "500"

    rehearse(tmp_path, lease, faults={"create_500_before": 1})


def test_a_second_pod_of_the_same_name_is_let_go(tmp_path: Path) -> None:
    async def lease(user: User) -> None:
        await user.create()
        assert len(user.billing()) == 2
        host = await user.provisioner.host(user.lease)
        assert user.billing() == [user.lease.id]
        assert any("second pod" in note for note in host.notes)
        await host.close()
        assert isinstance(await user.provisioner.destroy(user.lease), Gone)

    rehearse(tmp_path, lease, faults={"create_duplicate": 1})


def test_a_lost_answer_with_two_pods_leaves_one(tmp_path: Path) -> None:
    async def lease(user: User) -> None:
        await user.create()
        assert user.billing() == [user.lease.id]
        assert isinstance(await user.provisioner.destroy(user.lease), Gone)

    rehearse(tmp_path, lease, faults={"create_duplicate": 1, "create_lost_after": 1})


def test_a_pod_that_fails_says_why(tmp_path: Path) -> None:
    async def lease(user: User) -> None:
        await user.create()
        with pytest.raises(NoMachine, match=f"pod {user.lease.id} is ERROR"):
            await user.provisioner.host(user.lease)
        assert (await user.provisioner.observe(user.lease)).state == "failed"
        assert isinstance(await user.provisioner.destroy(user.lease), Gone)

    rehearse(tmp_path, lease, faults={"error_after_s": 0.2, "provisioning_s": 0.5})


@pytest.mark.parametrize(
    ("faults", "status", "lacked"),
    [
        ({"stuck_provisioning": 1}, "PROVISIONING", "PROVISIONING"),
        ({"no_direct_s": 600.0}, "RUNNING", "names no public port"),
        ({"crash_loop": 1}, "RUNNING", "pod"),
        ({"sshd_delay_s": 600.0}, "RUNNING", "cannot be reached yet"),
    ],
)
def test_a_deadline_says_what_was_lacking(tmp_path: Path, faults: dict[str, Any], status: str, lacked: str) -> None:
    async def lease(user: User) -> None:
        await user.create()
        pod = user.emulator.pods[user.lease.id or ""]
        while pod.status != status:
            await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(4):
                await user.provisioner.host(user.lease)
        assert lacked in waited_for(caught.value)
        assert isinstance(await user.provisioner.destroy(user.lease), Gone)

    rehearse(tmp_path, lease, faults=faults)


def test_another_machine_at_the_address_is_refused_loudly(tmp_path: Path) -> None:
    async def lease(user: User) -> None:
        await user.create()
        await user.use()
        pod = user.emulator.pods[user.lease.id or ""]
        key = pod.dir / "ssh" / "host_key.pub"
        before = key.read_text()
        pod.order("rekey")
        while not key.exists() or key.read_text() in ("", before):
            await asyncio.sleep(0.01)
        with pytest.raises(HostKeyChanged):
            await user.provisioner.host(user.lease)
        assert isinstance(await user.provisioner.destroy(user.lease), Gone)

    rehearse(tmp_path, lease)


def test_an_interrupted_create_is_let_go(tmp_path: Path) -> None:
    async def lease(user: User) -> None:
        creating = asyncio.create_task(user.create())
        while not user.made():
            await asyncio.sleep(0.01)
        creating.cancel()
        with suppress(asyncio.CancelledError):
            await creating
        assert user.lease.id is None
        assert isinstance(await user.provisioner.destroy(user.lease), Gone)

    rehearse(tmp_path, lease, faults={"create_answer_delay_s": 1.0})


def test_a_lease_whose_client_was_killed_is_found_by_its_name(tmp_path: Path) -> None:
    async def lease(user: User) -> None:
        await user.create()
        intended = replace(user.lease, id=None, details={})
        release = await user.another_process().destroy(intended)
        assert isinstance(release, Gone)
        assert f"pod {user.lease.id} deleted" in release.proof

    rehearse(tmp_path, lease)


def test_an_intended_lease_that_was_never_asked_for_is_gone_after_a_long_look(tmp_path: Path) -> None:
    async def lease(user: User) -> None:
        release = await user.provisioner.destroy(user.lease)
        assert isinstance(release, Gone)
        assert f"no pod called {user.lease.name}" in release.proof

    rehearse(tmp_path, lease)


def test_another_process_takes_a_lease_over(tmp_path: Path) -> None:
    async def lease(user: User) -> None:
        await user.create()
        user.provisioner = user.another_process()
        user.lease = replace(user.lease, id=None)
        assert "hf_secret" in await user.use()
        assert isinstance(await user.provisioner.destroy(user.lease), Gone)

    rehearse(tmp_path, lease)


def test_capacity_walks_on_to_the_next_offer(tmp_path: Path) -> None:
    async def lease(user: User) -> None:
        first, second, *_ = await user.provisioner.offers(user.resources)
        with pytest.raises(NoCapacity):
            await user.create(offer=replace(first, id="NVIDIA A100 80GB PCIe"))
        await user.create(offer=next(o for o in (first, second) if o.id != "NVIDIA A100 80GB PCIe"))
        assert isinstance(await user.provisioner.destroy(user.lease), Gone)
        assert len(user.made()) == 1

    rehearse(tmp_path, lease, faults={"no_capacity_gpus": ("NVIDIA A100 80GB PCIe",)})


@pytest.mark.parametrize(
    ("faults", "kind"),
    [
        ({"create_no_capacity": 1}, NoCapacity),
        ({"forbidden_gpus": ("NVIDIA A100 80GB PCIe", "NVIDIA A100-SXM4-80GB")}, NoCapacity),
        ({"create_402": 1}, NoMachine),
        ({"create_422": 1}, NoMachine),
        ({"cost_factor": 2.0}, NoCapacity),
        ({"revoke_key_after_requests": 2}, NoMachine),
    ],
    ids=str,
)
def test_what_is_refused_leaves_nothing(tmp_path: Path, faults: dict[str, Any], kind: type[NoMachine]) -> None:
    async def lease(user: User) -> None:
        with pytest.raises(NoMachine) as caught:
            await user.create()
        assert type(caught.value) is kind
        assert isinstance(await user.provisioner.destroy(user.lease), Gone)

    rehearse(tmp_path, lease, faults=faults)


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        ({"revoke_key_after_s": 0.0}, "refuses the key"),
        ({"down_from_s": 0.0}, "RunPod did not answer"),
        ({"down_from_s": 0.0, "down_how": "503"}, r"RunPod did not answer \d+ deletes in \d+ s \(last: 503\)"),
        ({"delete_500": -1}, "still has pod"),
        ({"delete_ignored": -1}, "still has pod"),
        ({"delete_404": -1}, "still has pod"),
        ({"gone_410": True}, "410"),
    ],
    ids=str,
)
def test_what_cannot_be_proven_may_still_bill_until_it_can(tmp_path: Path, faults: dict[str, Any], reason: str) -> None:
    async def lease(user: User) -> None:
        await user.create()
        user.emulator.inject(**faults)
        release = await user.provisioner.destroy(user.lease, patience_s=3)
        assert isinstance(release, MayStillBill)
        assert release.command.startswith("recipe reap --yes")
        assert re.search(reason, release.reason), release.reason
        for name, value in vars(Faults()).items():
            user.emulator.inject(**{name: value})
        assert isinstance(await user.another_process().destroy(user.lease), Gone)

    rehearse(tmp_path, lease)


@pytest.mark.parametrize("faults", [{}, {"create_500_after": 1}, {"create_lost_after": 1}], ids=str)
@pytest.mark.parametrize("spot", [False, True])
def test_graphql_gives_the_same(tmp_path: Path, faults: dict[str, Any], spot: bool) -> None:
    async def lease(user: User) -> None:
        offer = await user.offer()
        assert offer.spot is spot
        await whole(user)
        assert len(user.made()) == 1

    rehearse(tmp_path, lease, faults=faults, api="graphql", use_spot=spot)
