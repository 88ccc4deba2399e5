"""What the tests of a machine over SSH share: a server, a way to it, and threads that are gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from provisioners.shell.connection import Target
from tests.emulators.sshd import Sshd, running_sshd
from tests.provisioners.shell.booted import LEASE, boot, end


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    with running_sshd(tmp_path / "sshd") as running:
        yield running


@pytest.fixture
def target(server: Sshd, tmp_path: Path) -> Target:
    return Target(
        host="127.0.0.1",
        port=server.port,
        user=server.user,
        alias="recipe-Test-1",
        known_hosts=tmp_path / "known_hosts",
        key=server.key,
    )


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Where a lease's state directory is to be."""
    return tmp_path / LEASE


@pytest.fixture
def machine(state: Path) -> Iterator[Path]:
    """The state directory, ready; nothing of its lease may live on after the test."""
    boot(state)
    yield state
    end(state)
