"""What is kept of a lease's pod on this computer: that it was seen, where it was reached, and that it is gone."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from provisioners.contract import Lease
from provisioners.providers.runpod.values import Address
from provisioners.shell.keys import LeaseKeys
from provisioners.shell.openssh import login_argv
from provisioners.shell.target import Target
from recipes.errors import NoMachine

_ADDRESS, _SEEN, _GONE = "address.json", "seen", "gone"
_KEPT_S = 86400.0


def target_of(address: Address, lease: Lease, keys: LeaseKeys) -> Target:
    """How the pod is reached: with the lease's own key, and the host key that was pinned for it."""
    return Target(
        host=address.host,
        port=address.port,
        user=address.user,
        alias=lease.name,
        known_hosts=keys.known_hosts,
        key=keys.private,
    )


def remember(keys: LeaseKeys, address: Address) -> None:
    """Where the pod was reached, beside its key, for a login from another process."""
    said = {"host": address.host, "port": address.port, "user": address.user}
    (keys.folder / _ADDRESS).write_text(json.dumps(said), encoding="utf-8")


def saw(home: Path, lease_name: str) -> None:
    """RunPod has shown the pod: from now on its denial means something, in other processes as well."""
    if (folder := home / "leases" / lease_name).is_dir():
        (folder / _SEEN).touch()


def begin(home: Path, lease_name: str) -> None:
    """A pod of this name is asked for: what is known of an earlier one says nothing of it."""
    for path in (home / "leases" / lease_name / _SEEN, home / _GONE / lease_name):
        path.unlink(missing_ok=True)


def was_seen(home: Path, lease_name: str) -> bool:
    """Whether RunPod has ever shown the pod here, or proved that it ended."""
    return (home / "leases" / lease_name / _SEEN).exists() or (home / _GONE / lease_name).exists()


def _remembered(home: Path, lease_name: str) -> Address | None:
    try:
        keys = LeaseKeys.load(home, lease_name)
        said = json.loads((keys.folder / _ADDRESS).read_text(encoding="utf-8"))
        return Address(str(said["host"]), int(said["port"]), str(said["user"]))
    except (NoMachine, OSError, ValueError, KeyError):
        return None


def login(home: Path, lease: Lease) -> Sequence[str] | None:
    """The ssh command; None before the pod was reached, or without its key."""
    address = _remembered(home, lease.name)
    if address is None:
        return None
    return login_argv(target_of(address, lease, LeaseKeys.load(home, lease.name)))


def forget(home: Path, lease_name: str, proof: str) -> None:
    """Remove what was kept for the lease. The proof stays for a day: who asks again may have died before noting it."""
    with suppress(NoMachine):
        LeaseKeys.load(home, lease_name).remove()
    with suppress(OSError):
        (home / _GONE).mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / _GONE / lease_name).write_text(f"{proof}\n", encoding="utf-8")
        for old in (home / _GONE).iterdir():
            if old.stat().st_mtime < time.time() - _KEPT_S:
                old.unlink(missing_ok=True)
