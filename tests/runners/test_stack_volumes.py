"""Which volume a recipe's stack means, what it holds, and what is said where it cannot be had. No Pulumi here."""

from __future__ import annotations

import asyncio
import json
import shlex
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Offer, Site
from provisioners.volumes import StoredVolume
from recipes.errors import NoMachine
from recipes.load import LoadedRecipe, load
from recipes.spec import Recipe, Volume
from runners import registry
from runners.modelfacts.facts import File
from runners.models import HubModel
from runners.stack_volumes import NoStackVolume, StackVolume, after_prepare, files_of, noted, place_on, resolved
from stacks import kept
from stacks.model_cache.values import Held
from stacks.reference import StackRef

HUB = HubModel("me/large", "c0ffee", (File("a.safetensors", 137_000_000_000), File("config.json", 12)))
AT = datetime(2026, 11, 21, 5, 12, tzinfo=UTC)
HELD = Held(repo=HUB.repo, commit=HUB.commit, files=files_of(HUB), bytes=HUB.bytes, place=".", by="a-run", at=AT)
MAIN = StackRef("model_cache")


class KeeperDouble:
    """As much of a provisioner as is asked here."""

    name = "runpod"

    def __init__(self, found: StoredVolume | Exception | None) -> None:
        self._found = found

    async def find_volume(self, volume_id: str) -> StoredVolume | None:
        if isinstance(self._found, Exception):
            raise self._found
        return self._found

    make_volume = find_volume


@dataclass
class HostDouble:
    mounted: bool = True

    def place(self, path: str) -> str:
        return path if self.mounted else f"/tmp/lease/volume{path}"


