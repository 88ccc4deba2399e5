"""Pods that a stack has lost, cannot use, or was not asked for: none goes on billing, and none is made unasked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Command
from tests.emulators.pulumi import install_engine, pulumi_on_path
from tests.emulators.runpod import RunPod
from tests.fault_matrix import MATRIX, Fault
from tests.stacks.bench import let_go, pipe
from tests.test_rented import UP, image, lease_states, runpod

__all__ = ["image", "runpod"]
pytestmark = pytest.mark.real
Wait = Callable[..., Any]
STACK = ["stack", "up", "gpu_pod", *UP[1:], "--yes"]
DESTROY = ["stack", "destroy", "gpu_pod", "--yes"]
QUICK_RELEASE = ["--set", "limits.deadlines.release=6s"]
UNUSABLE = [
    fault
    for fault in MATRIX
    if fault.codes == (4,) and fault.at_start and ("provision" in fault.says or fault.says == "ERROR")
]


@pytest.fixture
def env(tmp_path: Path, runpod: RunPod) -> dict[str, str]:
    """The environment in which `pulumi` is the double."""
    path = os.pathsep.join([str(install_engine(tmp_path / "engine")), os.environ["PATH"]])
    return {**runpod.env, "PATH": path, "RECIPE_RUNPOD_PACE": "0.3"}


@pytest.fixture
def team(env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The same, with a backend that two share."""
    return {**env, **pulumi_on_path(tmp_path / "shared", env)}


@pytest.fixture
def colleague(tmp_path: Path) -> Command:
    """Another computer."""
    return Command(tmp_path / "elsewhere", tmp_path)


def test_what_a_destroy_could_not_prove_gone_is_ended_by_the_command_that_it_names(
    recipe: Command, runpod: RunPod, env: dict[str, str]
) -> None:
    assert recipe(*STACK, *QUICK_RELEASE, env=env).returncode == 0
    runpod.inject(delete_500=-1)
    kept = recipe(*DESTROY, env=env)
    assert kept.returncode == 9, kept.stdout + kept.stderr
    assert "recipe reap --yes" in kept.stderr
    runpod.inject(delete_500=0)
    reaped = recipe("reap", "--yes", env=env)
    assert reaped.returncode == 0, reaped.stdout + reaped.stderr
    assert "gone  " in reaped.stdout
    assert runpod.billing == []


@pytest.mark.parametrize("fault", UNUSABLE, ids=lambda fault: fault.what)
def test_a_pod_that_can_never_be_used_is_let_go(
    fault: Fault, recipe: Command, runpod: RunPod, env: dict[str, str]
) -> None:
    settings = [part for setting in fault.settings for part in ("--set", setting)]
    runpod.inject(**fault.at_start)
    made = recipe(*STACK, *settings, env=env)
    assert made.returncode == 4, made.stdout + made.stderr
    assert fault.says in made.stderr
    assert "it was let go: pod" in made.stderr
    assert len(runpod.ledger()) == 1
    assert runpod.billing == []
    assert lease_states(recipe) == ["gone"]
    assert "holds nothing" in recipe("stack", "list", env=env).stdout


def test_one_that_cannot_be_used_and_is_not_proven_gone_is_told_with_its_price(
    recipe: Command, runpod: RunPod, env: dict[str, str]
) -> None:
    runpod.inject(stuck_provisioning=1, delete_500=-1)
    made = recipe(*STACK, *QUICK_RELEASE, "--set", "limits.deadlines.provision=5s", env=env)
    assert made.returncode == 9, made.stdout + made.stderr
    assert "may still bill for $" in made.stderr
    runpod.inject(delete_500=0)
    assert recipe("reap", "--yes", env=env).returncode == 0
    assert runpod.billing == []


def test_a_pod_whose_stack_no_state_knows_is_listed_and_destroyed_with_proof(
    recipe: Command, runpod: RunPod, env: dict[str, str]
) -> None:
    assert recipe(*STACK, env=env).returncode == 0
    shutil.rmtree(recipe.home / "pulumi")
    listed = recipe("stack", "list", env=env).stdout
    assert runpod.ledger()[0]["id"] in listed
    gone = recipe(*DESTROY, env=env)
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert "no state knows stack gpu_pod" in gone.stdout
    assert "absent from the lists" in gone.stdout
    assert runpod.billing == []
    assert lease_states(recipe) == ["gone"]
    assert recipe(*DESTROY, env=env).returncode == 2


