"""The provisioner `pulumi` where Pulumi is of no help: RunPod is asked all the same, and in time."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from provisioners.contract import Clearance, Gone, Lease, MayStillBill, Order
from provisioners.journal import Entry
from provisioners.naming import lease_name
from provisioners.providers.runpod.provider import RunPodProvisioner
from provisioners.site import site_of
from recipes.errors import NoMachine
from recipes.spec import Resources
from stacks.holding import Place, held, holder_of, in_stack
from stacks.provisioner import PulumiProvisioner
from stacks.reference import StackRef
from tests.emulators.runpod import RunPod, emulated

RESOURCES = Resources.model_validate({"provisioner": "pulumi", "accelerators": "A100-80GB:1", "cloud": "secure"})


@pytest.fixture
def runpod(tmp_path: Path) -> Iterator[RunPod]:
    """When a test ends, nothing bills."""
    with emulated(tmp_path / "runpod") as made:
        yield made
        assert made.billing == []


def environment(runpod: RunPod, tmp_path: Path, pulumi: str | None) -> dict[str, str]:
    """With a command `pulumi` that is this shell script; None: without one."""
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    if pulumi is not None:
        (programs / "pulumi").write_text(f"#!/bin/sh\n{pulumi}\n")
        (programs / "pulumi").chmod(0o755)
    home = str(tmp_path / "home")
    pace = {"RECIPE_RUNPOD_PACE": "0.1", "RECIPE_HOME": home, "HOME": home}
    return {**runpod.env, **pace, "PATH": os.pathsep.join([str(programs), "/usr/bin", "/bin"])}


async def rented(env: dict[str, str]) -> Lease:
    """A pod of RunPod's that a lease of Pulumi's has."""
    site = site_of(env)
    site.home.mkdir(parents=True, exist_ok=True)
    deadline = datetime.now(UTC) + timedelta(minutes=30)
    run_id = f"pod-{datetime.now(UTC):%Y%m%d-%H%M%S}-9f3a"
    lease = Lease(provider="pulumi", name=lease_name("ana", run_id, deadline), run_id=run_id, deadline=deadline)
    runpod = RunPodProvisioner(site)
    offer = (await runpod.offers(RESOURCES))[0]
    return await runpod.create(Order(offer=offer, lease=lease, resources=RESOURCES), Clearance(()))


@pytest.mark.real
@pytest.mark.parametrize(
    ("pulumi", "says"),
    [
        (None, "Pulumi's engine is not on this machine"),
        ('[ "$1" = version ] && echo v3.272.0 || { echo broken >&2; exit 255; }', "Pulumi's own destroy failed"),
        ('[ "$1" = version ] && echo v3.272.0 || exec sleep 600', "it did not answer in 8 s"),
    ],
    ids=["no engine", "a broken one", "one that hangs"],
)
def test_a_pod_is_let_go_in_time_whatever_pulumi_does(
    runpod: RunPod, tmp_path: Path, pulumi: str | None, says: str
) -> None:
    env = environment(runpod, tmp_path, pulumi)

    async def go() -> tuple[object, float]:
        lease, began = await rented(env), time.monotonic()
        return await PulumiProvisioner(site_of(env)).destroy(lease, patience_s=16), time.monotonic() - began

    release, seconds = asyncio.run(go())
    assert isinstance(release, Gone)
    assert says in release.proof
    assert "absent from the lists" in release.proof
    assert seconds < 60, "half of its time for Pulumi, which would take ten minutes"


@pytest.mark.real
def test_what_is_not_proven_says_also_what_pulumi_said(runpod: RunPod, tmp_path: Path) -> None:
    env = environment(runpod, tmp_path, None)
    lease = asyncio.run(rented(env))
    runpod.inject(delete_500=-1)
    release = asyncio.run(PulumiProvisioner(site_of(env)).destroy(lease, patience_s=2))
    assert isinstance(release, MayStillBill)
    assert "Pulumi's engine is not on this machine" in release.reason
    assert "recipe reap --yes" in release.command
    runpod.inject(delete_500=0)
    assert isinstance(asyncio.run(PulumiProvisioner(site_of(env)).destroy(lease)), Gone)


@pytest.mark.real
def test_without_an_engine_nothing_is_offered_and_one_sentence_says_so(runpod: RunPod, tmp_path: Path) -> None:
    provisioner = PulumiProvisioner(site_of(environment(runpod, tmp_path, None)))
    with pytest.raises(NoMachine, match="Pulumi's engine is not on this machine") as refused:
        asyncio.run(provisioner.offers(RESOURCES))
    assert "provisioner: runpod needs none of it" in refused.value.advice
    assert runpod.writes() == []


def test_loading_it_imports_nothing_of_pulumi() -> None:
    code = (
        "import sys; from provisioners.site import site_of; import stacks.provisioner as p;"
        "p.PLUGIN(site_of({'RUNPOD_API_KEY': 'x'}));"
        "print([m for m in sys.modules if m.split('.')[0] in ('pulumi', 'grpc', 'dill')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_whose_stack_a_lease_is_in() -> None:
    own = Lease(provider="pulumi", name="recipe-ana-x", run_id="x")
    assert Place.of(own) == Place("recipe-gpu-pod", "recipe-ana-x", own=True)
    shared = replace(own, details=in_stack("recipe-gpu-pod", "main"))
    assert Place.of(shared) == Place("recipe-gpu-pod", "main", own=False)


def test_a_stack_holds_a_pod_until_its_deadline() -> None:
    now = datetime.now(UTC)
    lease = Lease(provider="pulumi", name="n", run_id="x", deadline=now + timedelta(hours=1))
    entry = Entry(lease=lease, state="created", intended_at=now, created_at=now, changed_at=now, proof=None)
    assert holder_of(entry, now) is None
    kept = replace(entry, lease=held(lease, StackRef("gpu_pod", "team")))
    assert holder_of(kept, now) == "gpu_pod/team"
    assert holder_of(replace(kept, state="reached"), now) == "gpu_pod/team"
    assert holder_of(replace(kept, state="releasing"), now) is None
    assert holder_of(kept, now + timedelta(hours=2)) is None
