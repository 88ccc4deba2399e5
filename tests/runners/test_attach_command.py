"""`recipe attach`: the run comes back from its folder as it was, or it is said why it cannot go on."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Gone, Lease, MayStillBill, Observed, Offer
from provisioners.journal import Entry
from recipes import catalogue
from recipes.errors import NoMachine, UsageError
from recipes.load import LoadedRecipe, load, load_resolved
from runners import registry
from runners.cli.adopting import leased_offer
from runners.cli.commands import attach
from runners.plan_document import document_of
from tests.emulators.forsaken import NOBODY, Bench, Machine
from tests.emulators.provisioner import COMMAND

NAME = "recipe-me-test-20260102-030405-abcd-60m"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def resolved_again(loaded: LoadedRecipe, *, commit: str | None = None) -> LoadedRecipe:
    """As the folder of a run gives it back."""
    written = {
        "resolved.json": loaded.recipe.resolved(),
        "plan.json": {
            "recipe_digest": loaded.digest,
            "command": loaded.command,
            "source": str(loaded.source),
            "variant": loaded.variant,
            "model": {"commit": commit},
        },
    }
    read = json.loads(json.dumps(written))
    return load_resolved(read["resolved.json"], loaded.text, read["plan.json"])


@pytest.mark.parametrize("name", catalogue.names())
def test_a_recipe_comes_back_from_its_resolved_form_as_it_was(name: str, tmp_path: Path) -> None:
    for loaded in load(name, plugins=registry.installed(), cwd=tmp_path):
        assert resolved_again(loaded) == loaded


ODD = """
name: odd
resources: {provisioner: local, cpus: 1+, memory: 1GB+, disk_size: 20GB, retry: 30m, price_per_hour: 0.5}
env: {A: "1", B: ""}
secrets: [HF_TOKEN]
model: {builtin: lead}
engine: {name: llamacpp, expose: true, args: {ctx_size: 4096, flag: true, off: null, some: [1, a]}}
workload: {name: summarize, inputs: [a.txt], chunk_size: 448, chunk_overlap: 32, max_tokens: 96, seed: 3}
limits: {max_cost: 1.5, max_price: 2, max_duration: 90m, idle_duration: 5m, deadlines: {launch: 1h, release: 2m}}
collect: [nohup.out, "logs/**"]
matrix: {workload.concurrency: [1, 2]}
"""


def test_every_kind_of_value_comes_back_from_its_resolved_form(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Some text.")
    (tmp_path / "odd.yaml").write_text(ODD)
    variants = load("odd.yaml", plugins=registry.installed(), cwd=tmp_path)
    assert len(variants) == 2
    for loaded in variants:
        again = resolved_again(loaded)
        assert again.recipe.resolved() == loaded.recipe.resolved()
        assert (again.recipe.name, again.variant, again.digest) == (loaded.recipe.name, loaded.variant, loaded.digest)


def test_a_model_of_the_hub_stays_at_the_commit_that_was_planned(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Some text.")
    (tmp_path / "odd.yaml").write_text(ODD.replace("{builtin: lead}", "{repo: owner/model, revision: main}"))
    loaded = load("odd.yaml", plugins=registry.installed(), cwd=tmp_path)[0]
    assert resolved_again(loaded, commit="c0ffee").recipe.model.revision == "c0ffee"


def offer_of(bench: Bench, entry: Entry) -> Offer:
    return leased_offer(bench.folder, entry)


def entry_of(**details: Any) -> Entry:
    now = datetime.now(UTC)
    lease = Lease(provider="double", name=NAME, run_id="r", id="id-1", price_usd_per_h=3.5, details=details)
    return Entry(lease=lease, state="reached", intended_at=now, created_at=now, changed_at=now, proof=None)


def test_the_offer_of_an_adopted_lease_is_the_plans_at_the_price_of_the_lease(bench: Bench) -> None:
    offers = (
        Offer(provider="double", id="first", accelerator="A40", count=2, memory_gib=48.0, price_usd_per_h=1.0),
        Offer(
            provider="double", id="second", accelerator="A100", count=1, price_usd_per_h=2.0, spot=True, cloud="secure"
        ),
    )
    bench.folder.write_json("plan.json", document_of(replace(bench.plan(), offers=offers)))
    assert offer_of(bench, entry_of()) == replace(offers[0], price_usd_per_h=3.5)
    assert offer_of(bench, entry_of(offer="second")) == replace(offers[1], price_usd_per_h=3.5)
    assert offer_of(bench, entry_of(offer="unheard of")) == replace(offers[0], price_usd_per_h=3.5)


def test_without_a_plan_the_offer_is_what_the_lease_tells(bench: Bench) -> None:
    assert offer_of(bench, entry_of()) == Offer(provider="double", id="id-1", price_usd_per_h=3.5)


def refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> UsageError:
    monkeypatch.setenv("RECIPE_HOME", str(bench.home))
    with pytest.raises(UsageError) as caught:
        attach.run(argparse.Namespace(run=bench.folder.run_id, json=False, metrics_port=None))
    return caught.value


def begin(bench: Bench, pid: int) -> None:
    bench.ledger.begin(bench.folder.run_id, "test", "d", datetime.now(UTC).isoformat(), pid)


def test_a_run_with_a_living_client_is_left_to_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(bench, os.getpid())
    error = refused(bench, monkeypatch)
    assert f"process {os.getpid()}" in error.message
    assert "recipe logs -f" in error.advice


def test_a_run_without_a_lease_says_how_to_begin_anew(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(bench, NOBODY)
    error = refused(bench, monkeypatch)
    assert "no machine to go on with" in error.message
    assert "recipe up test" in error.advice


def test_a_lease_that_is_gone_says_why(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(bench, NOBODY)
    bench.journal.released(replace(entry_of().lease, run_id=bench.folder.run_id), Gone("deleted, absent twice"))
    assert "deleted, absent twice" in refused(bench, monkeypatch).message


def test_a_run_that_was_cut_off_before_its_plan_can_only_be_ended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(bench, NOBODY)
    bench.journal.created(replace(entry_of().lease, run_id=bench.folder.run_id))
    monkeypatch.setattr(registry, "provisioner", lambda _: Machine())
    error = refused(bench, monkeypatch)
    assert "before its plan was written" in error.message
    assert error.advice == f"recipe down {bench.folder.run_id}"


def test_a_run_that_has_ended_is_not_run_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its result stands, also if its machine may still bill."""
    bench.machine.release = MayStillBill("it is still listed", COMMAND)
    result = bench.run()
    error = refused(bench, monkeypatch)
    assert "reap" in error.advice
    assert json.loads((bench.folder.path / "result.json").read_text()) == result


@pytest.mark.parametrize("state", ["gone", "stopped", "failed"])
def test_a_machine_that_the_provider_has_no_more_is_not_waited_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, state: Any
) -> None:
    bench.dies()
    bench.machine.observed = Observed(state=state, message="the pod was taken away")
    monkeypatch.setattr(registry, "provisioner", lambda _: bench.machine)
    monkeypatch.setenv("RECIPE_HOME", str(bench.home))
    with pytest.raises((UsageError, NoMachine), match="taken away"):
        attach.run(argparse.Namespace(run=bench.folder.run_id, json=False, metrics_port=None))
    assert bench.machine.calls == ["observe"]
