"""What `workload.where: host` asks for, what the plan says of it, and what is said when it cannot be had."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Command
from tests.provisioners.ssh_hosts import machine
from tests.runners.driver.conftest import TOKENIZER, Work
from tests.runners.driver.test_host import driver_of

Wait = Callable[..., Any]
ELSEWHERE = {"name": "openai", "url": "http://127.0.0.1:9/v1"}


def write(recipe: Command, **sections: Any) -> Path:
    path = recipe.cwd / "recipe.yaml"
    (recipe.cwd / "text.txt").write_text("A text of some words.")
    workload = {"inputs": ["text.txt"], "tokenizer": str(TOKENIZER), "where": "host"}
    path.write_text(yaml.safe_dump({"name": "near", "workload": workload, **sections}))
    return path


def test_an_engine_that_runs_elsewhere_has_no_machine_to_go_to(recipe: Command) -> None:
    path = write(recipe, engine=ELSEWHERE, model={"served_name": "double"})
    (problem,) = json.loads(recipe("validate", str(path), "--json").stdout)["problems"]
    line = path.read_text().splitlines()[problem["line"] - 1]
    assert (problem["path"], line.strip()) == ("workload.where", "where: host")
    assert "it has none: the engine runs elsewhere" in problem["message"]
    assert recipe("up", str(path)).returncode == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ((), "which ends with its client"),
        (("resources={provisioner: ssh, hosts: [ana@127.0.0.1:9]}",), "its results then wait for one for 10 minutes"),
        (
            ("resources={provisioner: ssh, hosts: [ana@127.0.0.1:9]}", "limits.idle_duration=2h"),
            "its results then wait for one for 2h",
        ),
    ],
)
def test_the_plan_has_the_driver_among_its_steps(recipe: Command, changes: tuple[str, ...], words: str) -> None:
    settings = [part for change in changes for part in ("--set", change)]
    planned = recipe("plan", "local-smoke", "--set", "workload.where=host", *settings, "--json")
    steps = json.loads(planned.stdout)["plans"][0]["steps"]
    (packages,) = [step["packages"] for step in steps if "packages" in step]
    assert any(one.startswith("tokenizers==") for one in packages)
    assert ["{driver}/bin/python", "{driver.zip}", "{work}/drive.json"] in [step.get("argv") for step in steps]
    (drive,) = [step["action"] for step in steps if step["phase"] == "drive"]
    assert words in drive


def test_without_a_driver_the_plan_has_none(recipe: Command) -> None:
    assert "driver" not in recipe("plan", "local-smoke").stdout


@pytest.mark.real
def test_a_machine_that_cannot_have_the_drivers_packages_says_so(recipe: Command, tmp_path: Path) -> None:
    bare = {"PATH": "/usr/bin:/bin", "PIP_NO_INDEX": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with machine(tmp_path / "machine", **bare) as made:
        path = write(
            recipe,
            resources={"provisioner": "ssh", "hosts": [made.address], "ssh_key": str(made.sshd.key)},
            engine=ELSEWHERE,
            model={"served_name": "double"},
        )
        ended = recipe("up", str(path))
        assert ended.returncode == 5, ended.stderr
        assert "the driver's environment could not be made: failed with exit status 1" in ended.stdout
        assert "workload.where: client needs no driver" in ended.stdout
        assert made.is_as_found()


@pytest.mark.real
def test_a_driver_that_is_killed_fails_the_run_and_loses_nothing(work: Work, book: Path, wait_until: Wait) -> None:
    process = work.recipe.start(
        "up", "local-smoke", "--set", "workload.where=host", "--set", f"workload.inputs=[{book}]"
    )
    wait_until(lambda: work.recipe.run_folders() and len(work.rows("answers")) > 5, what="some answers")
    (driver,) = driver_of(RECIPE_HOME=str(work.recipe.home))
    driver.kill()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 5, err
    assert "the driver on the machine ended with status -9" in out
    assert len(work.rows("answers")) == len(work.rows("requests")) > 5
    assert work.result()["requests"]["ok"] == len(work.rows("requests"))
