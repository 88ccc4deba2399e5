"""The dead-man switch of a host: it ends the lease, and frees the lock that it holds."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import eventually
from tests.provisioners.onhost.switches import LEASE, Machine

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="containers are Linux"),
]


@dataclass(frozen=True)
class Locked:
    """A host's lock, as it is given to the switch."""

    path: Path

    def is_free(self) -> bool:
        with self.path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True


def arm_host(machine: Machine, **options: Any) -> tuple[subprocess.Popen[bytes], Locked]:
    lock = Locked(machine.state.parent / "lock")
    held = os.open(lock.path, os.O_CREAT | os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    # The number that the script knows; this process may have something else there.
    spare = os.dup(9) if Path("/proc/self/fd/9").exists() else None
    os.dup2(held, 9)
    try:
        process = machine.arm(kind="host", pass_fds=(9,), **options)
    finally:
        os.close(held)
        if spare is None:
            os.close(9)
        else:
            os.dup2(spare, 9)
            os.close(spare)
    machine.said()
    return process, lock


def test_on_a_host_it_ends_the_processes_removes_the_folder_and_frees_the_lock(
    make: Callable[..., Machine], each_shell: list[str]
) -> None:
    machine = make(shell=each_shell)
    env = {**os.environ, "RECIPE_LEASE": LEASE}
    with subprocess.Popen(["sleep", "1000"], env=env, start_new_session=True) as job:
        with machine.waiting_for_signs():
            process, lock = arm_host(machine, idle_s=1)
            assert not lock.is_free()
        assert job.wait(timeout=30) == -signal.SIGTERM
    assert process.wait(timeout=30) == 0
    assert lock.is_free()
    assert not machine.state.exists()


def test_on_a_host_the_lock_is_free_when_it_was_killed(make: Callable[..., Machine]) -> None:
    process, lock = arm_host(make())
    process.kill()
    process.wait()
    assert eventually(lock.is_free, what="the free lock")


def test_on_a_host_it_goes_when_it_is_released(make: Callable[..., Machine]) -> None:
    machine = make()
    process, lock = arm_host(machine)
    (machine.state / "released").touch()
    assert process.wait(timeout=30) == 0
    assert machine.state.exists()
    assert lock.is_free()


def test_on_a_host_whose_folder_is_gone_the_processes_are_ended_all_the_same(make: Callable[..., Machine]) -> None:
    machine = make()
    process, _ = arm_host(machine)
    with subprocess.Popen(["sleep", "1000"], env={**os.environ, "RECIPE_LEASE": LEASE}) as job:
        shutil.rmtree(machine.state)
        assert job.wait(timeout=30) == -signal.SIGTERM
    assert process.wait(timeout=30) == 0
