"""A cache for models, whole: the command, the engine's double, an emulated RunPod with real pods, an emulated Hub."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Site
from provisioners.site import recipe_cache
from tests.conftest import Command, send
from tests.emulators.hub import Beginning, Hub, hub_emulator
from tests.emulators.pulumi import pulumi_on_path
from tests.emulators.runpod import RunPod, emulated, smoke_image

pytestmark = pytest.mark.real
Wait = Callable[..., Any]
LEAD = Path(__file__).parents[2] / "recipes" / "models" / "lead"
TOKEN = "hf_opens-the-gate-5e1c"
RECIPE = {
    "name": "lead",
    "resources": {
        "provisioner": "runpod",
        "accelerators": "A40:1",
        "any_of": [{"accelerators": "L40S:1"}],
        "cloud": "secure",
        "volumes": [{"stack": "model_cache", "path": "/workspace"}],
    },
    "secrets": ["HF_TOKEN"],
    "model": {"repo": "me/lead", "path": "/workspace"},
    "engine": {"name": "llamacpp", "args": {"ctx_size": 4096, "parallel": 2, "threads": 1}},
    "workload": {
        "name": "summarize",
        "inputs": ["note.txt"],
        "prompt": "builtin:summarize",
        "chunk_size": 448,
        "chunk_overlap": 32,
        "max_tokens": 32,
        "temperature": 0,
    },
}


@pytest.fixture(scope="session")
def image() -> Path:
    """The folder of programs of an image that ships the engine."""
    return asyncio.run(smoke_image(Site(home=Path("/nowhere"), cache=recipe_cache())))


@dataclass
class World:
    """A client with its accounts."""

    recipe: Command
    runpod: RunPod
    hub: Hub
    env: dict[str, str]
    file: Path

    def __call__(self, *words: str, client: Command | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        return (client or self.recipe)(*words, env={**self.env, **env})

    def up(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self("stack", "up", "model_cache", str(self.file), "--yes", *words, **env)

    def destroy(self, **how: Any) -> subprocess.CompletedProcess[str]:
        return self("stack", "destroy", "model_cache", "--yes", **how)

    def outputs(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("stack", "outputs", "model_cache", "--json").stdout)["outputs"]
        return found

    def plan(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("plan", str(self.file), "--json", *words).stdout)["plans"][0]
        return found

    def run(self) -> dict[str, Any]:
        ended = self("up", str(self.file), "--json")
        assert ended.returncode == 0, ended.stderr
        result: dict[str, Any] = json.loads(ended.stdout)["runs"][0]
        return result


@pytest.fixture
def world(recipe: Command, tmp_path: Path, image: Path) -> Iterator[World]:
    """When a test ends, nothing bills: no pod, no volume."""
    file = tmp_path / "lead.yaml"
    file.write_text(json.dumps(RECIPE))
    (tmp_path / "note.txt").write_text("The night train to the coast will run again from the first of May. " * 40)
    with emulated(tmp_path / "runpod", image=image) as runpod, hub_emulator() as hub:
        hub.push("me/lead", {p.name: p.read_bytes() for p in LEAD.iterdir() if p.is_file()}, gated=True)
        hub.let_in(TOKEN, "me/lead")
        pulumi = {k: v for k, v in pulumi_on_path(tmp_path / "pulumi").items() if k.startswith(("PULUMI", "PATH"))}
        own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "hf"), "RECIPE_OWNER": "ana"}
        yield World(recipe, runpod, hub, {**pulumi, **runpod.env, **own, "RECIPE_RUNPOD_PACE": "0.1"}, file)
        assert (runpod.billing, runpod.billing_volumes) == ([], [])


def test_the_first_run_fills_it_and_the_next_one_downloads_nothing(world: World) -> None:
    refused = world("plan", str(world.file))
    assert (refused.returncode, f"recipe stack up model_cache {world.file}" in refused.stdout) == (3, True)
    made = world.up()
    assert made.returncode == 0, made.stderr + made.stdout
    before = world.plan()
    assert (before["stack"]["held"], before["steps"][2]["bytes"]) == (None, 1504288)
    assert {offer["region"] for offer in before["offers"]} == {before["stack"]["region"]}
    first = world.run()
    assert first["prepared"]["downloaded_bytes"] == 1504288
    after = world.plan()
    assert after["stack"]["held"]["by"] == first["run_id"]
    assert after["steps"][2] == {"phase": "prepare", "action": "find me/lead @ " + after["model"]["commit"][:7] + " on "
                                 "stack model_cache", "bytes": 0}  # fmt: skip
    assert "already paid for" in world("plan", str(world.file)).stdout
    second = world("up", str(world.file), "--json")
    assert json.loads(second.stdout)["runs"][0]["prepared"]["downloaded_bytes"] == 0
    assert "1.5 MB: found on stack model_cache, 0 B downloaded" in second.stderr
    assert [held["by"] for held in world.outputs()["holds"]] == [first["run_id"]], "before any update says it"
    told = world.up("--fill")
    assert told.returncode == 0, told.stderr
    assert [held["by"] for held in world.outputs()["holds"]] == [first["run_id"]], "no pod brought it once more"
    assert len(world.runpod.ledger()) == 2
    gone = world.destroy()
    assert gone.returncode == 0, gone.stderr + gone.stdout
    assert "gone" in gone.stdout
    assert world("plan", str(world.file)).returncode == 3


def test_a_cheap_pod_fills_it_and_a_colleague_finds_and_ends_it(world: World, tmp_path: Path) -> None:
    made = world.up("--fill")
    assert made.returncode == 0, made.stderr + made.stdout
    (pod,) = world.runpod.ledger()
    assert pod["name"].startswith("recipe-ana-fill-")
    assert pod["billing"] is False
    (held,) = world.outputs()["holds"]
    assert held["by"].startswith("fill-")
    assert world.run()["prepared"]["downloaded_bytes"] == 0
    again = world.up("--fill")
    assert "nothing changes" in again.stdout
    assert len(world.runpod.ledger()) == 2, "one that filled it, and the run's own"
    bob = Command(tmp_path / "bob", tmp_path)
    found = json.loads(world("plan", str(world.file), "--json", client=bob, RECIPE_OWNER="bob").stdout)
    assert found["plans"][0]["stack"]["held"] == held
    gone = world.destroy(client=bob, RECIPE_OWNER="bob")
    assert gone.returncode == 0, gone.stderr + gone.stdout


def test_a_preview_makes_and_changes_nothing(world: World) -> None:
    first = world("stack", "preview", "model_cache", str(world.file), "--fill")
    assert first.returncode == 0, first.stderr
    assert "$0.70/month for 10 GB" in first.stdout
    assert world.runpod.writes() == []
    world.up()
    assert "grows from 10 GB" in world("stack", "preview", "model_cache", "--size", "80GB").stdout
    (volume,) = world.runpod.volumes()
    assert volume["size_gb"] == 10
    moved = world("stack", "preview", "model_cache", "--region", "US-TX-3")
    assert (moved.returncode, "no volume can be moved" in moved.stderr) == (2, True)
    world("plan", str(world.file))
    assert world.runpod.writes() == ["POST /v2/network-volumes"], "that of `up`"
    assert world.destroy().returncode == 0


def test_a_growth_downloads_nothing_again_and_its_preview_says_so(world: World) -> None:
    assert world.up("--fill").returncode == 0
    volume_id = world.outputs()["volume_id"]
    seen = world("stack", "preview", "model_cache", "--size", "80GB", "--json")
    document = json.loads(seen.stdout)
    assert [(step["op"], step["type"]) for step in document["changes"]] == [("update", "Volume")], seen.stderr
    assert "download" not in " ".join(document["costs"])
    assert world.up("--size", "80GB").returncode == 0
    assert len(world.runpod.ledger()) == 1, "the one that filled it"
    world.runpod.delete_volume(volume_id)
    lost = json.loads(world("stack", "preview", "model_cache", "--json").stdout)
    assert ("Model", True) in [(step["type"], step["op"] in ("create", "replace")) for step in lost["changes"]]
    assert "1 download" in " ".join(lost["costs"]), "it lies nowhere any more, and is paid for again"
    assert world.destroy().returncode == 0


@pytest.mark.parametrize(
    "faults",
    [
        {"volume_500_after": 1},
        {"volume_lost_after": 1},
        {"volume_duplicate": 1},
        {"volume_500_before": 1},
        {"volume_delete_500": 1},
        {"volume_delete_404": 1},
        {"volume_delete_ignored": 1},
        {"volume_delete_lost": 1},
    ],
)
def test_whatever_goes_wrong_one_volume_is_made_and_none_bills_at_the_end(world: World, faults: dict[str, Any]) -> None:
    world.runpod.inject(**faults)
    made = world.up()
    assert made.returncode == 0, made.stderr + made.stdout
    assert world.runpod.billing_volumes == [world.outputs()["volume_id"]]
    assert "nothing changes" in world.up().stdout
    gone = world.destroy()
    assert gone.returncode == 0, gone.stderr + gone.stdout


def test_killed_between_create_and_state_the_next_update_finds_the_volume(world: World) -> None:
    killed = world.up(ENGINE_DOUBLE_DIE="after-create:volume")
    assert (killed.returncode, "exists, and bills" in killed.stderr) == (4, True), killed.stderr
    (volume,) = world.runpod.volumes()
    made = world.up()
    assert made.returncode == 0, made.stderr
    assert world.outputs()["volume_id"] == volume["id"]
    assert list(world.runpod.volume_creates().values()) == [[volume["id"]]]
    assert world.destroy().returncode == 0


def test_killed_between_create_and_state_a_destroy_ends_the_volume(world: World) -> None:
    world.up(ENGINE_DOUBLE_DIE="after-create:volume")
    assert len(world.runpod.billing_volumes) == 1
    gone = world.destroy()
    assert gone.returncode == 0, gone.stderr + gone.stdout


def test_interrupted_while_it_is_filled_the_machine_is_let_go_and_the_next_update_goes_on(
    world: World, wait_until: Wait
) -> None:
    world.runpod.inject(provisioning_s=120)
    process = world.recipe.start("stack", "up", "model_cache", str(world.file), "--fill", "--yes", env=world.env)
    wait_until(lambda: world.runpod.billing, what="the machine that fills it")
    assert "nothing of ana's is billing" in world("reap", "--yes").stdout, "somebody minds it"
    at_once = world("stack", "up", "model_cache", "--fill", "--yes")
    assert (at_once.returncode, "is being changed by" in at_once.stderr) == (4, True), at_once.stderr
    assert len(world.runpod.billing) == 1, "another's update ends nothing of it"
    status, out, err = send(process, signal.SIGINT)
    assert status == 130, out + err
    assert world.runpod.billing == []
    assert "is gone: pod" in out + err
    (volume,) = world.runpod.volumes()
    assert (world.outputs()["volume_id"], world.plan()["stack"]["volume_id"]) == (volume["id"], volume["id"])
    assert "its update has not come to its end" in world("stack", "list").stdout
    world.runpod.inject(provisioning_s=0)
    went_on = world("stack", "up", "model_cache", "--yes")
    assert went_on.returncode == 0, went_on.stderr
    assert [held["repo"] for held in world.outputs()["holds"]] == ["me/lead"], "it was asked for with --fill"
    assert world.destroy().returncode == 0


def test_a_volume_that_somebody_deleted_is_said_and_made_anew(world: World) -> None:
    world.up()
    old = world.outputs()["volume_id"]
    world.runpod.delete_volume(old)
    refused = world("up", str(world.file))
    assert (refused.returncode, "somebody deleted it" in refused.stderr + refused.stdout) == (3, True)
    made = world.up()
    assert made.returncode == 0, made.stderr
    assert world.outputs()["volume_id"] != old
    assert world.destroy().returncode == 0


def test_a_run_that_does_not_fit_on_it_is_refused_before_anything_is_spent(world: World) -> None:
    world.up()
    weights = (LEAD / "lead.gguf").read_bytes()[:200_000]
    world.hub.push("me/large", {"large.gguf": Beginning(weights, 30_000_000_000)})
    large = ("--set", "model={repo: me/large, path: /workspace}", "--set", "secrets=[]")
    (block,) = blocks_of(world.plan(*large))
    assert block["message"] == "30.0 GB model + 1.5 GB llama.cpp do not fit the 10 GB left on the volume"
    assert block["suggestion"].startswith(f"make it larger: recipe stack up model_cache {world.file} --set 'model=")
    refused = world("up", str(world.file), *large)
    assert (refused.returncode, world.runpod.creates()) == (3, {})
    assert world.up(*large).returncode == 0
    assert world.outputs()["size_gb"] == 40
    assert blocks_of(world.plan(*large)) == []
    assert world.destroy().returncode == 0


def blocks_of(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """What refuses it because of its volume."""
    return [found for found in plan["findings"] if (found["level"], found["code"]) == ("block", "volume")]


def test_no_secret_is_kept_or_shown(world: World, tmp_path: Path) -> None:
    said = [world.up("--fill"), world("stack", "outputs", "model_cache", "--json"), world("plan", str(world.file))]
    secrets = [TOKEN, world.runpod.key]
    assert [secret for secret in secrets for one in said if secret in one.stdout + one.stderr] == []
    folders = (world.recipe.home, tmp_path / "pulumi")
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert [path for path in files if any(secret.encode() in path.read_bytes() for secret in secrets)] == []
    assert world.destroy().returncode == 0
