"""Who asks: loopback is open to everybody who is logged in on a machine, and a run is its owner's business."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_ROOT = 0


def may_ask(peer: tuple[str, int], here: tuple[str, int], *, me: int | None = None) -> bool:
    """Whether the process at the other end of this connection is of the same user, or root's.

    Only Linux says whose it is. Elsewhere, and where root serves (a container, most often), everybody may.
    """
    me = os.getuid() if me is None else me
    if me == _ROOT or not _TABLES[0].exists():
        return True
    return owner_of(peer, here) in (me, _ROOT)


def owner_of(peer: tuple[str, int], here: tuple[str, int]) -> int | None:
    """The user of the other end's socket; None if it is not there (any more)."""
    for local, remote, uid in _sockets():
        if local in _forms(peer) and remote in _forms(here):
            return uid
    return None


def _sockets() -> Iterator[tuple[str, str, int]]:
    """Local and remote end as the kernel writes them, and the owner (proc_net_tcp: fields 1, 2 and 7)."""
    for table in _TABLES:
        try:
            lines = table.read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            yield fields[1], fields[2], int(fields[7])


def _forms(end: tuple[str, int]) -> tuple[str, str]:
    """An IPv4 end in both tables: the address as the machine's own 32-bit number, and mapped into IPv6."""
    address, port = end
    (number,) = struct.unpack("=I", socket.inet_aton(address))
    (mapped,) = struct.unpack("=I", b"\0\0\xff\xff")
    return f"{number:08X}:{port:04X}", f"{0:016X}{mapped:08X}{number:08X}:{port:04X}"
