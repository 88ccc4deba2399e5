"""What a stack last put out, kept on this machine: for plans, and for where there is no engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from provisioners.contract import Site
from provisioners.files import write_whole
from stacks.asking import asked_of
from stacks.backend import key_of, where
from stacks.model_cache.state import cache
from stacks.reference import PROGRAMS, StackRef
from stacks.values import HIDDEN, INPUTS, NoEngine, NoSuchStack, Secret

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """A stack's outputs, without secrets."""

    values: Mapping[str, Any]
    at: datetime
    """When they were had from Pulumi."""
    source: Literal["pulumi", "kept"]
    whole: bool = True
    """Whether the last update came to its end; else these are what it has made so far."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A stack as this machine last saw it."""

    at: datetime
    backend: str
    values: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] | None = None


def keep(site: Site, ref: StackRef, values: Mapping[str, Any], inputs: Mapping[str, Any] | None = None) -> None:
    """Write down what a stack puts out, secrets left out. A file that cannot be written is no failure of the stack."""
    plain = {name: value for name, value in values.items() if name != INPUTS and not isinstance(value, Secret)}
    document = {
        "version": _VERSION,
        "stack": str(ref),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "backend": where(site),
        "outputs": plain,
        "inputs": inputs,
    }
    path = _path(site, ref)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(document, ensure_ascii=False, indent=2) + "\n", private=True)


def forget(site: Site, ref: StackRef) -> None:
    """A stack that is gone."""
    with suppress(OSError):
        _path(site, ref).unlink(missing_ok=True)


def kept(site: Site, ref: StackRef) -> Kept | None:
    """What this machine last saw of a stack in the backend of now; None if nothing."""
    found = _read(_path(site, ref), ref)
    return found if found is not None and found.backend == where(site) else None


def _read(path: Path, ref: StackRef) -> Kept | None:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        found = Kept(
            at=datetime.fromisoformat(told["at"]),
            backend=told["backend"],
            values=dict(told["outputs"]),
            inputs=told["inputs"],
        )
        return found if told["stack"] == str(ref) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def all_kept(site: Site) -> list[tuple[StackRef, Kept]]:
    """The stacks that this machine has seen in the backend of now. Nothing is made."""
    found = []
    for path in sorted((site.home / "stacks" / key_of(site)).glob("*.*.json")):
        program, _, name = path.stem.partition(".")
        ref = StackRef(program, name)
        if program in PROGRAMS and (one := kept(site, ref)) is not None:
            found.append((ref, one))
    return found


def kept_of_others(site: Site) -> list[tuple[Path, StackRef, Kept]]:
    """The stacks that this machine has seen in other backends, each with the file that says so."""
    found = []
    for path in sorted((site.home / "stacks").glob("*/*.*.json")):
        program, _, name = path.stem.partition(".")
        if program not in PROGRAMS or path.parent.name == key_of(site):
            continue
        if (one := _read(path, ref := StackRef(program, name))) is not None:
            found.append((path, ref, one))
    return found


async def outputs_of(site: Site, ref: StackRef) -> Outputs:
    """The stack's outputs: Pulumi's if there is an engine, else as they were last seen here (`source` says which).

    Imports nothing of Pulumi. Raises NoSuchStack if there is none, StackFailed where the backend does not answer, and
    what `backend_of` raises.
    """
    try:
        told, whole = await _asked(site, ref)
    except NoEngine:
        before = kept(site, ref)
        if before is None:
            raise
        return Outputs(values=before.values, at=before.at, source="kept")
    plain = {name: value for name, value in told.items() if name != INPUTS and value != HIDDEN}
    return Outputs(values=plain, at=datetime.now(UTC), source="pulumi", whole=whole)


async def known_of(site: Site, ref: StackRef) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """What the stack puts out, and what its program was last run with: as the stack has it, else as last seen here.

    None for the latter if nobody knows; a stack that was emptied puts out nothing any more. Neither if there is no such
    stack. One question: INPUTS is the only secret that our programs put out. Raises NoEngine, StackFailed, UsageError.
    """
    try:
        told, _ = await _asked(site, ref, "--show-secrets")
    except NoSuchStack:
        return {}, None
    said = told.pop(INPUTS, None)
    if isinstance(said, str) and said != HIDDEN:
        return told, json.loads(said)
    before = kept(site, ref)
    return told, before.inputs if before is not None else None


async def inputs_of(site: Site, ref: StackRef) -> Mapping[str, Any] | None:
    """What its program was last run with, as `known_of` says."""
    return (await known_of(site, ref))[1]


async def _asked(site: Site, ref: StackRef, *how: str) -> tuple[dict[str, Any], bool]:
    """What the engine says that the stack puts out, and whether its last update came to its end.

    A cache is more than that, and is paid for: its state is asked, which has all that an update has made.
    """
    try:
        if ref.program == "model_cache":
            known = await cache(site, ref)
            return {**known.outputs, **({} if known.inputs is None else {INPUTS: known.inputs})}, known.whole
        told: dict[str, Any] = await asked_of(site, ref, "stack", "output", "--json", *how)
    except NoSuchStack:
        forget(site, ref)  # somebody else has destroyed it
        raise
    return told, True


def _path(site: Site, ref: StackRef) -> Path:
    return site.home / "stacks" / key_of(site) / f"{ref.program}.{ref.name}.json"
