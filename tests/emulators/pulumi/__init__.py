"""A double of Pulumi's engine, as a command on PATH: see `double/__init__.py` for what it proves and what not.

With RECIPE_TEST_PULUMI, the path of the real command, that stands in its place in all tests.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
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
REAL = """#!/bin/sh
PATH={programs}:$PATH PYTHONPATH={moments}${{PYTHONPATH:+:$PYTHONPATH}}
export PATH PYTHONPATH
exec {command} "$@"
"""


def pulumi_on_path(folder: Path, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment (of `env`, usual this process's) in which `pulumi` is the engine of tests, with its own state.

    The state lies in `folder`/state, the passphrase is "open sesame". A test may leave out or replace any of it.
    """
    return _environment(folder, env, install_engine(folder))


def double_on_path(folder: Path) -> dict[str, str]:
    """The same, whatever RECIPE_TEST_PULUMI says."""
    return _environment(folder, None, _install(folder, _double()))


def real_pulumi_on_path(folder: Path) -> dict[str, str]:
    """The same with the real command; only for tests that `needs_real_pulumi` marks."""
    command = real_pulumi()
    assert command is not None
    return _environment(folder, None, _install(folder, _real(command)))


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


def install_engine(folder: Path) -> Path:
    """Writes the command `pulumi` into `folder`/bin, which goes into PATH: the double, laid out like a real one.

    It is the real one that RECIPE_TEST_PULUMI names, where that is set.
    """
    named = os.environ.get("RECIPE_TEST_PULUMI")
    return _install(folder, _real(named) if named else _double())


def _install(folder: Path, script: str) -> Path:
    programs = folder / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    command = programs / "pulumi"
    command.write_text(script)
    command.chmod(0o755)
    return programs


def _double() -> str:
    return SCRIPT.format(python=sys.executable, folder=str(DOUBLE), version=version("pulumi"))


def _real(command: str) -> str:
    words = {"command": command, "programs": str(Path(command).parent), "moments": str(DOUBLE / "moments")}
    return REAL.format(**{name: shlex.quote(word) for name, word in words.items()})


def real_pulumi() -> str | None:
    """The real command: what RECIPE_TEST_PULUMI names, else `pulumi` on PATH."""
    return os.environ.get("RECIPE_TEST_PULUMI") or shutil.which("pulumi")


needs_real_pulumi = pytest.mark.skipif(
    real_pulumi() is None,
    reason="NOT PROVEN HERE: the real `pulumi` command is not on PATH (nor in RECIPE_TEST_PULUMI); its state's schema, "
    "locks, encryption, refresh and language host are only imitated by the double",
)


of_the_double = pytest.mark.skipif("RECIPE_TEST_PULUMI" in os.environ, reason="says something of the double alone")


@pytest.fixture
def pulumi_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The engine on this process's PATH, for pulumi.automation in the test's own process."""
    yield live_in(pulumi_on_path(tmp_path / "pulumi"), monkeypatch)
    end_programs()


def end_programs() -> None:
    """Ends the programs whose engine was killed: the SDK leaves them in event loops that it has stopped.

    Whatever is left of them would complain when it is collected, in whichever test that is.
    """
    for loop in [one for one in gc.get_objects() if issubclass(type(one), asyncio.AbstractEventLoop)]:
        tasks = set() if loop.is_closed() or loop.is_running() else asyncio.all_tasks(loop)
        if any(getattr(task.get_coro(), "__name__", "") == "run_in_stack" for task in tasks):
            loop.set_exception_handler(lambda *_: None)  # the SDK's stops the loop
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.wait(tasks, timeout=10))
            loop.close()


def live_in(env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Makes it this process's environment, until the test ends."""
    for name in [name for name in os.environ if name.startswith("PULUMI_")]:
        monkeypatch.delenv(name)
    for name, value in env.items():
        if os.environ.get(name) != value:
            monkeypatch.setenv(name, value)
    return env
