"""Where a lease may have begun: on disk before its host is asked, because a client can die before it hears."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from provisioners.contract import Lease
from provisioners.files import write_for_good
from provisioners.providers.ssh.places import Place, state_dir
from provisioners.shell.keys import LeaseKeys
from recipes.errors import NoMachine

_NAME = "host.json"


@dataclass(frozen=True)
class Intent:
    """A request to take a host."""

    place: Place
    until: float
    """When the request becomes invalid, by the host's own clock; 0 once it was answered: then none is on its way."""

    def write(self, keys: LeaseKeys) -> None:
        """Into the folder of the lease's keys, on the disk for good when this returns."""
        write_for_good(keys.folder / _NAME, json.dumps({**self.place.details(), "until": self.until}))


def read(home: Path, lease_name: str) -> Intent | None:
    """The last request that was made for a lease; None if none was made, or the lease has gone."""
    try:
        folder = LeaseKeys.load(home, lease_name).folder
        said = json.loads((folder / _NAME).read_text(encoding="utf-8"))
    except (NoMachine, FileNotFoundError):
        return None
    return Intent(Place.of(home, said), float(said["until"]))


def forget(home: Path, lease_name: str) -> None:
    """The lease has gone: its engine's key goes with it."""
    try:
        LeaseKeys.load(home, lease_name).remove()
    except NoMachine:
        return


def command_to_end(intent: Intent, lease: Lease) -> str:
    """What a person types; `recipe reap --yes` does the same, with the proof."""
    state = lease.details.get("state") or state_dir(lease.name)
    return intent.place.command(f"sh {state}/agent release")
