"""Whose lock a stack has, whether he lives, and which locks are lifted without a question."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from stacks.locks import Holder, holders, lifted

NOW = datetime.now(UTC)
ME = pwd.getpwuid(os.getuid()).pw_name
SAID = (
    "error: the stack is currently locked by 2 lock(s). Either wait for the other process(es) to end or delete the "
    "lock file with `pulumi cancel`."
)


def line(url: str, pid: int, since: datetime, user: str, host: str) -> str:
    at = since.isoformat(timespec="seconds").replace("+00:00", "Z")
    return f"\n  {url}/.pulumi/locks/organization/p/s/ec3a.json: created by {user}@{host} (pid {pid}) at {at}"


def lock(
    pid: int, since: datetime = NOW, *, user: str = ME, host: str = socket.gethostname(), url: str = "file:///team"
) -> Holder:
    (found,) = holders(SAID + line(url, pid, since, user, host))
    return found


@pytest.fixture(scope="module")
def ended() -> int:
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    return process.pid


def test_whose_lock_it_is_and_whether_he_lives(ended: int) -> None:
    assert not lock(os.getpid()).is_dead
    assert lock(ended).is_dead
    assert lock(os.getpid(), NOW - timedelta(days=400)).is_dead, "its number went to another process"
    assert str(lock(7, datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC), user="ana", host="box")) == (
        "ana@box (process 7) since 2026-05-04 03:02:01 UTC"
    )
    assert holders("something else") == []
    assert [holder.pid for holder in holders(SAID + line("s3://b?x", 1, NOW, "a@corp", "b") * 2)] == [1, 1]


@pytest.mark.parametrize(
    ("user", "host", "url"),
    [
        (ME, "elsewhere", "file:///team"),
        ("somebody-else", socket.gethostname(), "file:///team"),
        (ME, socket.gethostname(), "s3://team?region=x"),
        (ME, socket.gethostname(), "gs://team"),
    ],
)
def test_what_may_be_another_machines_is_never_dead(ended: int, user: str, host: str, url: str) -> None:
    """Containers and machines of a cloud are often called the same, and their users too."""
    assert not lock(ended, user=user, host=host, url=url).is_dead


def test_only_the_locks_of_the_dead_are_lifted(ended: int, tmp_path: Path) -> None:
    backend = tmp_path / "the team's"
    locks = backend / ".pulumi" / "locks" / "organization" / "p" / "s"
    locks.mkdir(parents=True)
    for name in ("ec3a.json", "of-somebody-since.json"):
        (locks / name).write_text("{}")
    url = backend.as_uri()
    dead, living = lock(ended, url=url), lock(os.getpid(), url=url)
    assert not lifted([])
    assert not lifted([dead, living])
    assert len(list(locks.iterdir())) == 2
    assert lifted([dead])
    assert [path.name for path in locks.iterdir()] == ["of-somebody-since.json"]
    assert lifted([dead]), "also where another client has lifted it a moment ago"
    if os.getuid():
        (locks / "ec3a.json").write_text("{}")
        locks.chmod(0o500)
        assert not lifted([dead]), "of somebody else's folder"


def test_what_is_no_lock_is_never_lifted(ended: int, tmp_path: Path) -> None:
    """The engine's text is made of what others have written into the state."""
    precious = tmp_path / "thesis.json"
    precious.touch()
    for url in (
        f"file://{precious}",
        "file://team/.pulumi/locks/a.json",
        f"file://{tmp_path}/.pulumi/locks/../../thesis.json",
    ):
        holder = Holder(ME, socket.gethostname(), ended, NOW, url)
        assert not lifted([holder])
    assert precious.exists()


def test_what_lies_beside_a_lock_goes_with_it(ended: int, tmp_path: Path) -> None:
    folder = tmp_path / ".pulumi" / "locks" / "organization" / "p" / "s"
    folder.mkdir(parents=True)
    for name in ("ec3a.json", "ec3a.json.attrs"):
        (folder / name).touch()
    assert lifted([lock(ended, url=f"file://{tmp_path}")])
    assert list(folder.iterdir()) == []