def test_what_a_colleague_has_destroyed_is_closed_here_with_its_proof(
    recipe: Command, runpod: RunPod, team: dict[str, str], colleague: Command
) -> None:
    assert recipe(*STACK, env=team).returncode == 0
    assert colleague(*DESTROY, env=team).returncode == 0
    assert runpod.billing == []
    reaped = recipe("reap", env=team)
    assert reaped.returncode == 0, reaped.stdout + reaped.stderr
    assert "held" not in reaped.stdout
    assert lease_states(recipe) == ["gone"]
    assert "nothing is leased" in recipe("ps", env=team).stdout


def test_a_colleague_goes_on_with_the_pod_of_an_update_that_died(
    recipe: Command, runpod: RunPod, team: dict[str, str], colleague: Command
) -> None:
    died = recipe(*STACK, env={**team, "RECIPE_OWNER": "ana", "ENGINE_DOUBLE_DIE": "after-create:pod"})
    assert died.returncode == 9, died.stdout + died.stderr
    (pod,) = runpod.ledger()
    bob = {**team, "RECIPE_OWNER": "bob"}
    again = colleague(*STACK, env=bob)
    assert again.returncode == 0, again.stdout + again.stderr
    assert pod["id"] in again.stdout
    assert "rented from another computer" in again.stdout
    assert len(runpod.ledger()) == 1
    assert "held" in colleague("reap", "--yes", env=bob).stdout
    assert colleague(*DESTROY, env=bob).returncode == 0
    assert runpod.billing == []


def test_a_finished_update_whose_client_died_is_gone_on_with_from_another_computer(
    recipe: Command, runpod: RunPod, team: dict[str, str], colleague: Command
) -> None:
    runpod.inject(stuck_provisioning=1)
    client = recipe.start(*STACK, env=team)
    assert client.stderr is not None
    assert any("waiting until it can be reached" in line for line in client.stderr)
    client.kill()
    client.communicate()
    assert "ends them" in recipe("reap", env=team).stdout  # nobody holds it
    again = colleague(*STACK, env=team)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "nothing changes" in again.stdout
    for computer in (recipe, colleague):
        assert "by stack gpu_pod" in computer("reap", "--yes", env=team).stdout
    assert len(runpod.billing) == 1
    assert colleague(*DESTROY, env=team).returncode == 0
    assert runpod.billing == []


def test_what_bills_of_an_update_that_died_is_listed(recipe: Command, runpod: RunPod, env: dict[str, str]) -> None:
    assert recipe(*STACK, env={**env, "ENGINE_DOUBLE_DIE": "after-create:pod"}).returncode == 9
    listed = recipe("stack", "list", env=env).stdout
    assert "bills nothing" not in listed
    assert runpod.ledger()[0]["name"] in listed
    assert runpod.ledger()[0]["name"] in recipe("stack", "list", "--json", env=env).stdout
    assert recipe(*DESTROY, env=env).returncode == 0
    assert runpod.billing == []


def waiting_to_update(env: dict[str, str], folder: Path, gate: Path) -> dict[str, str]:
    """The environment in which the engine begins no update before somebody writes into the pipe."""
    engine = shutil.which("pulumi", path=env["PATH"])
    command = folder / "waiting" / "pulumi"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\n[ "$1" = up ] && cat "{gate}"\nexec "{engine}" "$@"\n')
    command.chmod(0o755)
    return {**env, "PATH": os.pathsep.join([str(command.parent), env["PATH"]])}


def test_no_pod_is_made_that_no_preview_has_shown(
    recipe: Command, runpod: RunPod, env: dict[str, str], tmp_path: Path
) -> None:
    assert recipe(*STACK, env=env).returncode == 0
    (pod,) = runpod.ledger()
    gate = pipe(tmp_path, "gate")
    client = recipe.start(*STACK, env=waiting_to_update(env, tmp_path, gate))
    assert client.stdout is not None
    assert client.stdout.readline() == "nothing changes\n"
    runpod.delete_pod(pod["id"])
    let_go(gate)
    out, err = client.communicate(timeout=120)
    assert client.returncode == 4, out + err
    assert "which the preview did not show" in err
    assert len(runpod.ledger()) == 1
    again = recipe(*STACK, env=env)  # and now it was shown
    assert again.returncode == 0, again.stdout + again.stderr
    assert "create   GpuPod" in again.stdout
    assert len(runpod.billing) == 1
    assert recipe(*DESTROY, env=env).returncode == 0


def test_down_names_what_ends_a_pod_of_another_computer(
    recipe: Command, runpod: RunPod, team: dict[str, str], colleague: Command
) -> None:
    assert recipe(*STACK, env=team).returncode == 0
    for command in ("down", "ssh"):
        refused = colleague(command, "gpu_pod", env=team)
        assert refused.returncode == 2
        assert "recipe stack destroy gpu_pod" in refused.stderr
    assert colleague(*DESTROY, env=team).returncode == 0
