"""Talking to a host before and after a lease's agent is there: one command, with everything it needs on its input."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import zlib
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fabric import Config  # type: ignore[import-untyped]

from provisioners import onhost
from provisioners.bootstrap import scripts
from provisioners.providers.ssh.places import Place
from provisioners.shell.connection import Lost, Ran, Shell
from provisioners.shell.hostkeys import HostKey, expected, pin
from provisioners.shell.target import Target, address, known_name, parse_address
from recipes.errors import HostCommandFailed, NoMachine

OLDEST_PYTHON = "3.8"
_LOADER = (
    "import base64, json, sys, zlib; line = sys.stdin.buffer.readline(); "
    "request = json.loads(zlib.decompress(base64.b64decode(line)).decode()); "
    "names = {'__name__': 'visit'}; exec(request['program'], names); "
    "names['main'](sys.argv[2], sys.argv[1], request)"
)
_NO_PYTHON = 127
# Many accelerators that nobody uses take that long to say what they are.
_LOOK_S = 30.0
_FIND_S = 15.0
_AT_ONCE_S, _AGAIN_S = 2.0, 0.5


class Unfit(NoMachine):
    """The host answers, and cannot hold a lease as it is."""


@dataclass
class Contact:
    """One host, for as long as somebody wants to talk to it."""

    place: Place
    shell: Shell

    @classmethod
    def to(cls, place: Place, *, connect_timeout_s: float = 10.0) -> Contact:
        return cls(place, Shell(place.target, connect_timeout_s=connect_timeout_s))

    async def ask(self, command: str, lease_name: str = "", *, timeout_s: float, **request: Any) -> dict[str, Any]:
        """The answer of `onhost/visit.py` there.

        Raises Lost, NotAdmitted and HostKeyChanged; Unfit for a host without a Python that will do; HostCommandFailed
        if what was asked went wrong there.
        """
        given = _packed({"program": _program(), "scripts": scripts(), **request})
        argv = ["sh", "-c", 'exec python3 -IS -c "$@"', "sh", _LOADER, command, lease_name]
        before = _unknown(self.place.target)
        try:
            ran = await self.shell.run(argv, input=given, timeout_s=timeout_s)
        finally:
            for name in before:
                _note_first_contact(self.place.target.known_hosts, name)
        return self._answer(ran)

    async def look(self) -> dict[str, Any]:
        """What the host has, asked once more if the connection broke at once: busy servers turn some away."""
        began = time.monotonic()
        try:
            return await self.ask("look", timeout_s=_LOOK_S)
        except Lost:
            if time.monotonic() - began > _AT_ONCE_S:
                raise
        await asyncio.sleep(_AGAIN_S)
        return await self.ask("look", timeout_s=_LOOK_S)

    async def find(self, lease_name: str) -> dict[str, Any]:
        """What the host has of a lease."""
        return await self.ask("find", lease_name, timeout_s=_FIND_S)

    async def close(self) -> None:
        await self.shell.close()

    def _answer(self, ran: Ran) -> dict[str, Any]:
        lines = ran.out.splitlines()
        try:
            answer: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        except ValueError:
            answer = {}
        if answer.get("too_old"):
            version = ".".join(map(str, answer["python"]))
            raise Unfit(f"its python3 is {version}; {OLDEST_PYTHON} or newer is needed")
        if ran.status == _NO_PYTHON:
            raise Unfit("it has no python3", advice="install it there: apt-get install python3 python3-venv")
        if ran.status != 0 or not answer:
            said = ran.err.decode(errors="replace").strip().splitlines()
            raise HostCommandFailed(f"{self.place.written}: status {ran.status}: {' '.join(said[-1:])[:300]}")
        if "error" in answer:
            raise HostCommandFailed(f"{self.place.written}: {answer['error']}")
        return answer


def full_address(target: Target) -> str:
    """user@host:port, with what the recipe leaves out as the user's ssh config says."""
    config = Config(lazy=True)
    known: dict[str, Any] = {}
    if target.key is None:
        config.load_ssh_config()
        known = config.base_ssh_config.lookup(target.host)
    user = target.user or known.get("user") or config.user
    return address(target.host, target.port or int(known.get("port", 22)), user)


def first_contacts(home: Path, place: Place) -> list[str]:
    """What people have not been told yet of host keys that were pinned on this way; they are told once."""
    told = []
    for name in _names(place.target):
        note = _note(home, name)
        if note.is_file():
            told.append(note.read_text(encoding="utf-8"))
            note.unlink()
    return told


def _unknown(target: Target) -> list[str]:
    """The machines on this way that nobody has pinned: what they show first will be.

    What the user's own known_hosts says counts. A connection with a key of its own does not look there, so that it is
    copied.
    """
    users = Path("~/.ssh/known_hosts").expanduser()
    unknown = []
    for name in _names(target):
        known = expected(target.known_hosts, name, also=[name], users=[users]).keys
        if not known:
            unknown.append(name)
        if target.key is not None and not expected(target.known_hosts, name).keys:
            for key in known:
                pin(target.known_hosts, name, key)
    return unknown


def _names(target: Target) -> list[str]:
    """Under which the machines on this way are pinned."""
    if target.jump is None:
        return [target.alias]
    _, host, port = parse_address(target.jump)
    return [known_name(host, port), target.alias]


def _note_first_contact(known_hosts: Path, name: str) -> None:
    keys: tuple[HostKey, ...] = expected(known_hosts, name).keys
    if keys:
        note = _note(known_hosts.parent, name)
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        note.write_text(f"first contact with {name}: {keys[0]}, from now on the only one that is accepted")


def _note(home: Path, name: str) -> Path:
    return home / "first-contacts" / quote(name, safe="")


def _program() -> str:
    return (Path(onhost.__file__).parent / "visit.py").read_text(encoding="utf-8")


def _packed(request: dict[str, Any]) -> bytes:
    """One line, because the other side does not wait for the end of its input."""
    return base64.b64encode(zlib.compress(json.dumps(request).encode())) + b"\n"


def seconds(value: float) -> int:
    """Whole seconds, one at least."""
    return max(1, ceil(value))
