"""The hosts that a recipe names, and the way to each."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provisioners.contract import Lease
from provisioners.shell import openssh
from provisioners.shell.target import Target, known_name, parse_address
from recipes.errors import UsageError
from recipes.spec import Resources

IDLE_S = 600.0
"""After so long without a client or progress a host lets itself go, if the recipe says nothing else."""


@dataclass(frozen=True)
class Place:
    """One host."""

    written: str
    """As the recipe names it."""
    target: Target

    def details(self) -> dict[str, Any]:
        """What a lease keeps of it, so that another process finds the way: JSON, and nothing secret."""
        key = str(self.target.key) if self.target.key else None
        return {"host": self.written, "key": key, "jump": self.target.jump}

    @classmethod
    def of(cls, home: Path, details: Mapping[str, Any]) -> Place:
        """Raises UsageError if it is no address."""
        return _place(home, details["host"], details.get("key"), details.get("jump"))

    def login(self) -> list[str]:
        """What opens a shell there."""
        return openssh.login_argv(self.target)

    def command(self, text: str) -> str:
        """What a person types to run something there."""
        target = self.target
        argv = ["ssh", *(["-i", str(target.key)] if target.key else []), *(["-J", target.jump] if target.jump else [])]
        argv += ["-p", str(target.port)] if target.port else []
        return shlex.join([*argv, f"{target.user}@{target.host}" if target.user else target.host, text])


def places_of(home: Path, resources: Resources) -> list[Place]:
    """The recipe's hosts, each once. Raises UsageError if one is no address."""
    return [_place(home, host, resources.ssh_key, resources.jump_host) for host in dict.fromkeys(resources.hosts)]


def place_of_lease(home: Path, lease: Lease) -> Place | None:
    """The host that a lease is on; None if it was not made with one."""
    return Place.of(home, lease.details) if lease.details.get("host") else None


def state_dir(lease_name: str) -> str:
    """Where a host keeps everything of a lease, for a shell there."""
    return f"~/.recipe/{lease_name}"


def _place(home: Path, written: str, key: str | None, jump: str | None) -> Place:
    user, host, port = _parsed("resources.hosts", written)
    if jump is not None:
        _parsed("resources.jump_host", jump)
    target = Target(
        host=host,
        port=port,
        user=user,
        alias=known_name(host, port),
        known_hosts=home / "known_hosts",
        key=Path(key).expanduser().absolute() if key else None,
        jump=jump,
    )
    return Place(written, target)


def _parsed(field: str, written: str) -> tuple[str | None, str, int | None]:
    try:
        return parse_address(written)
    except UsageError as error:
        raise UsageError(f"{field}: {error.message}") from error
