"""What the list says of a pod's stack whose last update has not come to its end, by what its state has."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Gone, Lease
from provisioners.journal import Journal
from provisioners.site import site_of
from recipes.errors import ExitCode
from runners.cli import stacking
from runners.cli.stacking import Wish
from runners.ledger import Ledger
from runners.stacking import listing
from runners.stacking.rows import StackRow
from stacks import kept
from stacks.holding import in_stack
from stacks.orders import lease_data
from stacks.reference import StackRef
from stacks.values import StackFailed, StackSummary

REF = StackRef("gpu_pod")
A, B = (f"recipe-ana-pod-20991121-05120{n}-9f3{n}-20991122T0000Z" for n in (0, 1))
GONE = "bills nothing: what it put out is gone, and nothing was made in its place"
DOUBT = f"nobody knows from here whether a pod called {B} is there"


def lease(name: str = A) -> Lease:
    return Lease(
        provider="runpod",
        name=name,
        run_id=f"run-{name[-19:]}",
        id="pod-a" if name == A else None,
        price_usd_per_h=3.61,
        details=in_stack(REF.project, REF.name),
    )


def resource(kind: str, name: str) -> dict[str, Any]:
    return {"type": f"pulumi-python:dynamic/recipe:{kind}", "inputs": {"unique_name": name}, "outputs": {}}


def making(kind: str, name: str) -> dict[str, Any]:
    return {"type": "creating", "resource": resource(kind, name)}


class State:
    """What the engine says of the stack, whose outputs are those of pod A."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.resources, self.pending = list[dict[str, Any]](), list[dict[str, Any]]()
        self.is_slow = False

    async def asked_of(self, _site: Any, _ref: Any, *argv: str) -> Any:
        if argv[1] == "output":
            return {"lease": lease_data(lease()), "name": A}
        if self.is_slow:
            raise StackFailed("nobody answers")
        resources = [{"type": "pulumi:pulumi:Stack"}, *self.resources]
        return {"deployment": {"resources": resources, "pending_operations": self.pending}}

    async def stacks(self, _site: Any) -> list[StackSummary]:
        return [StackSummary(project=REF.project, name=REF.name, resources=3)]

    def row(self) -> StackRow:
        (found,), _ = asyncio.run(listing.rows_of(site_of({"RECIPE_HOME": str(self.home)})))
        return found


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    made = State(tmp_path)
    monkeypatch.setenv("RECIPE_HOME", str(tmp_path))
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    monkeypatch.setattr(listing, "stacks", made.stacks)
    for module in (listing, kept):
        monkeypatch.setattr(module, "asked_of", made.asked_of)
    return made


def test_a_pod_in_the_state_bills(state: State) -> None:
    state.resources = [resource("PodName", A), resource("GpuPod", A)]
    row = state.row()
    assert (row.says.startswith("pod pod-a"), row.unfinished) == (True, False)


@pytest.mark.parametrize(
    ("names", "pending"),
    [([B], []), ([A, B], []), ([B], [making("GpuPod", B)]), ([], [making("GpuPod", B)])],
    ids=["named", "beside the old name", "being made", "being made without a name"],
)
def test_of_a_replacement_that_may_be_there_nobody_says_that_nothing_bills(
    state: State, names: list[str], pending: list[dict[str, Any]]
) -> None:
    state.resources, state.pending = [resource("PodName", name) for name in names], pending
    row = state.row()
    assert (row.says, row.unfinished, row.document()["bills"]) == (DOUBT, True, None)
    state.pending = [making("UniqueName", "")]
    state.resources = []
    assert state.row().says == "nobody knows from here whether another pod is there"


def test_what_was_deleted_to_be_replaced_is_not_there(state: State) -> None:
    """Pulumi keeps it in the state until the new one is made."""
    deleted = {**resource("GpuPod", A), "pendingReplacement": True}
    state.resources = [resource("PodName", A), resource("PodName", B), deleted]
    assert (state.row().says, state.row().unfinished) == (DOUBT, True)
    state.resources = [resource("PodName", A), deleted]
    assert state.row().says == GONE


def test_where_the_replacement_was_asked_for_the_journal_tells_it(state: State) -> None:
    state.resources = [resource("PodName", B)]
    Journal(Ledger(state.home).path).created(lease(B))
    row = state.row()
    assert (row.says.startswith(f"pod ? ({B}) at $3.61/h"), row.unfinished) == (True, True)
    assert "nobody knows" not in row.says


def test_what_was_asked_for_from_here_and_refused_is_no_doubt(state: State) -> None:
    state.resources = [resource("PodName", B)]
    Journal(Ledger(state.home).path).released(lease(B), Gone("none was had"))
    assert state.row().says == GONE
    state.pending = [making("GpuPod", B)]
    assert state.row().says == DOUBT, "somebody else goes on with it"


def test_nothing_bills_where_only_the_name_of_what_is_gone_is_left(state: State) -> None:
    state.resources = [resource("UniqueName", ""), resource("PodName", A)]
    row = state.row()
    assert (row.says, row.unfinished) == (GONE, False)


def test_a_state_that_cannot_be_had_for_a_moment_hides_no_price(state: State) -> None:
    state.is_slow = True
    row = state.row()
    assert row.says.startswith("pod pod-a")
    assert row.document()["bills"]["usd_per_h"] == 3.61


def test_what_is_put_out_is_told_as_gone_where_the_list_says_so(
    state: State, capsys: pytest.CaptureFixture[str]
) -> None:
    state.resources = [resource("PodName", B)]
    assert asyncio.run(stacking.outputs(Wish(ref=REF))) == ExitCode.DONE
    told = " ".join(capsys.readouterr().err.split())
    assert f"what it put out is gone, and {DOUBT}; recipe stack up gpu_pod goes on" in told
    asyncio.run(stacking.outputs(Wish(ref=REF, as_json=True)))
    document = json.loads(capsys.readouterr().out)
    assert (document["bills"], document["unfinished"]) == (None, True)
    state.resources = []
    asyncio.run(stacking.outputs(Wish(ref=REF)))
    assert "what it put out is gone, and nothing was made" in " ".join(capsys.readouterr().err.split())
