"""A double of Pulumi's engine, as a command on PATH: see `double/__init__.py` for what it proves and what not."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import pytest

DOUBLE = Path(__file__).parent
ROOT = Path(__file__).parents[3]
SCRIPT = """#!{python}
import os
import sys
os.environ.setdefault("ENGINE_DOUBLE_VERSION", {version!r})
sys.path[0] = {folder!r}
from double.main import main
sys.exit(main(sys.argv[1:]))
"""


def pulumi_on_path(folder: Path, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment (of `env`, usual this process's) in which `pulumi` is the double, with a state of its own.

    The state lies in `folder`/state, the passphrase is "open sesame". A test may leave out or replace any of it.
    """
    return _environment(folder, env, install_double(folder))


def real_pulumi_on_path(folder: Path) -> dict[str, str]:
    """The same with the real command; only for tests that `needs_real_pulumi` marks."""
    command = real_pulumi()
    assert command is not None
    return _environment(folder, None, Path(command).parent)


def _environment(folder: Path, env: Mapping[str, str] | None, programs: Path) -> dict[str, str]:
    inherited = {k: v for k, v in (os.environ if env is None else env).items() if not k.startswith("PULUMI_")}
    state = folder / "state"
    state.mkdir(parents=True, exist_ok=True)
    return {
        **inherited,
        "PATH": os.pathsep.join([str(programs), inherited.get("PATH", os.defpath)]),
        "PULUMI_HOME": str(folder / "pulumi-home"),
        "PULUMI_BACKEND_URL": f"file://{state}",
        "PULUMI_CONFIG_PASSPHRASE": "open sesame",
        "PULUMI_PYTHON_CMD": sys.executable,
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "GRPC_ENABLE_FORK_SUPPORT": "0",
    }


def install_double(folder: Path) -> Path:
    """Writes the command `pulumi` into `folder`/bin, which goes into PATH. It is laid out like a real installation."""
    programs = folder / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    command = programs / "pulumi"
    command.write_text(SCRIPT.format(python=sys.executable, folder=str(DOUBLE), version=version("pulumi")))
    command.chmod(0o755)
    return programs


def real_pulumi() -> str | None:
    """The real command: what RECIPE_TEST_PULUMI names, else `pulumi` on PATH."""
    return os.environ.get("RECIPE_TEST_PULUMI") or shutil.which("pulumi")


needs_real_pulumi = pytest.mark.skipif(
    real_pulumi() is None,
    reason="NOT PROVEN HERE: the real `pulumi` command is not on PATH (nor in RECIPE_TEST_PULUMI); its state's schema, "
    "locks, encryption, refresh and language host are only imitated by the double",
)


@pytest.fixture
def pulumi_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The double on this process's PATH, for pulumi.automation in the test's own process."""
    return live_in(pulumi_on_path(tmp_path / "pulumi"), monkeypatch)


def live_in(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Makes it this process's environment, until the test ends."""
    for name in [name for name in os.environ if name.startswith("PULUMI_")]:
        monkeypatch.delenv(name)
    for name, value in env.items():
        if os.environ.get(name) != value:
            monkeypatch.setenv(name, value)
    return env
