"""Clients, engines and providers that die in the middle: one reap ends the pod, or the next update goes on with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import Command
from tests.emulators.pulumi import install_engine
from tests.emulators.runpod import RunPod
from tests.test_rented import UP, image, lease_states, lines, phase_of, runpod

__all__ = ["image", "runpod"]
pytestmark = pytest.mark.real
Wait = Callable[..., Any]
THROUGH = [*UP, "--set", "resources.provisioner=pulumi"]
STACK = ["stack", "up", "gpu_pod", *UP[1:], "--yes"]


@pytest.fixture
def env(tmp_path: Path, runpod: RunPod) -> dict[str, str]:
    """The environment in which `pulumi` is the double."""
    path = os.pathsep.join([str(install_engine(tmp_path / "engine")), os.environ["PATH"]])
    return {**runpod.env, "PATH": path, "RECIPE_RUNPOD_PACE": "0.3"}


def kill_all(process: subprocess.Popen[str]) -> None:
    """The client, the engine and its providers, as when a computer loses its power."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for act in (psutil.Process.suspend, psutil.Process.kill):
        for one in family:
            with suppress(psutil.NoSuchProcess):  # a short command of the engine's
                act(one)
    process.communicate()
    assert psutil.wait_procs(family, 60)[1] == []


def dead_between_create_and_state(
    recipe: Command, runpod: RunPod, env: dict[str, str], wait_until: Wait, what: list[str]
) -> str:
    """Everything here died when the pod was there, and its create had no answer yet; the pod's id."""
    runpod.inject(create_answer_delay_s=-1, list_lag_new_s=-1)  # nor is the pod found beside the waiting
    process = recipe.start(*what, env=env)
    wait_until(lambda: runpod.billing, what="the pod")
    kill_all(process)
    runpod.inject(create_answer_delay_s=0, list_lag_new_s=0)
    (pod,) = runpod.ledger()
    return str(pod["id"])


@pytest.mark.parametrize("what", [THROUGH, STACK], ids=["up", "stack up"])
@pytest.mark.parametrize("from_elsewhere", [False, True])
def test_a_pod_that_no_state_knows_is_reaped(
    recipe: Command, runpod: RunPod, env: dict[str, str], wait_until: Wait, what: list[str], from_elsewhere: bool
) -> None:
    dead_between_create_and_state(recipe, runpod, env, wait_until, what)
    reaper = Command(recipe.cwd / "elsewhere", recipe.cwd) if from_elsewhere else recipe
    reaped = reaper("reap", "--yes", env=env)
    assert reaped.returncode == 0, reaped.stdout + reaped.stderr
    assert reaped.stdout.count("gone  ") == 1, reaped.stdout
    assert runpod.billing == []
    assert from_elsewhere or lease_states(recipe) == ["gone"]


def test_the_next_up_goes_on_with_the_run_and_its_pod(
    recipe: Command, runpod: RunPod, env: dict[str, str], wait_until: Wait
) -> None:
    pod = dead_between_create_and_state(recipe, runpod, env, wait_until, THROUGH)
    ended = recipe(*THROUGH, env=env)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "goes on with" in ended.stderr
    result = json.loads((recipe.run_folder() / "result.json").read_text())
    assert (result["lease"]["id"], result["release"]["state"]) == (pod, "gone")
    assert len(runpod.ledger()) == 1
    assert runpod.billing == []
    assert lease_states(recipe) == ["gone"]
    assert recipe("stack", "list", "--json", env=env).stdout.count('"gpu_pod/') == 0


def test_a_pod_that_has_gone_meanwhile_is_proven_gone_and_another_is_rented(
    recipe: Command, runpod: RunPod, env: dict[str, str], wait_until: Wait
) -> None:
    dead_between_create_and_state(recipe, runpod, env, wait_until, THROUGH)
    runpod.mishap("preempt")
    ended = recipe(*THROUGH, env=env)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "of a run whose client died; it is let go" in ended.stderr
    assert len(runpod.ledger()) == 2
    assert lease_states(recipe) == ["gone", "gone"]


def test_whoever_wants_a_fresh_run_is_told_of_the_other_machine(
    recipe: Command, runpod: RunPod, env: dict[str, str], wait_until: Wait
) -> None:
    dead_between_create_and_state(recipe, runpod, env, wait_until, THROUGH)
    ended = recipe(*THROUGH, "--fresh", env=env)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "may be billing" in ended.stderr
    assert len(runpod.ledger()) == 2
    assert recipe("reap", "--yes", env=env).returncode == 0


def test_attach_goes_on_with_it_as_well(recipe: Command, runpod: RunPod, env: dict[str, str], wait_until: Wait) -> None:
    pod = dead_between_create_and_state(recipe, runpod, env, wait_until, THROUGH)
    attached = recipe("attach", UP[1], env=env)
    assert attached.returncode == 0, attached.stdout + attached.stderr
    assert f"pod {pod} deleted" in attached.stdout
    assert len(runpod.ledger()) == 1


