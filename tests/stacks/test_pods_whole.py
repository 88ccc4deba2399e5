"""A recipe's pod and a run through Pulumi, whole: what a preview asks, what stays where, and several at once."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import Command
from tests.emulators.pulumi import install_engine
from tests.emulators.runpod import RunPod
from tests.test_faults import SECRET, leaked
from tests.test_rented import UP, image, lease_states, lines, runpod

__all__ = ["image", "runpod"]
pytestmark = pytest.mark.real
Wait = Callable[..., Any]
ROOT = Path(__file__).parents[2]
THROUGH = [*UP, "--set", "resources.provisioner=pulumi"]
STACK = ["gpu_pod", *UP[1:]]


@pytest.fixture
def env(tmp_path: Path, runpod: RunPod) -> dict[str, str]:
    """The environment in which `pulumi` is the double."""
    path = os.pathsep.join([str(install_engine(tmp_path / "engine")), os.environ["PATH"]])
    return {**runpod.env, "PATH": path}


def test_a_preview_asks_for_nothing_that_changes_something(
    recipe: Command, runpod: RunPod, env: dict[str, str]
) -> None:
    first = recipe("stack", "preview", *STACK, env=env)
    assert first.returncode == 0, first.stderr
    assert "GpuPod" in first.stdout
    assert "at most" in first.stdout
    assert runpod.writes() == []
    assert recipe("stack", "up", *STACK, "--yes", env=env).returncode == 0
    made = runpod.writes()
    again = recipe("stack", "preview", *STACK, "--set", "resources.disk_size=30GB", env=env)
    assert "replace" in again.stdout
    assert runpod.writes() == made
    assert recipe("stack", "destroy", "gpu_pod", "--yes", env=env).returncode == 0


def test_another_wish_replaces_the_pod_and_another_price_does_not(
    recipe: Command, runpod: RunPod, env: dict[str, str]
) -> None:
    up = ["stack", "up", *STACK, "--yes"]
    assert recipe(*up, env=env).returncode == 0
    cheaper = recipe(*up, "--set", "limits.max_price=4.5", env=env)
    assert cheaper.returncode == 0, cheaper.stderr
    assert len(runpod.ledger()) == 1
    other = recipe(*up, "--set", "resources.disk_size=30GB", env=env)
    assert other.returncode == 0, other.stderr
    assert [pod["gone"] for pod in runpod.ledger()] == [True, False]
    first, second = (pod["name"] for pod in runpod.ledger())
    assert first != second
    assert recipe("stack", "destroy", "gpu_pod", "--yes", env=env).returncode == 0
    assert set(lease_states(recipe)) == {"gone"}


@pytest.mark.parametrize("what", ["up", "stack up"])
def test_no_secret_and_no_key_is_anywhere(
    recipe: Command, runpod: RunPod, env: dict[str, str], wait_until: Wait, what: str
) -> None:
    command = THROUGH if what == "up" else ["stack", "up", *STACK, "--yes"]
    runpod.inject(create_answer_delay_s=-1, list_lag_new_s=-1)  # until it is looked at
    process = recipe.start(*command, "--set", "secrets=[HF_TOKEN]", env={**env, "HF_TOKEN": SECRET})
    wait_until(lambda: runpod.billing, what="the pod")
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    assert len(family) >= 3  # the client, the engine, the provider
    words = " ".join(" ".join(one.cmdline()) for one in family)
    assert [secret for secret in (SECRET, runpod.key) if secret in words] == []
    runpod.inject(create_answer_delay_s=0, list_lag_new_s=0)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    assert leaked(recipe.home, out + err, SECRET, runpod.key) == []
    if what == "stack up":
        assert recipe("stack", "destroy", "gpu_pod", "--yes", env=env).returncode == 0


def test_a_run_leaves_nothing_of_its_stack(recipe: Command, runpod: RunPod, env: dict[str, str]) -> None:
    ended = recipe(*THROUGH, env=env)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result = json.loads((recipe.run_folder() / "result.json").read_text())
    assert result["release"]["state"] == "gone"
    assert "absent from the lists" in result["release"]["proof"]
    name = result["lease"]["name"]
    left = [path for path in (recipe.home / "pulumi").rglob("*") if path.is_file() and name in str(path)]
    assert left == []
    assert not list((recipe.home / "leases").iterdir())


def test_several_at_once_have_a_stack_each(recipe: Command, runpod: RunPod, env: dict[str, str]) -> None:
    (recipe.cwd / "three.yaml").write_text(f"extends: {UP[1]}\nmatrix: {{workload.seed: [1, 2, 3]}}\n")
    ended = recipe("up", "three.yaml", *THROUGH[2:], "--json", env=env)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    runs = json.loads(ended.stdout)["runs"]
    assert len({run["lease"]["name"] for run in runs}) == 3
    assert [run["release"]["state"] for run in runs] == ["gone"] * 3
    assert len(runpod.ledger()) == 3


def test_a_colleague_ends_what_another_began(
    recipe: Command, runpod: RunPod, env: dict[str, str], tmp_path: Path, book: Path, wait_until: Wait
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    env |= {"PULUMI_BACKEND_URL": f"file://{shared}", "PULUMI_CONFIG_PASSPHRASE": "of the team"}
    process = recipe.start(*THROUGH, "--set", f"workload.inputs=[{book}]", env=env)
    wait_until(lambda: lines(recipe, "answers.jsonl") >= 2, what="two answers")
    process.kill()
    process.communicate()
    colleague = Command(tmp_path / "colleague", recipe.cwd)
    listed = json.loads(colleague("stack", "list", "--json", env=env).stdout)
    (name,) = [row["stack"] for row in listed["stacks"] if row["stack"].startswith("gpu_pod/")]
    ended = colleague("stack", "destroy", name, "--yes", env=env)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "absent from the lists" in ended.stdout
    assert runpod.billing == []
    assert recipe("reap", "--yes", env=env).returncode == 0


def test_the_folder_is_a_plain_pulumi_project(recipe: Command, runpod: RunPod, env: dict[str, str]) -> None:
    folder = recipe.cwd / "gpu_pod"
    shutil.copytree(ROOT / "stacks" / "gpu_pod", folder, ignore=shutil.ignore_patterns("__pycache__"))
    state = recipe.cwd / "state"
    state.mkdir()
    env |= {"PULUMI_BACKEND_URL": f"file://{state}", "PULUMI_CONFIG_PASSPHRASE": "plain"}
    env |= {"PULUMI_PYTHON_CMD": sys.executable, "RECIPE_HOME": str(recipe.home)}

    def pulumi(*words: str) -> str:
        ended = subprocess.run(
            ["pulumi", *words], cwd=folder, env=recipe.environment(**env), capture_output=True, text=True, timeout=120
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    pulumi("stack", "init", "plain")
    pulumi("config", "set", "recipe", shlex.join(UP[1:]))
    pulumi("up", "--yes")
    outputs = json.loads(pulumi("stack", "output", "--json"))
    (pod,) = runpod.ledger()
    assert outputs["id"] == pod["id"]
    assert "held" in recipe("reap", "--yes", env=env).stdout
    pulumi("up", "--yes")
    assert len(runpod.ledger()) == 1
    pulumi("destroy", "--yes")
    assert runpod.billing == []
    assert lease_states(recipe) == ["gone"]
