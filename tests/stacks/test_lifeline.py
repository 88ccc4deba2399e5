"""A provider's process ends with its stdin, and nobody else does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from provisioners.site import site_of
from stacks.backend import Backend, engine_env

BACKEND = Backend(url="file:///nowhere", own=False, env={})

PROGRAM = """
import threading
from stacks.lifeline import end_with_engine
end_with_engine()
print(threading.active_count(), "at work")
"""

PROVIDER = """
import importlib.machinery, subprocess, sys, threading
sys.modules["__main__"].__spec__ = importlib.machinery.ModuleSpec("pulumi.dynamic.__main__", None)
from stacks.lifeline import end_with_engine
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdin=subprocess.DEVNULL)
end_with_engine()
print("begun", flush=True)
threading.Event().wait()
"""


def test_the_end_of_stdin_ends_nobody_else() -> None:
    ended = subprocess.run([sys.executable, "-c", PROGRAM], input="", capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "1 at work\n")


def test_a_provider_ends_with_its_stdin_and_takes_its_group_with_it() -> None:
    shell = subprocess.Popen(
        ["sh", "-c", f'"{sys.executable}" -u -c "$0"; echo ended', PROVIDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,
        text=True,
    )
    assert shell.stdout is not None
    assert shell.stdin is not None
    assert shell.stdout.readline() == "begun\n"
    shell.stdin.close()
    assert shell.stdout.read() == "", "neither the shell nor what the provider has started holds it open"
    assert shell.wait(120) == -signal.SIGKILL


@pytest.mark.real
def test_a_provider_that_was_never_asked_anything_ends_with_its_stdin(tmp_path: Path) -> None:
    env = engine_env(site_of({**os.environ, "RECIPE_HOME": str(tmp_path)}), BACKEND, tmp_path)
    provider = subprocess.Popen(
        [env["PULUMI_PYTHON_CMD"], "-u", "-m", "pulumi.dynamic", "127.0.0.1:9"],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        process_group=0,
    )
    assert provider.stdout is not None
    assert provider.stdin is not None
    assert int(provider.stdout.readline()) > 0, "the port that it listens on"
    provider.stdin.close()
    assert provider.wait(120) == -signal.SIGKILL
