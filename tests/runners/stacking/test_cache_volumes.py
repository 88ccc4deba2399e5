"""What is said of a cache's volume that somebody else has, and which command helps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from provisioners.contract import Site
from provisioners.volumes import StoredVolume
from runners.stacking import cache_volumes
from runners.stacking.cache_volumes import CacheVolume, State
from stacks import kept
from stacks.reference import StackRef

MAIN = StackRef("model_cache")
VOLUME = CacheVolume(
    volume=StoredVolume(id="v1", name="recipe-cache-main-1", size_gb=200, region="EU-RO-1"),
    provisioner="runpod",
    usd_per_month=14.0,
    state="stray",
    ref=MAIN,
)


@pytest.mark.parametrize(
    ("state", "advice"),
    [
        ("held", "recipe stack up model_cache goes on with it"),
        ("unfinished", "recipe stack up model_cache goes on with it"),
        ("twin", "recipe stack destroy model_cache --volume v1 ends it"),
    ],
)
def test_who_wants_a_volume_that_a_stack_has_is_told_a_command_that_works(state: State, advice: str) -> None:
    assert replace(VOLUME, state=state).advice == advice


@pytest.mark.parametrize(
    ("url", "command"),
    [
        (None, "env -u PULUMI_BACKEND_URL recipe stack destroy model_cache"),
        ("s3://team", "PULUMI_BACKEND_URL=s3://team recipe stack destroy model_cache"),
        (
            "s3://team?region=eu-west-1",
            "with the whole PULUMI_BACKEND_URL of s3://team set: recipe stack destroy model_cache",
        ),
        (
            "postgres://ana:hush@db/state",
            "with the whole PULUMI_BACKEND_URL of postgres://***@db/state set: recipe stack destroy model_cache",
        ),
    ],
)
def test_a_backend_whose_url_is_not_noted_whole_is_not_told_as_if_it_were(
    tmp_path: Path, url: str | None, command: str
) -> None:
    there = Site(home=tmp_path, cache=tmp_path, env={"PULUMI_BACKEND_URL": url} if url else {})
    kept.keep(there, MAIN, {"volume_id": "v1"})
    here = replace(there, env={"PULUMI_BACKEND_URL": "gs://another"})
    found = cache_volumes._of_another(VOLUME, cache_volumes._seen_elsewhere(here)["v1"])
    assert found.command == command
    assert found.advice == f"{command.replace('destroy', 'up')} goes on with it"
    assert ("passphrase" in found.says) == (url is not None), "one's own is on this computer"
