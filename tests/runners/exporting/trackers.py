"""An environment with the experiment trackers' own clients, beside this one's packages; made once and kept."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Mapping
from pathlib import Path

from provisioners.site import recipe_cache

ROOT = Path(__file__).parents[3]
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "WANDB_MODE": "offline",
    "WANDB_ERROR_REPORTING": "false",
}
"""Nothing here may talk to anybody."""
PROXIES = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")


def environment() -> Path:
    """The Python that has what the extras mlflow and wandb name."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = [*extras["mlflow"], *extras["wandb"]]
    digest = hashlib.sha256("\n".join([*wanted, sys.version, sys.prefix]).encode()).hexdigest()[:8]
    folder = recipe_cache() / "tests" / f"trackers-{digest}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _make(folder, wanted)
            (folder / "complete").touch()
    return folder / "bin" / "python"


def _make(folder: Path, wanted: list[str]) -> None:
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True, timeout=900)
    (site,) = folder.glob("lib/python*/site-packages")
    ours = sysconfig.get_path("purelib")
    (site / "recipe-tests.pth").write_text(f"import site; site.addsitedir({ours!r})\n")


def in_it(
    home: Path, cwd: Path, *arguments: str | Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run that Python, where nothing but loopback is reached."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "WANDB_"))}
    return subprocess.run(
        [environment(), *arguments],
        cwd=cwd,
        env={**own, **QUIET, **PROXIES, "RECIPE_HOME": str(home), "PYTHONPATH": str(ROOT), **(env or {})},
        capture_output=True,
        text=True,
        timeout=240,
    )
