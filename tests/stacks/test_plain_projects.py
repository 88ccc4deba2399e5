"""Each stack is a plain Pulumi project too: `pulumi up` in its folder, over the emulated RunPod."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import stacks
from tests.emulators.hub import Hub, hub_emulator
from tests.emulators.runpod import RunPod
from tests.stacks.bench import everything_below
from tests.test_rented import UP, image, runpod

__all__ = ["image", "runpod"]
pytestmark = pytest.mark.real
FOLDER = Path(stacks.__file__).parent
ROOT = Path(__file__).parents[2]
MODEL = ("--set", "model={repo: me/lead, path: /workspace}", "--set", "secrets=[HF_TOKEN]")
KEY = "hf_of-a-plain-project"


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub with one small model, which takes the key."""
    lead = ROOT / "recipes" / "models" / "lead"
    with hub_emulator() as made:
        made.push("me/lead", {p.name: p.read_bytes() for p in lead.iterdir() if p.is_file()}, gated=True)
        made.let_in(KEY, "me/lead")
        yield made


@dataclass(frozen=True)
class Plain:
    """A project's folder, and `pulumi` in it."""

    folder: Path
    env: dict[str, str]

    def __call__(self, *arguments: str) -> str:
        """What the command printed. Fails if it does."""
        ended = subprocess.run(
            ["pulumi", "--non-interactive", *arguments],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout


@pytest.mark.parametrize(("program", "held"), [("gpu_pod", "pods"), ("model_cache", "volumes")])
def test_a_plain_project_makes_one_and_lets_it_go(
    program: str, held: str, tmp_path: Path, runpod: RunPod, hub: Hub, pulumi_engine: dict[str, str]
) -> None:
    home = tmp_path / "home"
    emulated = {**runpod.env, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
    env = {**pulumi_engine, **emulated, "RECIPE_HOME": str(home), "HF_TOKEN": KEY}
    pulumi = Plain(tmp_path / program, env)
    pulumi.folder.mkdir()
    for name in ("Pulumi.yaml", "__main__.py"):
        shutil.copy(FOLDER / program / name, pulumi.folder)
    pulumi("stack", "init", "team")
    pulumi("config", "set", "recipe", "--plaintext", "--", shlex.join([*UP[1:], *MODEL]))

    def there() -> int:
        return len(runpod.ledger() if held == "pods" else runpod.volumes())

    pulumi("preview")
    assert there() == 0
    try:
        pulumi("up", "--yes")
        assert there() == 1
        assert "unchanged" in pulumi("up", "--yes")
        assert there() == 1
    finally:
        pulumi("destroy", "--yes")
    assert (runpod.billing, runpod.billing_volumes) == ([], [])
    for folder in (home, tmp_path / "pulumi", pulumi.folder):
        written = everything_below(folder)
        assert KEY.encode() not in written
        assert runpod.key.encode() not in written
