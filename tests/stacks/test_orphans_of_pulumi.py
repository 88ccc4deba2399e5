"""An engine or a client that is killed alone: nobody buys for the dead, and a destroy ends what no state knows."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import Command, processes_of
from tests.emulators.pulumi import install_engine, pulumi_on_path
from tests.emulators.runpod import RunPod
from tests.test_rented import UP, image, lease_states, runpod

__all__ = ["image", "runpod"]
pytestmark = pytest.mark.real
Wait = Callable[..., Any]
THROUGH = [*UP, "--set", "resources.provisioner=pulumi"]
STACK = ["stack", "up", "gpu_pod", *UP[1:], "--yes"]
GPUS = ["NVIDIA A100 80GB PCIe", "NVIDIA A100-SXM4-80GB"]


@pytest.fixture
def env(tmp_path: Path, runpod: RunPod) -> dict[str, str]:
    """The environment in which `pulumi` is the double."""
    path = os.pathsep.join([str(install_engine(tmp_path / "engine")), os.environ["PATH"]])
    return {**runpod.env, "PATH": path, "RECIPE_RUNPOD_PACE": "0.3"}


def engine_of(client: subprocess.Popen[str]) -> psutil.Process:
    """The engine that updates a stack for the client."""
    (engine,) = [one for one in psutil.Process(client.pid).children() if "up" in one.cmdline()]
    return engine


def dead_client(
    recipe: Command, runpod: RunPod, env: dict[str, str], wait_until: Wait, what: list[str]
) -> dict[str, Any]:
    """The client alone is killed while the pod's create has no answer; what it began ends by itself. The pod."""
    runpod.inject(create_answer_delay_s=-1, list_lag_new_s=-1)  # nor is the pod found beside the waiting
    client = recipe.start(*what, env=env)
    wait_until(lambda: runpod.billing, what="the pod")
    client.kill()
    client.wait()
    runpod.inject(create_answer_delay_s=0, list_lag_new_s=0)  # now it is answered, and nobody hears of it
    wait_until(lambda: processes_of(recipe.home) == [], what="the end of the engine and its provider")
    client.communicate()
    (pod,) = runpod.ledger()
    return pod


def test_nobody_goes_on_asking_for_an_engine_that_was_killed(
    recipe: Command, runpod: RunPod, env: dict[str, str], wait_until: Wait
) -> None:
    runpod.inject(no_capacity_gpus=GPUS)
    client = recipe.start(*STACK, "--set", "resources.retry=10m", env=env)
    wait_until(runpod.creates, what="a first refusal")
    engine = engine_of(client)
    providers = [one for one in engine.children(recursive=True) if "stacks.dynamic" in one.cmdline()]
    assert len(providers) == 1
    engine.kill()
    out, err = client.communicate(timeout=120)
    may_bill = "was ended by signal 9; pod ? (" in err
    assert client.returncode == (9 if may_bill else 4), out + err  # 9 where it had just asked
    assert psutil.wait_procs(providers, 60)[1] == []

    runpod.inject(no_capacity_gpus=[])
    again = recipe(*STACK, env=env)
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(runpod.billing) == 1
    assert recipe("stack", "destroy", "gpu_pod", "--yes", env=env).returncode == 0
    assert len(runpod.ledger()) == 1
    assert runpod.billing == []


def test_when_the_client_is_killed_the_next_run_goes_on_with_its_pod(
    recipe: Command, runpod: RunPod, env: dict[str, str], wait_until: Wait
) -> None:
    pod = dead_client(recipe, runpod, env, wait_until, THROUGH)
    ended = recipe(*THROUGH, env=env)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "goes on with" in ended.stderr
    assert [one["id"] for one in runpod.ledger()] == [pod["id"]]
    assert runpod.billing == []


