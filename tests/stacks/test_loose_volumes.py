"""Volumes of caches that no stack has, whole: they are seen, gone on with, or ended, each by its command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.stacks.test_model_cache_whole import World, image, world

__all__ = ["image", "world"]
pytestmark = pytest.mark.real


def lose_the_state(world: World) -> str:
    """The volume's id, of which no state tells any more."""
    made = world.up()
    assert made.returncode == 0, made.stderr + made.stdout
    volume_id: str = world.outputs()["volume_id"]
    another_backend(world)
    shutil.rmtree(world.recipe.home / "stacks")
    return volume_id


def another_backend(world: World) -> None:
    world.env["PULUMI_BACKEND_URL"] += "-another"
    Path(world.env["PULUMI_BACKEND_URL"].removeprefix("file://")).mkdir()


def listed(world: World, **env: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(world("stack", "list", "--json", **env).stdout)
    return told


def test_a_volume_that_no_state_knows_is_told_with_its_price_and_deleted_by_its_command_alone(world: World) -> None:
    volume_id = lose_the_state(world)
    told = world("stack", "list")
    command = f"recipe stack destroy model_cache --volume {volume_id}"
    assert "no stacks yet" in told.stdout
    assert f"volume   {volume_id}, 10 GB in " in told.stdout
    assert ", $0.70/month (recipe-cache-main-" in told.stdout
    assert "held by no stack here" in told.stdout
    assert command in told.stdout
    (row,) = listed(world)["volumes"]
    assert (row["id"], row["state"], row["usd_per_month"], row["command"]) == (volume_id, "stray", 0.7, command)
    reaped = world("reap", "--yes")
    assert (reaped.returncode, command in reaped.stdout) == (0, True), reaped.stdout + reaped.stderr
    assert json.loads(world("reap", "--json").stdout)["volumes"] == [row]
    assert world.runpod.billing_volumes == [volume_id], "it holds data"
    gone = world.destroy()
    assert (gone.returncode, command in gone.stderr) == (2, True), "there is no such stack, and what is left is named"
    asked = world(*command.split()[1:])
    assert (asked.returncode, "nobody can be asked" in asked.stderr) == (2, True)
    other = world("stack", "destroy", "model_cache/team", "--volume", volume_id, "--yes")
    assert (other.returncode, "was made for a stack called model_cache/team" in other.stderr) == (2, True)
    ended = world(*command.split()[1:], "--yes", "--json")
    assert ended.returncode == 0, ended.stderr
    assert f"network volume {volume_id} deleted" in json.loads(ended.stdout)["proofs"][0]
    assert world.runpod.billing_volumes == []
    assert listed(world)["volumes"] == []


def test_one_that_a_stack_of_another_backend_holds_is_not_without_an_owner(world: World) -> None:
    """As this machine has seen it."""
    assert world.up("--fill").returncode == 0
    first, (volume_id,) = world.env["PULUMI_BACKEND_URL"], world.runpod.billing_volumes
    another_backend(world)
    (row,) = listed(world)["volumes"]
    assert (row["state"], row["command"]) == (
        "elsewhere",
        f"PULUMI_BACKEND_URL={first} recipe stack destroy model_cache",
    )
    assert row["says"].startswith(f"held by stack model_cache of {first}, as this machine saw it at 20")
    assert ", holding me/lead: lead.gguf; if that state is lost, remove " in row["says"]
    for words in (("stack", "destroy", "model_cache", "--volume", volume_id, "--yes"),
                  ("stack", "up", "model_cache", str(world.file), "--volume", volume_id, "--yes")):  # fmt: skip
        refused = world(*words)
        assert (refused.returncode, f"of {first}" in refused.stderr.replace("\n", "")) == (2, True), refused.stderr
    assert world.runpod.billing_volumes == [volume_id]
    world.env["PULUMI_BACKEND_URL"] = first
    assert world.destroy().returncode == 0


def test_a_preview_warns_of_it_and_an_update_can_go_on_with_it(world: World) -> None:
    volume_id = lose_the_state(world)
    seen = world("stack", "preview", "model_cache", str(world.file), "--json")
    (warning,) = json.loads(seen.stdout)["warnings"]
    assert f"recipe stack up model_cache RECIPE --volume {volume_id} goes on with it" in warning
    assert f"recipe stack destroy model_cache --volume {volume_id} deletes it" in warning
    assert warning in seen.stderr.replace("\n", " ")
    nothing = world.up("--volume", "nosuch")
    assert (nothing.returncode, "no model cache has left such a volume" in nothing.stderr) == (2, True)
    went_on = world.up("--volume", volume_id)
    assert went_on.returncode == 0, went_on.stderr + went_on.stdout
    assert "is gone on with, and paid for already: none is made besides it" in went_on.stdout
    assert "warning" not in went_on.stderr, "of the one that is taken"
    assert world.outputs()["volume_id"] == volume_id
    assert world.runpod.billing_volumes == [volume_id]
    assert [row["state"] for row in listed(world)["volumes"]] == ["held"]
    again = world.up()
    assert ("nothing changes" in again.stdout, "warning" in again.stderr) == (True, False)
    refused = world("stack", "destroy", "model_cache", "--volume", volume_id, "--yes")
    assert (refused.returncode, "held by stack model_cache" in refused.stderr) == (2, True)
    assert world.destroy().returncode == 0


def test_a_second_one_is_made_only_with_a_word_of_the_first(world: World) -> None:
    volume_id = lose_the_state(world)
    made = world.up()
    assert made.returncode == 0, made.stderr
    assert f"volume {volume_id}, 10 GB" in made.stderr
    assert len(world.runpod.billing_volumes) == 2
    refused = world.up("--volume", volume_id)
    assert (refused.returncode, "is for a stack that has none yet" in refused.stderr) == (2, True)
    assert world.destroy().returncode == 0
    assert world.runpod.billing_volumes == [volume_id], "that of a colleague is not ours"
    assert world("stack", "destroy", "model_cache", "--volume", volume_id, "--yes").returncode == 0


def test_an_update_that_did_not_come_to_its_end_is_not_said_to_bill_nothing(world: World) -> None:
    world.up(ENGINE_DOUBLE_DIE="after-create:volume")
    (volume_id,) = world.runpod.billing_volumes
    told = world("stack", "list")
    assert ("bills nothing" in told.stdout, "its update has not come to its end" in told.stdout) == (False, True)
    assert f"volume   {volume_id}, 10 GB" in told.stdout
    (row,) = listed(world)["volumes"]
    assert (row["state"], row["command"]) == ("unfinished", "recipe stack destroy model_cache")
    assert volume_id in world("reap").stdout
    assert "warning" not in world.up().stderr, "this update goes on with it"
    assert "volume   " not in world("stack", "list").stdout
    assert world.destroy().returncode == 0


def test_a_cache_whose_filling_fails_bills_and_is_said_to(world: World) -> None:
    world.runpod.inject(create_no_capacity=-1)
    failed = world.up("--fill")
    assert failed.returncode == 4
    (volume_id,) = world.runpod.billing_volumes
    (row,) = listed(world)["stacks"]
    assert row["unfinished"]
    assert f"volume {volume_id}, 10 GB in " in json.dumps(row["bills"])
    world.runpod.inject(create_no_capacity=0)
    assert world.destroy().returncode == 0


def test_a_twin_that_lists_have_late_is_previewed_and_ended(world: World) -> None:
    world.runpod.inject(volume_duplicate=1, volume_list_lag_s=-1)
    assert world.up().returncode == 0
    kept = world.outputs()["volume_id"]
    world.runpod.inject(volume_list_lag_s=0)
    assert sorted(row["state"] for row in listed(world)["volumes"]) == ["held", "twin"]
    seen = world("stack", "preview", "model_cache")
    assert "~   update   Volume   volume" in seen.stdout
    assert f"deletes it and keeps {kept}" in " ".join(seen.stderr.split())
    assert len(world.runpod.billing_volumes) == 2
    assert world.up().returncode == 0
    assert world.runpod.billing_volumes == [kept]
    assert "nothing changes" in world.up().stdout
    assert world.destroy().returncode == 0


def test_where_volumes_cannot_be_asked_for_it_is_said(world: World) -> None:
    keyless = world("stack", "list", RUNPOD_API_KEY="")
    assert (keyless.returncode, "network volumes were not asked for" in keyless.stderr) == (0, True)
    wrong = world("stack", "list", RUNPOD_API_KEY="rpa_wrong")
    assert (wrong.returncode, "network volumes could not be asked for" in wrong.stderr) == (0, True)
    told = listed(world, RUNPOD_API_KEY="rpa_wrong")
    assert (told["volumes"], told["volumes_unknown"].startswith("network volumes could not")) == (None, True)


def test_without_an_engine_nobody_says_that_no_stack_holds_it(world: World) -> None:
    volume_id = lose_the_state(world)
    without = {"PATH": "/usr/bin:/bin"}
    reaped = world("reap", **without)
    assert (volume_id in reaped.stdout, "nobody can say here whether a stack holds it" in reaped.stdout) == (True, True)
    refused = world("stack", "destroy", "model_cache", "--volume", volume_id, "--yes", **without)
    assert (refused.returncode, world.runpod.billing_volumes) == (2, [volume_id])
    assert world("stack", "destroy", "model_cache", "--volume", volume_id, "--yes").returncode == 0
