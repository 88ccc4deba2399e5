"""Pinned host keys: who answered first with our key accepted is the machine, and nobody else is from then on."""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import hmac
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from provisioners.shell.target import HostKeyChanged

_HASHED = "|1|"


@dataclass(frozen=True)
class HostKey:
    """The public half of a machine's key, as a known_hosts file has it."""

    kind: str
    """As in ssh-ed25519."""
    base64: str

    def __str__(self) -> str:
        try:
            digest = hashlib.sha256(base64.b64decode(self.base64)).digest()
        except binascii.Error:
            return f"{self.kind} (unreadable)"
        return f"{self.kind} SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


@dataclass(frozen=True)
class _Line:
    marker: str
    names: tuple[str, ...]
    key: HostKey


@dataclass(frozen=True)
class Expected:
    """What is known of one machine before it is asked."""

    known_hosts: Path
    name: str
    """Its name in that file."""
    keys: tuple[HostKey, ...]
    """Any of these is right; if there is none, the first that lets us in will be pinned."""
    revoked: tuple[HostKey, ...] = ()

    def check(self, key: HostKey, where: str) -> None:
        """Raises HostKeyChanged."""
        if key in self.revoked:
            raise HostKeyChanged(f"{where} shows the host key {key}, which your known_hosts marks as revoked")
        if self.keys and key not in self.keys:
            raise HostKeyChanged(
                f"{where} shows another host key than {self.name} had before: {key} instead of"
                f" {' or '.join(map(str, self.keys))}. Another machine answers there, or it was made anew",
                advice=f"if it was made anew, forget its old key: ssh-keygen -R '{self.name}' -f '{self.known_hosts}'",
            )

    def pin(self, key: HostKey) -> None:
        """Write it down, unless it stands there already."""
        if key not in (line.key for line in _lines(self.known_hosts) if not line.marker and self.name in line.names):
            pin(self.known_hosts, self.name, key)


def expected(known_hosts: Path, name: str, *, also: Sequence[str] = (), users: Iterable[Path] = ()) -> Expected:
    """What is pinned under a name, together with what the user's own files know under those further names."""
    name = name.lower()  # as ssh itself looks an alias up
    ours = [line.key for line in _lines(known_hosts) if not line.marker and name in line.names]
    theirs = [line for path in users for line in _lines(path) if any(_is_named(line, other) for other in also)]
    return Expected(
        known_hosts,
        name,
        tuple(dict.fromkeys([*ours, *(line.key for line in theirs if not line.marker)])),
        tuple(line.key for line in theirs if line.marker == "@revoked"),
    )


def is_pinned(known_hosts: Path, name: str) -> bool:
    return any(name.lower() in line.names for line in _lines(known_hosts) if not line.marker)


def pin(known_hosts: Path, name: str, key: HostKey) -> None:
    """Append one line, on disk when this returns."""
    known_hosts.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(known_hosts, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        size = os.fstat(handle).st_size
        # A line that somebody left without an end must not swallow ours.
        start = "\n" if size and os.pread(handle, 1, size - 1) != b"\n" else ""
        os.write(handle, f"{start}{name} {key.kind} {key.base64}\n".encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def _lines(path: Path) -> list[_Line]:
    """What a known_hosts file says; nothing, if there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = []
    for words in map(str.split, text.splitlines()):
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) >= 3 and not words[0].startswith("#"):
            names = (name if name.startswith(_HASHED) else name.lower() for name in words[0].split(","))
            found.append(_Line(marker, tuple(names), HostKey(words[1], words[2])))
    return found


def _is_named(line: _Line, name: str) -> bool:
    return any(_matches(pattern, name.lower()) for pattern in line.names) and not any(
        _matches(pattern[1:], name.lower()) for pattern in line.names if pattern.startswith("!")
    )


def _matches(pattern: str, name: str) -> bool:
    if pattern.startswith(_HASHED):
        return _is_hash_of(pattern, name)
    wild = "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in pattern)
    return re.fullmatch(wild, name) is not None


def _is_hash_of(pattern: str, name: str) -> bool:
    """Whether this is the name as HashKnownHosts writes it: |1|SALT|HMAC."""
    try:
        salt, digest = (base64.b64decode(part) for part in pattern[len(_HASHED) :].split("|"))
    except ValueError:
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), "sha1").digest(), digest)