def test_the_next_stack_up_takes_the_pod_over(
    recipe: Command, runpod: RunPod, env: dict[str, str], wait_until: Wait
) -> None:
    pod = dead_between_create_and_state(recipe, runpod, env, wait_until, STACK)
    again = recipe(*STACK, env=env)
    assert again.returncode == 0, again.stdout + again.stderr
    assert pod in again.stdout
    assert len(runpod.ledger()) == 1
    assert lease_states(recipe) == ["reached"]
    gone = recipe("stack", "destroy", "gpu_pod", "--yes", env=env)
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert f"pod {pod} deleted" in gone.stdout
    assert runpod.billing == []


@pytest.mark.parametrize("moment", ["before-create", "after-create"])
def test_when_the_engine_dies_a_run_lets_its_pod_go(
    recipe: Command, runpod: RunPod, env: dict[str, str], moment: str
) -> None:
    ended = recipe(*THROUGH, env={**env, "ENGINE_DOUBLE_DIE": moment})
    assert ended.returncode == 4, ended.stdout + ended.stderr
    assert "signal 9" in ended.stdout + ended.stderr
    assert len(runpod.ledger()) == (moment == "after-create")
    assert runpod.billing == []
    assert lease_states(recipe) == ["gone"]


def test_when_the_engine_dies_after_the_create_the_next_stack_up_makes_no_second_pod(
    recipe: Command, runpod: RunPod, env: dict[str, str]
) -> None:
    died = recipe(*STACK, env={**env, "ENGINE_DOUBLE_DIE": "after-create:pod"})
    assert died.returncode == 9, died.stdout + died.stderr
    assert len(runpod.billing) == 1
    again = recipe(*STACK, env=env)
    assert again.returncode == 0, again.stdout + again.stderr
    assert len(runpod.ledger()) == 1
    twice = recipe(*STACK, env=env)
    assert "nothing changes" in twice.stdout + twice.stderr
    assert len(runpod.ledger()) == 1
    assert recipe("stack", "destroy", "gpu_pod", "--yes", env=env).returncode == 0


def test_a_pod_that_a_stack_holds_is_left_by_reap_and_ended_by_down(
    recipe: Command, runpod: RunPod, env: dict[str, str]
) -> None:
    made = recipe(*STACK, "--json", env=env)
    assert made.returncode == 0, made.stdout + made.stderr
    run = json.loads(made.stdout)["outputs"]["run"]
    reaped = recipe("reap", "--yes", env=env)
    assert "held" in reaped.stdout
    assert "recipe stack destroy gpu_pod ends it" in reaped.stdout
    assert len(runpod.billing) == 1
    assert recipe("ssh", run, "echo", "hello", env=env).stdout == "hello\n"
    down = recipe("down", run, env=env)
    assert down.returncode == 0, down.stdout + down.stderr
    assert runpod.billing == []


def test_without_its_engine_a_machine_is_let_go_all_the_same(
    recipe: Command, runpod: RunPod, env: dict[str, str], book: Path, wait_until: Wait
) -> None:
    ours, *others = env["PATH"].split(os.pathsep)
    path = os.pathsep.join([ours, *(folder for folder in others if not Path(folder, "pulumi").exists())])
    process = recipe.start(*THROUGH, "--set", f"workload.inputs=[{book}]", env={**env, "PATH": path})
    wait_until(lambda: lines(recipe, "answers.jsonl") >= 2, what="two answers")
    Path(ours, "pulumi").unlink()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "not through Pulumi" in out + err
    assert runpod.billing == []


@pytest.mark.parametrize("harm", ["spoilt", "locked"])
def test_a_broken_state_keeps_no_machine(
    recipe: Command, runpod: RunPod, env: dict[str, str], book: Path, wait_until: Wait, harm: str
) -> None:
    process = recipe.start(*THROUGH, "--set", f"workload.inputs=[{book}]", env=env)
    wait_until(lambda: lines(recipe, "answers.jsonl") >= 2, what="two answers")
    state = recipe.home / "pulumi" / "state" / ".pulumi"
    (checkpoint,) = (state / "stacks").rglob("*.json")
    if harm == "spoilt":
        checkpoint.write_text("{")
    else:
        folder = state / "locks" / "organization" / checkpoint.parent.name / checkpoint.stem
        folder.mkdir(parents=True, exist_ok=True)
        lock = {"pid": 1, "username": "bob", "hostname": "elsewhere", "timestamp": "2026-11-21T12:00:00Z"}
        (folder / "someone.json").write_text(json.dumps(lock))
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "Pulumi's own destroy failed" in out + err
    assert runpod.billing == []
    assert lease_states(recipe) == ["gone"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_pulumi_asks_for_the_pod_lets_go(
    recipe: Command, runpod: RunPod, env: dict[str, str], wait_until: Wait, number: signal.Signals
) -> None:
    runpod.inject(create_answer_delay_s=3)
    process = recipe.start(*THROUGH, env=env)
    wait_until(lambda: phase_of(recipe) == "provision" and runpod.billing, what="the pod")
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert runpod.billing == []
    assert lease_states(recipe) == ["gone"]


def test_a_stack_up_that_is_interrupted_is_gone_on_with_or_reaped(
    recipe: Command, runpod: RunPod, env: dict[str, str], wait_until: Wait
) -> None:
    runpod.inject(create_answer_delay_s=3)
    process = recipe.start(*STACK, env=env)
    wait_until(lambda: runpod.billing, what="the pod")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert recipe("reap", "--yes", env=env).returncode == 0
    assert runpod.billing == []
