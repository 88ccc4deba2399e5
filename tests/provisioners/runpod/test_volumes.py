"""Network volumes against the emulator, whose ledger judges: one of a name, and none bills after its deletion."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from provisioners.contract import Gone, MayStillBill, Site
from provisioners.providers.runpod import volumes
from provisioners.providers.runpod.pace import PACE
from provisioners.providers.runpod.provider import RunPodProvisioner
from provisioners.rehearsal.emulator import Emulator
from provisioners.rehearsal.faults import Faults
from provisioners.storage_prices import storage_prices
from provisioners.volumes import StoredVolume, VolumeKeeper
from recipes.errors import NoMachine, Unsettled
from recipes.spec import Resources

T = TypeVar("T")
NAME = "recipe-ana-models-20261121-051200-9f3a"
# Letting go may take as long as a busy machine needs.
QUICK = replace(PACE.scaled(0.02), release_s=60.0)


class User:
    """Somebody with a key, who keeps volumes."""

    def __init__(self, home: Path, emulator: Emulator) -> None:
        self.emulator = emulator
        env = {"RUNPOD_API_KEY": emulator.key, "RECIPE_RUNPOD_URL": emulator.url}
        self.keeper: VolumeKeeper = RunPodProvisioner(Site(home=home, cache=home, env=env), QUICK)

    async def make(self, size_gb: int = 50, region: str = "US-KS-2", *, fresh: bool = False) -> StoredVolume:
        return await self.keeper.make_volume(NAME, size_gb, region, fresh=fresh)

    @property
    def billing(self) -> list[str]:
        return [entry.id for entry in self.emulator.ledger.volumes() if entry.billing]

    @property
    def asked(self) -> list[str]:
        """How each create was answered."""
        return self.emulator.ledger.volume_requests().get(NAME, [])


def rehearse(tmp_path: Path, work: Callable[[User], Awaitable[T]], **faults: Any) -> T:
    async def run() -> T:
        async with Emulator(tmp_path / "runpod", faults=Faults(**faults), isolated=False) as emulator:
            return await work(User(tmp_path / "home", emulator))

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("faults", "creates"),
    [
        ({}, 1),
        ({"volume_500_after": 1}, 1),
        ({"volume_lost_after": 1}, 1),
        ({"volume_500_before": 1}, 2),
        ({"volume_429": 1, "retry_after_s": 0}, 2),
        ({"volume_duplicate": 1}, 1),
        ({"volume_500_after": 1, "volume_list_lag_s": 0.3}, 1),
        ({"volume_lost_after": 1, "volume_list_lag_s": 0.3}, 1),
        ({"volume_500_after": 1, "volume_duplicate": 1}, 1),
        ({"volume_list_lag_s": 0.2}, 1),
        ({"html_502": 2, "html_502_kind": "other"}, 1),
    ],
)
def test_there_is_one_of_a_name_and_none_once_it_is_deleted(
    tmp_path: Path, faults: dict[str, Any], creates: int
) -> None:
    async def work(user: User) -> None:
        made = await user.make(fresh=True)
        assert (made.name, made.size_gb, made.region) == (NAME, 50, "US-KS-2")
        assert (user.billing, len(user.asked)) == ([made.id], creates)
        assert await user.make() == made
        assert len(user.asked) == creates, "somebody else finds it"
        release = await user.keeper.delete_volume(made.id, NAME)
        assert isinstance(release, Gone)
        assert f"network volume {made.id} deleted" in release.proof
        assert user.billing == []
        assert isinstance(await user.keeper.delete_volume(made.id, NAME), Gone), "once more is no failure"

    rehearse(tmp_path, work, **faults)


@pytest.mark.parametrize(
    "faults",
    [
        {"volume_delete_500": 1},
        {"volume_delete_404": 1},
        {"volume_delete_ignored": 1},
        {"volume_delete_lost": 1},
        {"volume_list_lag_gone_s": 0.2},
    ],
)
def test_a_deletion_that_goes_wrong_is_asked_for_again(tmp_path: Path, faults: dict[str, Any]) -> None:
    async def work(user: User) -> None:
        made = await user.make()
        user.emulator.inject(**faults)
        assert isinstance(await user.keeper.delete_volume(made.id, NAME, patience_s=60), Gone)
        assert user.billing == []

    rehearse(tmp_path, work)


@pytest.mark.parametrize("fault", ["volume_delete_500", "volume_delete_404", "volume_delete_ignored"])
def test_a_volume_that_stays_is_not_called_gone(tmp_path: Path, fault: str) -> None:
    async def work(user: User) -> None:
        made = await user.make()
        user.emulator.inject(**{fault: -1})
        release = await user.keeper.delete_volume(made.id, NAME, patience_s=1)
        assert isinstance(release, MayStillBill)
        assert made.id in release.reason
        assert "console.runpod.io/user/storage" in release.command
        assert user.billing == [made.id]

    rehearse(tmp_path, work)


def test_where_nobody_can_say_whether_it_exists_it_is_not_made_twice(tmp_path: Path) -> None:
    async def work(user: User) -> None:
        user.emulator.inject(volume_500_after=-1, volume_list_lag_s=-1)
        with pytest.raises(NoMachine, match="no network volume appeared"):
            await user.make()
        user.emulator.inject(volume_list_lag_s=0.0)
        left = list(user.billing)
        assert await user.make() is not None
        assert len(user.asked) == len(left), "what appears late is found, and nothing more is asked for"
        assert len(user.billing) == 1, "the others are let go"

    rehearse(tmp_path, work)


def test_a_create_whose_volume_cannot_be_looked_for_is_unsettled(tmp_path: Path) -> None:
    async def work(user: User) -> None:
        user.emulator.inject(volume_500_after=-1, revoke_key_after_requests=2)
        with pytest.raises(Unsettled, match="network volume cannot be looked for"):
            await user.make(fresh=True)

    rehearse(tmp_path, work)


@pytest.mark.parametrize("fault", ["volume_grow_500", "volume_grow_lost"])
def test_it_grows_and_is_never_made_smaller(tmp_path: Path, fault: str) -> None:
    async def work(user: User) -> None:
        made = await user.make()
        user.emulator.inject(**{fault: 1})
        assert (await user.keeper.grow_volume(made.id, 200)).size_gb == 200
        assert (await user.keeper.grow_volume(made.id, 60)).size_gb == 200
        (entry,) = user.emulator.ledger.volumes()
        assert (entry.size_gb, entry.billing) == (200, True)

    rehearse(tmp_path, work)


def test_growth_that_did_not_happen_and_volumes_that_are_gone_are_said(tmp_path: Path) -> None:
    async def work(user: User) -> None:
        made = await user.make()
        user.emulator.inject(volume_grow_ignored=-1)
        with pytest.raises(NoMachine, match="still has 50 GB"):
            await user.keeper.grow_volume(made.id, 200)
        await user.keeper.delete_volume(made.id, NAME)
        with pytest.raises(NoMachine, match="somebody deleted it"):
            await user.keeper.grow_volume(made.id, 200)

    rehearse(tmp_path, work)


def test_a_volume_that_a_pod_has_is_not_deleted_and_the_reason_is_told(tmp_path: Path) -> None:
    async def work(user: User) -> None:
        made = await user.make()
        user.emulator._account.volumes._mounted = lambda: {made.id}
        release = await user.keeper.delete_volume(made.id, NAME, patience_s=1)
        assert isinstance(release, MayStillBill)
        assert "in use by a pod" in release.reason
        assert release.command.startswith("recipe ps")

    rehearse(tmp_path, work)


def test_a_volume_that_stays_in_use_is_not_asked_for_to_the_end_of_all_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volumes, "_IN_USE_S", 0.2)

    async def work(user: User) -> None:
        made = await user.make()
        user.emulator._account.volumes._mounted = lambda: {made.id}
        begun_s = time.monotonic()
        release = await user.keeper.delete_volume(made.id, NAME, patience_s=60)
        assert isinstance(release, MayStillBill)
        assert "in use by a pod" in release.reason
        assert time.monotonic() - begun_s < 20

    rehearse(tmp_path, work)


def wanted(accelerators: str, **more: Any) -> Resources:
    return Resources.model_validate({"provisioner": "runpod", "accelerators": accelerators, **more})


@pytest.mark.parametrize(
    ("asked", "best"),
    [
        (
            [wanted("A100-80GB:2")],
            [("US-KS-2", ("high", 3.58)), ("EU-RO-1", ("medium", 3.58)), ("US-TX-3", ("medium", 3.58))],
        ),
        ([wanted("L4")], [("EU-RO-1", ("high", 0.43))]),
        ([wanted("A40"), wanted("L4")], [("EU-RO-1", ("high", 0.44), ("high", 0.43))]),
        ([wanted("A100-80GB:2", regions=["EU"])], [("EU-RO-1", ("medium", 3.58))]),
        ([wanted("H200")], [("US-CA-2", ("low", 4.59))]),
    ],
)
def test_the_best_place_has_everything_in_stock(
    tmp_path: Path, asked: list[Resources], best: list[tuple[Any, ...]]
) -> None:
    """Iceland has H200s, and no network volumes."""
    places = rehearse(tmp_path, lambda user: user.keeper.places(asked))
    found = [(place.region, *((one.stock, one.usd_per_h) for one in place.wished)) for place in places]
    assert found[: len(best)] == best
    assert "EUR-IS-1" not in {place.region for place in places}
    assert [place.has_all for place in places[: len(best)]] == [True] * len(best)


def test_a_place_that_the_recipe_leaves_out_is_told_from_one_without_stock(tmp_path: Path) -> None:
    asked = [wanted("A40", regions=["US-KS-2"]), wanted("L4")]
    places = rehearse(tmp_path, lambda user: user.keeper.places(asked))
    found = {place.region: [(one.stock, one.excluded) for one in place.wished] for place in places}
    assert found["EU-RO-1"] == [("none", True), ("high", False)]
    assert found["US-KS-2"][1] == ("none", False)
    assert not any(place.has_all for place in places)


def test_a_recipe_for_the_community_cloud_has_no_place(tmp_path: Path) -> None:
    with pytest.raises(NoMachine, match="secure cloud alone"):
        rehearse(tmp_path, lambda user: user.keeper.places([wanted("A40", cloud="community")]))


def test_the_cheapest_machine_that_can_mount_it_fills_it(tmp_path: Path) -> None:
    async def work(user: User) -> list[tuple[str, str | None, float | None]]:
        made = await user.make(region="EU-RO-1")
        user.emulator.inject(no_capacity_gpus=["NVIDIA L4"])
        return [(o.id, o.region, o.price_usd_per_h) for o in await user.keeper.fillers(made)]

    found = rehearse(tmp_path, work)
    assert found[0] == ("NVIDIA A40", "EU-RO-1", 0.44)
    assert "NVIDIA L4" not in {offer for offer, _, _ in found}
    assert {region for _, region, _ in found} == {"EU-RO-1"}


def test_prices_are_those_of_the_table(tmp_path: Path) -> None:
    keeper = RunPodProvisioner(Site(home=tmp_path, cache=tmp_path))
    assert keeper.volume_usd_per_month(200) == pytest.approx(200 * storage_prices("runpod")["network"].usd_per_gb_month)
    assert keeper.volume_usd_per_month(2000) == pytest.approx(1000 * 0.07 + 1000 * 0.05)


def test_a_place_that_has_no_volumes_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(NoMachine, match="no volume in EUR-IS-1") as refused:
        rehearse(tmp_path, lambda user: user.make(region="EUR-IS-1"))
    assert "--region" in refused.value.advice