def test_when_the_client_is_killed_the_next_update_takes_its_pod_over(
    recipe: Command, runpod: RunPod, env: dict[str, str], wait_until: Wait
) -> None:
    pod = dead_client(recipe, runpod, env, wait_until, STACK)
    (state,) = (recipe.home / "pulumi" / "state").rglob("main.json")
    pending = json.loads(state.read_text())["checkpoint"]["latest"]["pending_operations"]
    assert [one["type"] for one in pending] == ["creating"]  # the engine did not outlive who heard it
    again = recipe(*STACK, env=env)
    assert again.returncode == 0, again.stdout + again.stderr
    assert pod["id"] in again.stdout
    assert recipe("stack", "destroy", "gpu_pod", "--yes", env=env).returncode == 0
    assert [one["id"] for one in runpod.ledger()] == [pod["id"]]
    assert runpod.billing == []


@pytest.mark.parametrize("what", [THROUGH, STACK], ids=["up", "stack up"])
def test_when_the_client_is_killed_its_pod_is_reaped(
    recipe: Command, runpod: RunPod, env: dict[str, str], wait_until: Wait, what: list[str]
) -> None:
    dead_client(recipe, runpod, env, wait_until, what)
    reaped = recipe("reap", "--yes", env=env)
    assert reaped.returncode == 0, reaped.stdout + reaped.stderr
    assert runpod.billing == []
    assert lease_states(recipe) == ["gone"]


@pytest.mark.parametrize("from_elsewhere", [False, True])
def test_a_destroy_ends_a_pod_that_no_state_knows(
    recipe: Command, runpod: RunPod, env: dict[str, str], tmp_path: Path, from_elsewhere: bool
) -> None:
    env = {**env, **pulumi_on_path(tmp_path / "shared", env)}
    died = recipe(*STACK, env={**env, "ENGINE_DOUBLE_DIE": "after-create:pod"})
    assert died.returncode == 9, died.stdout + died.stderr
    (pod,) = runpod.ledger()
    colleague = Command(tmp_path / "elsewhere", tmp_path) if from_elsewhere else recipe
    gone = colleague("stack", "destroy", "gpu_pod", "--yes", env=env)
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert f"pod {pod['id']} deleted" in gone.stdout
    assert "nothing changes" not in gone.stdout
    assert runpod.billing == []


def test_a_colleague_ends_the_pod_of_a_run_whose_client_is_dead(
    recipe: Command, runpod: RunPod, env: dict[str, str], tmp_path: Path, wait_until: Wait
) -> None:
    env = {**env, **pulumi_on_path(tmp_path / "shared", env)}
    pod = dead_client(recipe, runpod, env, wait_until, THROUGH)
    colleague = Command(tmp_path / "elsewhere", tmp_path)
    gone = colleague("stack", "destroy", f"gpu_pod/{pod['name']}", "--yes", env=env)
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert f"pod {pod['id']} deleted" in gone.stdout
    assert runpod.billing == []
    assert pod["name"] not in colleague("stack", "list", env=env).stdout


def test_a_destroy_of_what_was_never_had_asks_once_and_says_so(
    recipe: Command, runpod: RunPod, env: dict[str, str]
) -> None:
    runpod.inject(create_402=-1)
    assert recipe(*STACK, env=env).returncode == 4
    writes = runpod.writes()
    gone = recipe("stack", "destroy", "gpu_pod", "--yes", env=env)
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert runpod.writes() == writes
    assert runpod.ledger() == []


def test_a_destroy_that_is_not_proven_says_so_and_is_tried_again(
    recipe: Command, runpod: RunPod, env: dict[str, str]
) -> None:
    assert recipe(*STACK, env={**env, "ENGINE_DOUBLE_DIE": "after-create:pod"}).returncode == 9
    runpod.inject(delete_403=-1)  # given up at once: asking again is of no use
    kept = recipe("stack", "destroy", "gpu_pod", "--yes", env=env)
    assert kept.returncode == 9, kept.stdout + kept.stderr
    assert "may still bill" in kept.stderr
    runpod.inject(delete_403=0)
    gone = recipe("stack", "destroy", "gpu_pod", "--yes", env=env)
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert runpod.billing == []
