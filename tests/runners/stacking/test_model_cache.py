"""What a cache is asked to be: its size from what the recipes download, its place from where their GPUs are."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Lease
from provisioners.journal import Journal
from provisioners.rehearsal.catalogue import GPUS
from recipes.errors import NoCapacity, Refused, UsageError
from recipes.load import LoadedRecipe, load
from runners import registry
from runners.modelfacts.facts import File
from runners.models import HubModel
from runners.stack_volumes import StackVolume, note_filled
from runners.stacking import model_cache
from runners.stacking.cache_places import command_of
from runners.stacking.program import StackOptions
from stacks import kept
from stacks.holding import minded
from stacks.model_cache.lifecycle import VOLUME
from stacks.model_cache.values import resource_name
from stacks.orders import unpack
from stacks.reference import StackRef
from stacks.values import Changes, Step
from tests.emulators.hub import Beginning, Hub, hub_emulator
from tests.emulators.runpod import RunPod, emulated

pytestmark = pytest.mark.real
MAIN = StackRef("model_cache")
LEAD = Path(__file__).parents[3] / "recipes" / "models" / "lead"
TOKEN = "hf_opens-the-gate-5e1c"
BYTES = 137_900_000_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunPod, Hub]]:
    with emulated(tmp_path_factory.mktemp("runpod")) as runpod, hub_emulator() as hub:
        lead = {path.name: path.read_bytes() for path in LEAD.iterdir() if path.is_file()}
        hub.push("me/lead", lead)
        hub.push("me/large", {"large.gguf": Beginning(lead["lead.gguf"][:200_000], BYTES)})
        hub.let_in(TOKEN)
        yield runpod, hub


@pytest.fixture(autouse=True)
def client(world: tuple[RunPod, Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunPod]:
    runpod, hub = world
    env = {
        **runpod.env,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_TOKEN": TOKEN,
        "RECIPE_RUNPOD_PACE": "0.05",
    }
    for name, value in {**env, "RECIPE_HOME": str(tmp_path / "home"), "RECIPE_OWNER": "ana"}.items():
        monkeypatch.setenv(name, value)
    yield runpod
    runpod.inject(no_capacity_gpus=[])
    assert (runpod.volumes(), runpod.ledger()) == ([], []), "nothing is made by looking"


def recipe_of(folder: Path, repo: str = "me/lead", accelerators: str = "A40:1", **changes: Any) -> LoadedRecipe:
    data = {
        "name": repo.replace("/", "-"),
        "resources": {
            "provisioner": "runpod",
            "accelerators": accelerators,
            "cloud": "secure",
            "volumes": [{"stack": "model_cache", "path": "/workspace"}],
        },
        "secrets": ["HF_TOKEN"],
        "model": {"repo": repo, "path": "/workspace"},
        "engine": {"name": "llamacpp"},
        "workload": {"name": "load", "traffic": {"concurrency": [1], "synthetic": {"input_tokens": 16}}},
    }
    for path, value in changes.items():
        place: Any = data
        *way, last = path.split("__")
        for step in way:
            place = place[step]
        place[last] = value
    file = folder / f"{data['name']}.yaml"
    file.write_text(json.dumps(data))
    (loaded,) = load(str(file), plugins=registry.installed(), cwd=folder)
    return loaded


def inputs(
    *recipes: LoadedRecipe, ref: StackRef = MAIN, before: dict[str, Any] | None = None, **options: Any
) -> dict[str, Any]:
    return asyncio.run(model_cache.inputs(recipes, ref, StackOptions(**options), os.environ, before))


def download_of(found: dict[str, Any], index: int = 0, op: str = "create") -> Step:
    return Step(op=op, type="Model", name=resource_name(found["models"][index]))


def test_the_size_is_that_of_the_model_and_the_engine_with_room(tmp_path: Path) -> None:
    found = inputs(recipe_of(tmp_path, "me/large"))
    (engine_gb,) = found["engines"].values()
    assert found["models"][0]["bytes"] == BYTES
    assert BYTES / 1e9 + engine_gb + 5 < found["size_gb"] <= (BYTES / 1e9 + engine_gb) * 1.05 + 15
    assert found["size_gb"] % 10 == 0


def test_a_small_model_gets_the_smallest_volume_there_is(tmp_path: Path) -> None:
    assert inputs(recipe_of(tmp_path))["size_gb"] == 10


def test_a_size_that_no_volume_has_is_answered_with_what_helps(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        inputs(recipe_of(tmp_path), size_gb=9000)
    assert refused.value.advice == "--size 4096GB is the most; 10GB are enough for what it is to hold"
    before = inputs(recipe_of(tmp_path, "me/large"))
    (model,) = before["models"]
    before["models"] = [{**model, "bytes": 3 * 10**12}, {**model, "repo": "me/other", "bytes": 2 * 10**12}]
    kept.keep(registry.site(), MAIN, {"volume_id": "v1"}, before)
    with pytest.raises(UsageError) as refused:
        inputs(before=before)
    assert refused.value.advice.startswith("split the recipes over several")
    before["models"] = [{**model, "bytes": 9 * 10**12}]
    with pytest.raises(UsageError) as refused:
        inputs(before=before)
    assert refused.value.advice.startswith("no cache can hold this model")


def test_two_recipes_share_a_cache_and_what_it_held_stays_counted(tmp_path: Path) -> None:
    first = inputs(recipe_of(tmp_path, "me/large"))
    both = inputs(recipe_of(tmp_path, "me/large"), recipe_of(tmp_path))
    assert [model["repo"] for model in both["models"]] == ["me/large", "me/lead"]
    assert len(both["engines"]) == 1, "the same engine is installed once"
    assert both["size_gb"] >= first["size_gb"]


def test_the_place_is_where_the_gpus_of_all_recipes_are(tmp_path: Path, client: RunPod) -> None:
    assert inputs(recipe_of(tmp_path, accelerators="A100-80GB:2"))["suggested_region"] == "US-KS-2"
    both = inputs(recipe_of(tmp_path), recipe_of(tmp_path, "me/large", "L4:1"))
    assert both["suggested_region"] == "EU-RO-1"
    client.inject(no_capacity_gpus=["NVIDIA L4"])
    with pytest.raises(NoCapacity, match="no data centre that keeps volumes has all of L4:1 in stock") as refused:
        inputs(recipe_of(tmp_path, accelerators="L4:1"), fill=True, size_gb=80)
    assert "any_of" in refused.value.advice
    command = f"recipe stack up model_cache {tmp_path / 'me-lead.yaml'} --size 80GB --fill --region PLACE"
    assert command in refused.value.advice, "with all that was typed"
    assert inputs(recipe_of(tmp_path, accelerators="L4:1"), region="EU-RO-1")["asked_region"] == "EU-RO-1"


def test_a_fallback_may_be_where_the_first_choice_is_not(tmp_path: Path) -> None:
    found = recipe_of(tmp_path, accelerators="H200:1", resources__any_of=[{"accelerators": "A40:1"}])
    assert inputs(found)["suggested_region"] in ("US-KS-2", "EU-RO-1")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size_gb": 100}, "--size 100GB is too small: the models take 137.9 GB"),
        ({"size_gb": 5000}, r"5,000 GB is more than a network volume can have \(4,096 GB\)"),
        ({"forced": ("disk",)}, "no check stands in the way"),
    ],
)
def test_a_wrong_wish_is_refused(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        inputs(recipe_of(tmp_path, "me/large"), **options)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"resources__volumes": [{"stack": "model_cache/b", "path": "/workspace"}]}, "mounts stack model_cache/b"),
        ({"resources__volumes": [{"name": "v1", "path": "/workspace"}]}, "mounts volume v1"),
        ({"model": {"builtin": "lead"}}, "downloads no model"),
        ({"model__path": "/elsewhere"}, "outside of the volume at /workspace"),
        ({"resources": {"provisioner": "local"}}, "provisioner local has no network volumes"),
    ],
)
def test_a_recipe_that_would_not_use_it_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        inputs(recipe_of(tmp_path, **changes))


def test_without_a_recipe_there_must_be_something_to_go_on_with() -> None:
    with pytest.raises(UsageError, match="nobody has said what model_cache is to hold"):
        inputs()


def test_a_recipe_without_a_volume_may_be_named_and_its_model_goes_into_the_machines_own_cache(tmp_path: Path) -> None:
    found = inputs(recipe_of(tmp_path, resources__volumes=[], model={"repo": "me/lead"}))
    assert found["models"][0]["place"] == ".recipe-cache/huggingface"


def test_of_secrets_only_the_names_travel(tmp_path: Path) -> None:
    found = inputs(recipe_of(tmp_path), fill=True)
    (model,) = found["models"]
    order = unpack(model["order"]).order
    assert (model["fill"], model["secrets"]) == (True, ["HF_TOKEN"])
    assert list(order.boot.env) == ["HF_ENDPOINT"]
    assert TOKEN not in json.dumps(found) + json.dumps(dict(order.boot.files))
    assert [job.name for job in order.boot.jobs] == ["fetch"]


def test_costs_are_told_before_anything_is_done(tmp_path: Path) -> None:
    found = inputs(recipe_of(tmp_path, "me/large"), fill=True, size_gb=200)
    changes = Changes((Step(op="create", type="Volume", name="volume"), download_of(found)))
    first, size, stock, second = model_cache.costs(found, changes, {})
    assert first.startswith("$14.00/month for 200 GB in EU-RO-1, until it is destroyed (prices of 2026-")
    assert size == "for 137.9 GB of models and 1.5 GB of engines, with room"
    assert stock.startswith("EU-RO-1 has A40:1 in stock (")
    match = re.fullmatch(
        r"1 download, 137\.9 GB: by the cheapest machine in EU-RO-1, let go after: "
        r"\$(\S+)/h for about (\d+) minutes: \$(\S+); at most \$(\S+)",
        second,
    )
    assert match is not None, second
    usd_per_h, minutes, likely_usd, most_usd = map(float, match.groups())
    assert 8 <= minutes <= 15, "at 300 MB/s, and until the machine is there"
    assert likely_usd == pytest.approx(usd_per_h * minutes / 60, abs=0.01)
    assert most_usd == pytest.approx(usd_per_h * found["models"][0]["lasts_s"] / 3600, abs=0.01)
    grown = model_cache.costs(found, Changes(), {"size_gb": 50, "region": "EU-RO-1"})
    assert grown[3] == "it grows from 50 GB, which cost $3.50/month; it can never be made smaller"


def test_what_lies_there_already_is_in_no_sum_of_what_is_downloaded(tmp_path: Path) -> None:
    found = inputs(recipe_of(tmp_path, "me/large"), recipe_of(tmp_path), fill=True)
    assert [model["repo"] for model in found["models"]] == ["me/large", "me/lead"]
    steps = (Step(op="same", type="Volume", name="volume"), download_of(found, 0, "same"), download_of(found, 1))
    outputs = {"size_gb": found["size_gb"], "region": "EU-RO-1", "volume_id": "v1"}
    *_, said = model_cache.costs(found, Changes(steps), outputs)
    assert said.startswith("1 download, 1.5 MB: ")
    for model in found["models"]:
        model["noted"] = {"volume_id": "v1"}
    assert "download" not in str(model_cache.costs(found, Changes(steps), outputs)), "a run has brought it"
    anew = (Step(op="create", type="Volume", name="volume"), download_of(found), download_of(found, 1))
    assert "2 downloads, 137.9 GB" in str(model_cache.costs(found, Changes(anew), outputs)), (
        "it is lost with its volume"
    )


def test_who_names_a_recipe_without_fill_downloads_nothing_that_is_not_there(tmp_path: Path) -> None:
    asked = inputs(recipe_of(tmp_path), fill=True)
    kept.keep(registry.site(), MAIN, {"volume_id": "v1"}, asked)
    assert inputs(before=asked)["models"][0]["fill"], "to go on is to do what was asked for"
    again = inputs(recipe_of(tmp_path), before=asked)
    assert (again["models"][0]["fill"], again["says"][-1]) == (
        False,
        "me/lead: lead.gguf is not downloaded now: --fill is left out, so the first run brings it",
    )
    (model,) = asked["models"]
    assert not model["noted"]
    held = {key: model[key] for key in ("repo", "commit", "files", "bytes", "place")}
    holds = [{**held, "by": "fill", "at": "2026-11-21T23:50:45+00:00"}]
    kept.keep(registry.site(), MAIN, {"volume_id": "v1", "holds": holds}, asked)
    again = inputs(recipe_of(tmp_path), before=asked)
    assert (again["models"][0]["fill"], "downloaded" in str(again["says"])) == (True, False), "it lies there"
    assert again["models"][0]["noted"]["volume_id"] == "v1", "and is not downloaded again, whatever Pulumi forgot"


@pytest.mark.parametrize("region", ["EUR-IS-1", "EU-RO-2"])
def test_a_data_centre_without_volumes_is_refused_before_anything_is_made(tmp_path: Path, region: str) -> None:
    with pytest.raises(UsageError, match=f"--region {region}: no data centre that keeps network volumes") as refused:
        inputs(recipe_of(tmp_path), region=region)
    assert refused.value.advice == "did you mean EU-RO-1? there are EU-RO-1, US-CA-2, US-KS-2, US-TX-3"


def test_a_data_centre_without_the_wanted_hardware_is_told(tmp_path: Path, client: RunPod) -> None:
    client.inject(no_capacity_gpus=["NVIDIA L4"])
    found = inputs(recipe_of(tmp_path, accelerators="L4:1"), region="EU-RO-1")
    lines = model_cache.costs(found, Changes((Step(op="create", type="Volume", name="volume"),)), {})
    assert "EU-RO-1 has no L4:1 in stock now: runs there may find no machine" in lines


def test_each_price_is_that_of_a_machine_that_there_is(tmp_path: Path) -> None:
    found = inputs(recipe_of(tmp_path), recipe_of(tmp_path, "me/large", "L4:1"), region="eu-ro-1")
    (said,) = found["says"]
    assert re.fullmatch(
        r"EU-RO-1 has A40:1 in stock \(\w+\), from \$0\.44/h, and L4:1 in stock \(\w+\), from \$0\.43/h", said
    )
    assert found["asked_region"] == "EU-RO-1", "whatever the case of letters"


def test_a_place_that_the_recipe_itself_leaves_out_is_no_matter_of_stock(tmp_path: Path) -> None:
    (said,) = inputs(recipe_of(tmp_path, resources__regions=["US-KS-2"]), region="EU-RO-1")["says"]
    assert said == "resources.regions of A40:1 leave EU-RO-1 out: each of their runs is refused there"


def test_a_cache_that_grows_for_gpus_that_are_elsewhere_says_so(tmp_path: Path) -> None:
    before = inputs(recipe_of(tmp_path), region="EU-RO-1")
    kept.keep(registry.site(), MAIN, {"volume_id": "v1", "region": "EU-RO-1"}, before)
    there = recipe_of(tmp_path, "me/large", "H100-80GB:1")
    (said,) = inputs(there, before=before)["says"]
    what, _, command = said.partition("; a second cache, elsewhere: ")
    assert what == "EU-RO-1 has no H100-80GB:1 in stock now: runs there may find no machine"
    *words, _, setting = shlex.split(command)
    assert words == ["recipe", "stack", "up", "model_cache/NAME", str(there.source)]
    (typed,) = load(words[-1], overrides=[setting], plugins=registry.installed(), cwd=tmp_path)
    second = inputs(typed, ref=StackRef.parse(words[-2]))
    assert (second["stack"], second["suggested_region"]) == ("NAME", "US-KS-2"), "the command works as it is shown"
    assert inputs(before=before)["says"] == [], "nobody has named a recipe"


def test_a_second_cache_for_recipes_that_no_one_setting_fits_says_what_to_write(tmp_path: Path) -> None:
    mounting, without = recipe_of(tmp_path), recipe_of(tmp_path, "me/large", resources__volumes=[])
    second, made = StackRef("model_cache", "far"), "recipe stack up model_cache/far"
    assert command_of([without], second) == f"{made} {without.source}", "it mounts none, so nothing stands in the way"
    assert command_of([mounting, without], second) == (
        f"write stack: model_cache/far into the recipes, then {made} {mounting.source} {without.source}"
    )


def test_a_smaller_size_is_said_to_be_none(tmp_path: Path) -> None:
    before = inputs(recipe_of(tmp_path), size_gb=80)
    kept.keep(registry.site(), MAIN, {"volume_id": "v1", "size_gb": 80.0}, before)
    again = inputs(before=before, size_gb=20)
    (said,) = [line for line in model_cache.costs(again, Changes(), {"size_gb": 80}) if "keeps" in line]
    assert said == "it keeps its 80 GB: a volume can grow, and never be made smaller"


def test_a_recipe_of_other_machines_cannot_join_it(tmp_path: Path) -> None:
    before = inputs(recipe_of(tmp_path))
    with pytest.raises(UsageError, match="the volume of this stack is runpod's, and machines of local cannot mount it"):
        inputs(recipe_of(tmp_path, resources={"provisioner": "local"}), before=before)


def test_the_lowest_of_the_recipes_limits_goes_for_the_download_too(tmp_path: Path) -> None:
    dear = recipe_of(tmp_path, limits={"max_price": 0.5})
    cheap = recipe_of(tmp_path, limits={"max_price": 0.05})
    assert inputs(dear, fill=True)["models"][0]["max_price"] == 0.5
    assert [model["max_price"] for model in inputs(dear, cheap, recipe_of(tmp_path))["models"]] == [0.05]
    with pytest.raises(Refused, match=r"takes \$0\.\d\d/h, above limits.max_price \$0.05/h") as refused:
        inputs(dear, cheap, recipe_of(tmp_path), fill=True)
    assert "without --fill the first run that mounts it brings the model" in refused.value.advice


def test_no_volume_is_made_to_be_filled_where_no_machine_can_be_had(tmp_path: Path, client: RunPod) -> None:
    client.inject(no_capacity_gpus=[gpu.id for gpu in GPUS])
    with pytest.raises(Refused, match="no machine can be had in EU-RO-1 now that could fill the volume"):
        inputs(recipe_of(tmp_path), region="EU-RO-1", fill=True)
    assert inputs(recipe_of(tmp_path), region="EU-RO-1")["filler_usd_per_h"] is None


def test_a_recipe_that_does_not_mount_it_is_told_what_to_write(tmp_path: Path) -> None:
    found = inputs(recipe_of(tmp_path, resources__volumes=[]), recipe_of(tmp_path, "me/large"))
    assert [line for line in found["says"] if "mount" in line] == [
        "recipe me-lead does not mount it, so its runs download their model all the same: "
        "write volumes: [{stack: model_cache, path: /workspace}]"
    ]


def test_what_runs_of_this_machine_have_brought_is_told_before_an_update_says_it() -> None:
    hub = HubModel("a/b", "c0ffee", (File("a.safetensors", BYTES),))
    outputs: dict[str, Any] = {"volume_id": "v1", "name": "n", "size_gb": 200.0, "region": "EU-RO-1", "holds": []}
    assert "nothing yet" in str(model_cache.told(outputs))
    volume = StackVolume(ref=MAIN, id="v1", region="EU-RO-1", size_gb=200, place=".", path="/workspace", grows_by="")
    note_filled(registry.site(), volume, hub, "my-run", datetime.now(UTC))
    told = str(model_cache.told(outputs))
    assert ("a/b @ c0ffee, 137.9 GB" in told, "nothing yet" in told) == (True, False)
    assert str(model_cache.billing({**outputs, "usd_per_month": 14.0})).endswith("holds 1 model, 137.9 GB (a/b)")
    assert [one["by"] for one in model_cache.known(outputs)["holds"]] == ["my-run"]


def test_two_files_of_one_repository_are_told_by_their_names() -> None:
    outputs: dict[str, Any] = {"volume_id": "v2", "name": "n", "size_gb": 200.0, "region": "EU-RO-1", "holds": []}
    volume = StackVolume(ref=MAIN, id="v2", region="EU-RO-1", size_gb=200, place=".", path="/workspace", grows_by="")
    for name in ("lead-Q4.gguf", "lead-Q8.gguf"):
        note_filled(registry.site(), volume, HubModel("a/b", "c0ffee", (File(name, BYTES),)), "r", datetime.now(UTC))
    holds = sorted(line.partition(",")[0] for _, line in model_cache.told(outputs) if "c0ffee" in line)
    assert holds == ["a/b: lead-Q4.gguf @ c0ffee", "a/b: lead-Q8.gguf @ c0ffee"]


def test_what_bills_is_said_with_its_price_and_what_would_be_lost() -> None:
    outputs: dict[str, Any] = {"volume_id": "v1", "size_gb": 200.0, "region": "EU-RO-1", "usd_per_month": 14.0}
    assert str(model_cache.billing(outputs)) == "volume v1, 200 GB in EU-RO-1 for $14.00/month"
    held = {"repo": "a/b", "commit": "c", "files": "f", "bytes": BYTES, "place": ".", "by": "r"}
    outputs["holds"] = [{**held, "at": "2026-11-21T23:50:45+00:00"}]
    assert str(model_cache.billing(outputs)).endswith("$14.00/month, holds 1 model, 137.9 GB (a/b)")
    assert model_cache.billing({}) is None


def test_after_a_failure_only_machines_are_let_go_that_nobody_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_cache, "_ENDS_S", 0.1)
    registry.site().home.mkdir(parents=True)
    journal = Journal(registry.site().home / "ledger.db")
    used, left = (Lease(provider="runpod", name=f"recipe-ana-fill-9f3a-{n}", run_id=f"fill-9f3a-{n}") for n in "12")
    journal.intend(minded(used))
    journal.intend(left)
    name, heard = "recipe-cache-main-20261121-051200-9f3a", list[str]()
    made = [{"id": "v1", "name": name, "kind": VOLUME}]
    assert asyncio.run(model_cache.after_failure(MAIN, made, {}, os.environ, heard.append)) == [name]
    assert [journal.state(one.name) for one in (used, left)] == ["intended", "gone"]
    assert [line.partition(" is gone")[0] for line in heard] == [left.name]
