"""The cache's program under Pulumi's mocks: which resources, in which order, with which outputs. Nothing is called."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pulumi
import pytest
from pulumi.runtime import mocks

from stacks.model_cache import program
from stacks.model_cache.values import Held, merged

AT = datetime(2026, 11, 21, 5, 12, tzinfo=UTC)
HELD = Held(repo="me/lead", commit="7773b17", files="1f2e", bytes=12, place=".", by="a-run", at=AT)
MODEL = {
    "repo": "me/lead",
    "commit": "7773b1755be7",
    "files": "1f2e3d4c",
    "bytes": 12,
    "place": ".",
    "order": "packed",
    "secrets": ["HF_TOKEN"],
    "lasts_s": 1800.0,
    "noted": None,
    "fill": True,
}
INPUTS = {
    "stack": "team",
    "provisioner": "runpod",
    "owner": "ana",
    "size_gb": 200,
    "asked_region": "",
    "suggested_region": "EU-RO-1",
    "models": [MODEL],
}


class Mocks(mocks.Mocks):
    """Outputs as the providers would give them."""

    def __init__(self) -> None:
        self.made: dict[str, Mapping[str, Any]] = {}

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.made[args.name] = args.inputs
        known: dict[str, dict[str, Any]] = {
            "UniqueName": {"stamp": "20261121-051200", "suffix": "9f3a", "made_at": "", "deadline": ""},
            "Volume": {"volume_id": "v1", "region": "EU-RO-1", "usd_per_month": 14.0},
            "Model": {"held": HELD.data()},
        }
        return f"id-of-{args.name}", {**args.inputs, **known.get(args.typ.rpartition(":")[2], {})}

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]] | None]:
        return {}, None


Run = Callable[..., tuple[Mocks, dict[str, Any]]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the program; returns what was made, and what was exported."""

    def running(inputs: Mapping[str, Any]) -> tuple[Mocks, dict[str, Any]]:
        made, exported, found = Mocks(), dict[str, Any](), dict[str, Any]()
        monkeypatch.setattr(program.pulumi, "export", exported.__setitem__)

        def work() -> None:
            asyncio.set_event_loop(asyncio.new_event_loop())
            mocks.set_mocks(made, preview=False)

            @pulumi.runtime.test
            def whole() -> Any:
                program.run(inputs)
                return pulumi.Output.all(**exported).apply(found.update)

            whole()

        thread = threading.Thread(target=work)  # Pulumi's settings are those of a thread
        thread.start()
        thread.join(120)
        assert not thread.is_alive()
        return made, found

    return running


def test_a_name_a_volume_and_a_model(run: Run) -> None:
    made, exported = run(INPUTS)
    assert list(made.made) == ["name", "volume-name", "volume", "me.lead@7773b17-1f2e3d"]
    name = "recipe-cache-team-20261121-051200-9f3a"
    assert made.made["volume-name"]["unique_name"] == made.made["volume"]["unique_name"] == name
    assert json.loads(made.made["volume-name"]["asked"]) == INPUTS, "for whoever goes on"
    assert (made.made["volume"]["size_gb"], made.made["volume"]["suggested_region"]) == (200, "EU-RO-1")
    assert made.made["me.lead@7773b17-1f2e3d"]["volume_id"] == "v1"
    assert exported == {
        "volume_id": "v1",
        "name": name,
        "provisioner": "runpod",
        "size_gb": 200,
        "region": "EU-RO-1",
        "usd_per_month": 14.0,
        "holds": [HELD.data()],
    }


def test_without_fill_no_model_is_brought(run: Run) -> None:
    made, exported = run({**INPUTS, "models": [{**MODEL, "fill": False}]})
    assert (list(made.made), exported["holds"]) == (["name", "volume-name", "volume"], [])


def test_what_runs_have_brought_onto_this_volume_is_put_out_and_no_other(run: Run) -> None:
    here = {**HELD.data(), "volume_id": "v1"}
    models = [
        {**MODEL, "fill": False, "noted": here},
        {**MODEL, "repo": "me/other", "fill": False, "noted": {**here, "repo": "me/other", "volume_id": "v0"}},
    ]
    _, exported = run({**INPUTS, "models": models})
    assert exported["holds"] == [HELD.data()]


def test_no_secret_is_an_input_of_anything(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_that-nobody-may-see")
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_that-nobody-may-see")
    made, _ = run(INPUTS)
    assert "that-nobody-may-see" not in str(made.made)


def test_a_long_name_of_a_stack_is_cut_and_stays_unique(run: Run) -> None:
    made, _ = run({**INPUTS, "stack": "a" * 90})
    name = made.made["volume"]["unique_name"]
    assert (len(name), name.endswith("-20261121-051200-9f3a")) == (60, True)


def test_each_model_counts_once_as_it_was_brought_first() -> None:
    later = Held(**{**HELD.__dict__, "by": "another-run", "at": datetime(2026, 11, 22, tzinfo=UTC)})
    other = Held(**{**HELD.__dict__, "files": "other"})
    assert merged(later, HELD, other) == [HELD, other]
    assert Held.of(HELD.data()) == HELD
