"""A machine of somebody's own with a driver's packages, an engine that tells what it was asked, a client that dies."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from provisioners.site import recipe_cache
from tests.conftest import Command, whole_rows
from tests.emulators.slots import SlotsDouble, slots_double
from tests.provisioners.ssh_hosts import Machine, machine

ROOT = Path(__file__).parents[3]
TOKENIZER = ROOT / "recipes" / "models" / "lead" / "tokenizer.json"


@pytest.fixture
def ssh_machine(tmp_path: Path) -> Iterator[Machine]:
    """Its Python has what a driver needs, and its cache the engine: nothing is fetched."""
    tools = Path(sys.executable).parent
    cache = tmp_path / "machine" / "cache"
    (cache / "recipe").mkdir(parents=True)
    (cache / "recipe" / "engines").symlink_to(recipe_cache() / "engines")
    with machine(tmp_path / "machine", PATH=f"{tools}:/usr/bin:/bin", XDG_CACHE_HOME=str(cache)) as made:
        yield made


def cache_of(made: Machine) -> Path:
    return made.sshd.folder / "cache" / "recipe"


@pytest.fixture
def engine() -> Iterator[SlotsDouble]:
    """Four at once, a request takes 0.3 s: all of them ten seconds, in which much can be done to the run."""
    with slots_double("--slots", "4", "--ttft", "0.1", "--per-token", "0.01", "--tokens", "20") as double:
        yield double


@dataclass
class Work:
    """A recipe over texts of its own, and what its runs leave."""

    recipe: Command
    path: Path

    def write(self, **sections: Any) -> None:
        self.path.write_text(yaml.safe_dump(sections))

    @property
    def folder(self) -> Path:
        return self.recipe.run_folders()[-1]

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Those that are whole: the last one may just be being written."""
        return whole_rows(self.folder / f"{name}.jsonl")

    def result(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return result

    def summaries(self) -> dict[str, str]:
        found = [json.loads(path.read_text()) for path in (self.folder / "outputs").glob("*.json")]
        return {one["buck_slip"]["document"]: one["summary"] for one in found}


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    """Twelve documents of about ten chunks each; two of them have the same name."""
    paths = []
    for n in range(12):
        path = tmp_path / "texts" / f"part {n % 2}" / f"report {max(n, 1)}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(" ".join(f"Sentence {i} of report {n} says what it says." for i in range(90)))
        paths.append(str(path))
    return paths


@pytest.fixture
def work(recipe: Command, tmp_path: Path, texts: list[str]) -> Work:
    return Work(recipe, tmp_path / "work.yaml")


@pytest.fixture
def over_ssh(work: Work, ssh_machine: Machine, engine: SlotsDouble, texts: list[str]) -> Callable[..., None]:
    """Writes the recipe of a machine near the engine, which drives it."""

    def write(**changes: Any) -> None:
        workload = {
            "inputs": texts,
            "tokenizer": str(TOKENIZER),
            "chunk_size": 300,
            "chunk_overlap": 0,
            "max_tokens": 32,
            "temperature": 0,
            "concurrency": 4,
            "where": "host",
            **changes.pop("workload", {}),
        }
        machine_of = {
            "provisioner": "ssh",
            "hosts": [ssh_machine.address],
            "ssh_key": str(ssh_machine.sshd.key),
        }
        work.write(
            name="near",
            resources=machine_of,
            engine={"name": "openai", "url": f"{engine.url}/v1"},
            model={"served_name": "double"},
            workload=workload,
            **changes,
        )

    return write


@pytest.fixture
def killed(work: Work, wait_until: Callable[..., Any]) -> Callable[..., None]:
    """Starts the run, and kills its client when so many answers are at home."""

    def kill(*, after: int) -> None:
        process = subprocess.Popen(
            ["recipe", "up", str(work.path)],
            cwd=work.recipe.cwd,
            env={**work.recipe.environment(), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        wait_until(
            lambda: process.poll() is not None or (work.recipe.run_folders() and len(work.rows("answers")) >= after),
            what="some answers",
        )
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        process.kill()
        process.communicate()

    return kill