VOLUME = StoredVolume(id="v1", name="recipe-cache-main-1", size_gb=200, region="EU-RO-1")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Without an engine: a stack is as it was last seen here."""
    return Site(home=tmp_path / "home", cache=tmp_path, env={"PATH": str(tmp_path)})


@pytest.fixture
def recipe(tmp_path: Path) -> LoadedRecipe:
    data = {
        "name": "large",
        "resources": {
            "provisioner": "runpod",
            "accelerators": "A40:1",
            "volumes": [{"stack": "model_cache", "path": "/workspace"}],
        },
        "model": {"repo": "me/large", "path": "/workspace"},
        "workload": {"name": "load", "traffic": {"concurrency": [1], "synthetic": {"input_tokens": 16}}},
    }
    (tmp_path / "large.yaml").write_text(json.dumps(data))
    (loaded,) = load("large.yaml", plugins=registry.installed(), cwd=tmp_path)
    return loaded


def seen(site: Site, *, holds: tuple[Held, ...] = (), **values: Any) -> None:
    outputs = {"volume_id": "v1", "name": VOLUME.name, "size_gb": 200.0, "region": "EU-RO-1", **values}
    kept.keep(site, MAIN, {**outputs, "holds": [held.data() for held in holds]})


def resolve(
    recipe: LoadedRecipe, site: Site, found: StoredVolume | Exception | None = VOLUME
) -> tuple[Recipe, StackVolume]:
    loaded, volume = asyncio.run(resolved(recipe, KeeperDouble(found), site))  # type: ignore[arg-type]
    assert volume is not None
    return loaded.recipe, volume


def test_the_recipe_mounts_the_stacks_volume_by_its_id(recipe: LoadedRecipe, site: Site) -> None:
    seen(site, holds=(HELD,))
    found, volume = resolve(recipe, site)
    assert found.resources.volumes == (Volume(path="/workspace", name="v1"),)
    assert (volume.held(HUB), volume.free_gb) == (HELD, pytest.approx(63))
    texts = [(finding.level, finding.message) for finding in volume.findings(HUB)]
    assert texts[-1] == ("ok", "137.0 GB model on stack model_cache since 2026-11-21, already paid for: no download")


def test_where_the_volume_keeps_a_recipe_from_its_machines_a_plan_says_so(recipe: LoadedRecipe, site: Site) -> None:
    seen(site)
    _, volume = resolve(recipe, site)
    none, some = (Offer(provider="runpod", id="a40", region="EU-RO-1", stock=stock) for stock in ("none", "low"))
    assert "binds" not in str([*volume.findings(HUB, [none, some])])
    binds, *_ = volume.findings(HUB, [none])
    assert (binds.level, binds.message) == (
        "warn",
        "stack model_cache binds this recipe to EU-RO-1, where its volume lies, and none of its machines is in stock "
        "there",
    )
    command = "recipe stack up model_cache/NAME large.yaml --set 'resources.volumes[0].stack=model_cache/NAME'"
    assert binds.suggestion == (
        f"make a second cache where there are some: {command}; runs mount it with the same --set"
    )
    *_, reference, _, setting = shlex.split(command)
    (typed,) = load(reference, overrides=[setting], plugins=registry.installed(), cwd=recipe.source.parent)
    assert typed.recipe.resources.volumes == (Volume(path="/workspace", stack="model_cache/NAME"),)


def test_a_recipe_without_a_stack_is_left_alone(recipe: LoadedRecipe, site: Site) -> None:
    resources = recipe.recipe.resources.model_copy(update={"volumes": ()})
    plain = replace(recipe, recipe=recipe.recipe.model_copy(update={"resources": resources}))
    assert asyncio.run(resolved(plain, KeeperDouble(None), site)) == (plain, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [{"commit": "beef"}, {"files": (File("model.gguf", 12),)}, {"repo": "me/other"}],
)
def test_another_model_is_not_the_one_it_holds(recipe: LoadedRecipe, site: Site, change: dict[str, Any]) -> None:
    seen(site, holds=(HELD,))
    _, volume = resolve(recipe, site)
    other = replace(HUB, **change)
    assert volume.held(other) is None
    assert [finding.message.split(" ", 2)[2] for finding in volume.findings(other)][-1] == (
        "model not on stack model_cache yet: this run brings it"
    )


def test_the_same_model_stored_elsewhere_on_the_volume_is_downloaded_again(recipe: LoadedRecipe, site: Site) -> None:
    seen(site, holds=(replace(HELD, place=".recipe-cache/huggingface"),))
    assert resolve(recipe, site)[1].held(HUB) is None


@pytest.mark.parametrize(
    ("path", "place"),
    [(None, ".recipe-cache/huggingface"), ("/workspace", "."), ("/workspace/hf", "hf"), ("/elsewhere", None)],
)
def test_where_on_the_volume_a_model_lies(recipe: LoadedRecipe, path: str | None, place: str | None) -> None:
    model = recipe.recipe.model.model_copy(update={"path": path})
    changed = recipe.recipe.model_copy(update={"model": model})
    assert place_on(changed, changed.resources.volumes[0]) == place


def test_a_model_stored_outside_of_the_volume_is_a_warning(recipe: LoadedRecipe, site: Site) -> None:
    seen(site, holds=(HELD,))
    model = recipe.recipe.model.model_copy(update={"path": "/root/m"})
    _, volume = resolve(replace(recipe, recipe=recipe.recipe.model_copy(update={"model": model})), site)
    (found,) = [finding for finding in volume.findings(HUB) if finding.path == "model.path"]
    assert (found.level, found.message) == (
        "warn",
        "the recipe stores its model outside of the volume at /workspace: every run downloads it",
    )
    assert found.suggestion == "leave model.path out, or write one below /workspace"


def test_a_stack_that_was_never_seen_is_refused_with_two_ways_out(recipe: LoadedRecipe, site: Site) -> None:
    with pytest.raises(NoStackVolume, match="Pulumi's engine is not on this machine") as refused:
        resolve(recipe, site)
    assert "recipe stack install" in refused.value.advice
    assert "volumes: [{name: ID, path: /workspace}]" in refused.value.advice


def test_a_stack_whose_update_broke_off_is_refused_with_the_command(recipe: LoadedRecipe, site: Site) -> None:
    seen(site, volume_id="")
    with pytest.raises(NoStackVolume, match="has no volume yet") as refused:
        resolve(recipe, site)
    assert refused.value.advice == "go on: recipe stack up model_cache large.yaml"


def test_a_volume_that_somebody_has_deleted_is_refused_with_the_command(recipe: LoadedRecipe, site: Site) -> None:
    seen(site)
    with pytest.raises(NoStackVolume, match="the volume v1 of stack model_cache is not there any more") as refused:
        resolve(recipe, site, None)
    assert refused.value.advice == "make another one, empty: recipe stack up model_cache large.yaml"


def test_where_the_provider_cannot_be_asked_its_offers_will_say_so(recipe: LoadedRecipe, site: Site) -> None:
    seen(site)
    _, volume = resolve(recipe, site, NoMachine("RunPod cannot be reached"))
    assert (volume.id, volume.size_gb) == ("v1", 200)


def test_the_size_is_that_of_now(recipe: LoadedRecipe, site: Site) -> None:
    seen(site)
    assert resolve(recipe, site, replace(VOLUME, size_gb=500))[1].size_gb == 500


def test_machines_that_mount_no_network_volume_are_refused(recipe: LoadedRecipe, site: Site) -> None:
    local = registry.provisioner("local")
    with pytest.raises(NoStackVolume, match="provisioner local mounts none"):
        asyncio.run(resolved(recipe, local, site))


def test_what_a_run_brings_is_known_to_the_next_plan(recipe: LoadedRecipe, site: Site) -> None:
    seen(site)
    _, volume = resolve(recipe, site)
    told = after_prepare(volume, HUB, HostDouble(), HUB.bytes, site=site, run_id="a-run", at=AT)  # type: ignore[arg-type]
    assert (told.missed, noted(site, "v1")) == ("", [HELD])
    assert told.brought == "stack model_cache holds it now; recipe stack up model_cache tells other machines"
    assert resolve(recipe, site)[1].held(HUB) == HELD
    assert noted(site, "v2") == []


def test_a_volume_that_was_not_mounted_holds_nothing(recipe: LoadedRecipe, site: Site) -> None:
    seen(site)
    _, volume = resolve(recipe, site)
    host = HostDouble(mounted=False)
    after_prepare(volume, HUB, host, HUB.bytes, site=site, run_id="a-run", at=AT)  # type: ignore[arg-type]
    assert noted(site, "v1") == []


def test_a_model_that_was_not_there_after_all_is_told(recipe: LoadedRecipe, site: Site) -> None:
    seen(site, holds=(HELD,))
    _, volume = resolve(recipe, site)
    told = after_prepare(volume, HUB, HostDouble(), HUB.bytes, site=site, run_id="b", at=AT)  # type: ignore[arg-type]
    assert told.missed == "stack model_cache was said to hold me/large, and did not: 137.0 GB were downloaded again"
    found = after_prepare(volume, HUB, HostDouble(), 0, site=site, run_id="b", at=AT)  # type: ignore[arg-type]
    assert (found.missed, found.brought) == ("", "")


def test_broken_notes_are_passed_over(recipe: LoadedRecipe, site: Site) -> None:
    seen(site, holds=(HELD,))
    _, volume = resolve(recipe, site)
    after_prepare(volume, replace(HUB, commit="b"), HostDouble(), 1, site=site, run_id="r", at=AT)  # type: ignore[arg-type]
    (path,) = (site.home / "stacks" / "filled").rglob("*.json")
    path.write_text('{"repo": "me/large"')
    assert noted(site, "v1") == []
