"""What a cache's state says, as `pulumi stack export` has it, of updates that came to their end and of others."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from provisioners.site import site_of
from stacks import kept
from stacks.model_cache import state
from stacks.model_cache.values import Held
from stacks.reference import StackRef
from stacks.values import NoSuchStack

REF = StackRef("model_cache", "team")
NAME = "recipe-cache-team-20261121-051200-9f3a"
SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "v1:x"}
VOLUME = {
    "volume_id": "v1",
    "unique_name": NAME,
    "provisioner": "runpod",
    "size_gb": 10,
    "region": "EU-RO-1",
    "usd_per_month": 0.7,
}
PUT_OUT = {"name": NAME, **{key: value for key, value in VOLUME.items() if key != "unique_name"}}
AT = datetime(2026, 11, 21, 5, 12, tzinfo=UTC)


def held(repo: str) -> dict[str, Any]:
    return Held(repo=repo, commit="c0ffee", files="1f2e", bytes=12, place=".", by="fill", at=AT).data()


def resource(kind: str, outputs: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    return {"type": f"pulumi-python:dynamic/recipe:{kind}", "inputs": inputs, "outputs": outputs}


def root(**outputs: Any) -> dict[str, Any]:
    return {"type": "pulumi:pulumi:Stack", "outputs": outputs}


def name(**asked: Any) -> dict[str, Any]:
    return resource("VolumeName", {"unique_name": NAME}, asked=json.dumps(asked))


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The resources that the engine has; none is a stack that is not there."""
    found = list[dict[str, Any]]()

    async def asked_of(*_: Any) -> Any:
        if not found:
            raise NoSuchStack("there is none")
        return {"version": 3, "deployment": {"resources": found}}

    monkeypatch.setattr(state, "asked_of", asked_of)
    return found


def outputs(home: Path) -> kept.Outputs:
    return asyncio.run(kept.outputs_of(site_of({"RECIPE_HOME": str(home)}), REF))


def inputs(home: Path) -> Any:
    return asyncio.run(kept.inputs_of(site_of({"RECIPE_HOME": str(home)}), REF))


def test_an_update_that_came_to_its_end_is_what_it_put_out(tmp_path: Path, export: list[dict[str, Any]]) -> None:
    holds = [held("a")]
    model = resource("Model", {"volume_id": "v1", "held": held("a")})
    export += [root(**PUT_OUT, holds=holds, recipe_inputs=SECRET), name(size_gb=10), resource("Volume", VOLUME), model]
    assert (outputs(tmp_path).values, outputs(tmp_path).whole) == ({**PUT_OUT, "holds": holds}, True)
    assert inputs(tmp_path) == {"size_gb": 10}


def test_of_a_first_update_that_was_interrupted_its_volume_and_its_wishes_are_known(
    tmp_path: Path, export: list[dict[str, Any]]
) -> None:
    export += [root(), name(models=["a"]), resource("Volume", VOLUME)]
    assert (outputs(tmp_path).values, outputs(tmp_path).whole) == ({**PUT_OUT, "holds": []}, False)
    assert inputs(tmp_path) == {"models": ["a"]}


def test_what_a_later_one_has_brought_before_it_stopped_lies_there(
    tmp_path: Path, export: list[dict[str, Any]]
) -> None:
    brought, earlier = (
        resource("Model", {"volume_id": v, "held": held(repo)}) for v, repo in (("v1", "b"), ("v0", "c"))
    )
    grown = resource("Volume", {**VOLUME, "size_gb": 80})
    export += [root(**PUT_OUT, holds=[held("a")], recipe_inputs=SECRET), name(size_gb=80), grown, brought, earlier]
    found = outputs(tmp_path)
    assert [one["repo"] for one in found.values["holds"]] == ["a", "b"], "c lay on a volume that is gone"
    assert (found.values["size_gb"], found.whole, inputs(tmp_path)) == (80, False, {"size_gb": 80})


def test_what_lay_on_a_volume_that_is_gone_is_not_on_the_next_one(tmp_path: Path, export: list[dict[str, Any]]) -> None:
    export += [root(**{**PUT_OUT, "volume_id": "v0"}, holds=[held("a")]), name(), resource("Volume", VOLUME)]
    assert (outputs(tmp_path).values["holds"], outputs(tmp_path).values["volume_id"]) == ([], "v1")


def test_of_a_volume_that_is_gone_nothing_is_put_out(tmp_path: Path, export: list[dict[str, Any]]) -> None:
    """As after a destroy that was interrupted once the volume was proven gone."""
    export += [root(**PUT_OUT, holds=[held("a")]), name(models=["a"])]
    assert (outputs(tmp_path).values, outputs(tmp_path).whole, inputs(tmp_path)) == ({}, False, {"models": ["a"]})


def test_without_a_volume_there_is_nothing_but_the_wish(tmp_path: Path, export: list[dict[str, Any]]) -> None:
    assert inputs(tmp_path) is None
    export += [root(), name(models=["a"])]
    assert (outputs(tmp_path).values, inputs(tmp_path)) == ({}, {"models": ["a"]})


def test_wishes_that_only_the_outputs_have_are_as_last_seen_here(tmp_path: Path, export: list[dict[str, Any]]) -> None:
    """The state hides them, and the name does not tell them."""
    export += [root(**PUT_OUT, holds=[], recipe_inputs=SECRET), resource("VolumeName", {"unique_name": NAME})]
    export += [resource("Volume", VOLUME)]
    assert inputs(tmp_path) is None
    kept.keep(site_of({"RECIPE_HOME": str(tmp_path)}), REF, PUT_OUT, {"size_gb": 10})
    assert inputs(tmp_path) == {"size_gb": 10}
