"""Looks at this machine for what recipe needs, and knows the command that mends each lack."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from provisioners.contract import Site
from recipes.errors import UsageError
from recipes.units import GIB
from stacks import engine
from stacks.backend import BACKEND_URL, backend_of
from stacks.values import NoEngine

_FREE_GIB = 0.5
_INSTALL = "recipe stack install"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. Only "broken" keeps the local recipes from running."""

    state: Literal["ok", "missing", "broken"]
    name: str
    found: str
    mend: str = ""


def examine(site: Site) -> Iterator[Check]:
    """Every check, the essential ones first."""
    python = ".".join(map(str, sys.version_info[:3]))
    yield Check("ok" if sys.version_info >= (3, 11) else "broken", "python", python, "install Python 3.11 or newer")
    has_venv = find_spec("venv") is not None and find_spec("ensurepip") is not None
    yield Check(
        "ok" if has_venv else "broken", "venv", "there" if has_venv else "missing", "apt-get install python3-venv"
    )
    yield _writable("RECIPE_HOME", site.home, "RECIPE_HOME")
    yield _writable("engines", site.cache, "XDG_CACHE_HOME")
    free = shutil.disk_usage(_existing(site.cache)).free / GIB
    yield Check("ok" if free >= _FREE_GIB else "broken", "disk", f"{free:,.0f} GiB free", "free some disk")
    sqlite_ok = sqlite3.sqlite_version_info >= (3, 24)
    yield Check("ok" if sqlite_ok else "broken", "sqlite", sqlite3.sqlite_version, "use a Python with a newer SQLite")
    for complete in sorted(site.cache.glob("engines/*/.complete")):
        yield Check("ok", "engine", complete.parent.name)
    yield _command("ssh", "for the tunnel to rented machines; slower without", "apt-get install openssh-client")
    yield _command("sshd", "for recipe rehearse", "apt-get install openssh-server")
    yield _command("nvidia-smi", "for GPUs of this machine", "install NVIDIA's driver, if there is a GPU")
    yield _pulumi(site)
    yield _variable("RUNPOD_API_KEY", "for machines at RunPod")
    yield _variable("HF_TOKEN", "for gated and private models")


def _pulumi(site: Site) -> Check:
    """Its engine; one that is there and cannot be used is told of."""
    if not engine.commands(site):
        what_for = "for stacks, volumes of stacks and provisioner: pulumi; nothing else needs it"
        return Check("missing", "pulumi", what_for, _INSTALL)
    try:
        found = engine.need(site)
        if BACKEND_URL in site.env:
            backend_of(site)  # our own is made where it is missing
        return Check("ok", "pulumi", f"{found.path} {found.version}")
    except (NoEngine, UsageError) as error:
        return Check("missing", "pulumi", error.message, error.advice)


def _writable(name: str, folder: Path, variable: str) -> Check:
    existing = _existing(folder)
    if existing.is_dir() and os.access(existing, os.W_OK | os.X_OK):
        return Check("ok", name, str(folder))
    return Check("broken", name, f"{folder} cannot be written", f"chown -R $USER {existing}, or export {variable}=…")


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _command(name: str, purpose: str, mend: str) -> Check:
    paths = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(name, path=paths)
    return Check("ok", name, found) if found else Check("missing", name, purpose, mend)


def _variable(name: str, purpose: str) -> Check:
    return Check("ok", name, "set") if os.environ.get(name) else Check("missing", name, purpose, f"export {name}=…")
