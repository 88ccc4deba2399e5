"""Which machine a connection is for, and how reaching it can fail."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from recipes.errors import NoMachine, UsageError

# Neither may begin with a dash: programs would take it for an option.
_ADDRESS = re.compile(
    r"(?:(?P<user>[^@\s-][^@\s]*)@)?(?:\[(?P<v6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^@:\s\[\]-][^@:\s\[\]]*))(?::(?P<port>\d+))?"
)


class Lost(NoMachine):
    """There is no contact to the machine now; what runs there may go on. Trying again may help."""


class NotAdmitted(NoMachine):
    """The machine answers, and lets us not in. Trying again does not help."""


class HostKeyChanged(NoMachine):
    """Another machine answers than the one that was pinned, or the same after it was made anew."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One account of one machine."""

    host: str
    port: int | None = None
    """None: as the user's ssh config says, else 22."""
    user: str | None = None
    """None: as the user's ssh config says, else the local user's name."""
    alias: str
    """The name under which its host key is pinned: stays when the address changes."""
    known_hosts: Path
    """Where its host key is pinned."""
    key: Path | None = None
    """The one private key to use, without the user's ssh config; None: that config, the agent and the default keys."""
    jump: str | None = None
    """user@host:port to go through."""

    def __str__(self) -> str:
        return address(self.host, self.port, self.user)


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it said."""

    status: int
    out: bytes
    err: bytes


def address(host: str, port: int | None = None, user: str | None = None) -> str:
    """As people write it: user@host:port."""
    at = f"[{host}]" if ":" in host else host
    return f"{user + '@' if user else ''}{at}{f':{port}' if port else ''}"


def parse_address(text: str) -> tuple[str | None, str, int | None]:
    """User, host and port of [user@]host[:port]; an IPv6 address stands in brackets. Raises UsageError."""
    match = _ADDRESS.fullmatch(text.strip())
    port = int(match["port"]) if match and match["port"] else None
    if match is None or (port is not None and not 0 < port < 65536):
        raise UsageError(f"{text!r} is not an address; write user@host:port")
    return match["user"], match["v6"] or match["host"], port


def known_name(host: str, port: int | None) -> str:
    """The name of a machine in a known_hosts file."""
    return host if port in (None, 22) else f"[{host}]:{port}"
