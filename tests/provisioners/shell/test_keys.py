"""A lease's own key."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest

from provisioners.shell.keys import LeaseKeys
from recipes.errors import NoMachine


def test_ssh_can_use_the_pair(tmp_path: Path) -> None:
    keys = LeaseKeys.create(tmp_path, "recipe-ana-run")
    public = subprocess.run(["ssh-keygen", "-y", "-f", keys.private], capture_output=True, text=True, check=True).stdout
    assert public.split()[:2] == keys.public_key.split()[:2]
    assert keys.public_key.endswith(" recipe-ana-run")


def test_only_their_owner_can_read_them(tmp_path: Path) -> None:
    keys = LeaseKeys.create(tmp_path, "a")
    assert stat.S_IMODE(keys.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(keys.private.stat().st_mode) == 0o600


def test_who_asks_again_gets_the_same_pair(tmp_path: Path) -> None:
    first, second = LeaseKeys.create(tmp_path, "a"), LeaseKeys.create(tmp_path, "a")
    assert first == second == LeaseKeys.load(tmp_path, "a")
    assert LeaseKeys.create(tmp_path, "b").public_key != first.public_key


def test_half_a_pair_is_made_anew(tmp_path: Path) -> None:
    folder = tmp_path / "leases" / "a"
    folder.mkdir(parents=True)
    (folder / "id_ed25519").write_text("cut off")
    keys = LeaseKeys.create(tmp_path, "a")
    assert keys.private.read_text().startswith("-----BEGIN OPENSSH PRIVATE KEY-----")


def test_the_engines_key_is_known_to_whoever_holds_the_pair_and_is_in_no_file(tmp_path: Path) -> None:
    keys = LeaseKeys.create(tmp_path, "a")
    key = keys.engine_key()
    assert key == LeaseKeys.load(tmp_path, "a").engine_key()
    assert key != LeaseKeys.create(tmp_path, "b").engine_key()
    assert not [path for path in keys.folder.iterdir() if key in path.read_text()]


def test_removed_for_good_and_more_than_once(tmp_path: Path) -> None:
    keys = LeaseKeys.create(tmp_path, "a")
    keys.known_hosts.write_text("x")
    keys.remove()
    keys.remove()
    assert not keys.folder.exists()
    with pytest.raises(NoMachine, match="no key for a"):
        LeaseKeys.load(tmp_path, "a")


def test_a_name_leads_nowhere_else(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not the name"):
        LeaseKeys.create(tmp_path, "../a")
