"""Which host keys are right."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from provisioners.shell.hostkeys import HostKey, expected, is_pinned, pin
from provisioners.shell.target import HostKeyChanged
from tests.emulators.sshd import key_pair


@pytest.fixture
def keys(tmp_path: Path) -> list[HostKey]:
    return [HostKey(*key_pair(tmp_path / f"key{number}").split()[:2]) for number in range(3)]


def test_the_first_is_pinned_and_another_refused(tmp_path: Path, keys: list[HostKey]) -> None:
    path = tmp_path / "deep" / "known_hosts"
    expected(path, "pod").check(keys[0], "there")
    expected(path, "Pod").pin(keys[0])
    expected(path, "pod").pin(keys[0])
    assert path.read_text().count("\n") == 1
    assert is_pinned(path, "POD")
    expected(path, "pod").check(keys[0], "there")
    with pytest.raises(HostKeyChanged) as caught:
        expected(path, "pod").check(keys[1], "there:22")
    for part in ("there:22", str(keys[0]), str(keys[1]), "SHA256:"):
        assert part in caught.value.message
    assert f"ssh-keygen -R 'pod' -f '{path}'" in caught.value.advice


def test_fingerprints_are_those_of_ssh_keygen(tmp_path: Path, keys: list[HostKey]) -> None:
    said = subprocess.run(["ssh-keygen", "-lf", tmp_path / "key0.pub"], capture_output=True, text=True).stdout
    assert str(keys[0]).split()[1] in said


def test_ssh_keygen_finds_and_removes_what_was_pinned(tmp_path: Path, keys: list[HostKey]) -> None:
    path = tmp_path / "known_hosts"
    pin(path, "recipe-a", keys[0])
    pin(path, "[10.0.0.1]:2222", keys[1])
    assert subprocess.run(["ssh-keygen", "-F", "recipe-a", "-f", path], capture_output=True).returncode == 0
    subprocess.run(["ssh-keygen", "-R", "recipe-a", "-f", path], capture_output=True, check=True)
    assert not is_pinned(path, "recipe-a")
    assert is_pinned(path, "[10.0.0.1]:2222")


def test_a_file_without_a_last_newline_is_not_damaged(tmp_path: Path, keys: list[HostKey]) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"other {keys[1].kind} {keys[1].base64}")
    pin(path, "pod", keys[0])
    assert is_pinned(path, "other")
    assert is_pinned(path, "pod")


@pytest.mark.parametrize("written", ["plain", "wild", "hashed"])
def test_what_the_users_own_file_knows_counts(tmp_path: Path, keys: list[HostKey], written: str) -> None:
    theirs = tmp_path / "theirs"
    name = {"wild": "*.example.org,!b.example.org"}.get(written, "a.example.org")
    theirs.write_text(f"# mine\n{name} {keys[0].kind} {keys[0].base64} a comment\n")
    if written == "hashed":
        subprocess.run(["ssh-keygen", "-H", "-f", theirs], capture_output=True, check=True)
        assert "a.example.org" not in theirs.read_text()
    known = expected(tmp_path / "ours", "alias", also=["A.example.org"], users=[theirs])
    known.check(keys[0], "there")
    with pytest.raises(HostKeyChanged):
        known.check(keys[1], "there")
    expected(tmp_path / "ours", "alias", also=["b.example.org"], users=[theirs]).check(keys[1], "there")


def test_a_revoked_key_is_refused(tmp_path: Path, keys: list[HostKey]) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text(f"@revoked * {keys[0].kind} {keys[0].base64}\n")
    known = expected(tmp_path / "ours", "alias", also=["host"], users=[theirs])
    known.check(keys[1], "there")
    with pytest.raises(HostKeyChanged, match="revoked"):
        known.check(keys[0], "there")
