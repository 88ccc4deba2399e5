"""What a stack last put out, kept on this machine: for plans, and for where there is no engine."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from provisioners.contract import Site
from provisioners.threads import in_thread
from stacks.backend import ASKING, backend_of, engine_env, refusal, shown, work_dir
from stacks.engine import ask, need
from stacks.masks import mask_of
from stacks.reference import StackRef
from stacks.values import HIDDEN, INPUTS, NoEngine, NoSuchStack, Secret, StackFailed

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """A stack's outputs, without secrets."""

    values: Mapping[str, Any]
    at: datetime
    """When they were had from Pulumi."""
    source: Literal["pulumi", "kept"]


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
        "backend": shown(backend_of(site).url),
        "outputs": plain,
        "inputs": inputs,
    }
    path = _path(site, ref)
    part = path.with_name(f".{secrets.token_hex(8)}")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def forget(site: Site, ref: StackRef) -> None:
    """A stack that is gone."""
    with suppress(OSError):
        _path(site, ref).unlink(missing_ok=True)


def kept(site: Site, ref: StackRef) -> Kept | None:
    """What this machine last saw of a stack in the backend of now; None if nothing."""
    try:
        told = json.loads(_path(site, ref).read_text(encoding="utf-8"))
        found = Kept(
            at=datetime.fromisoformat(told["at"]),
            backend=told["backend"],
            values=dict(told["outputs"]),
            inputs=told["inputs"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found.backend == shown(backend_of(site).url) else None


async def outputs_of(site: Site, ref: StackRef) -> Outputs:
    """The stack's outputs: Pulumi's if there is an engine, else as they were last seen here (`source` says which).

    Imports nothing of Pulumi. Raises NoSuchStack if there is none, and what `backend_of` raises.
    """
    try:
        told = await _asked(site, ref)
    except NoEngine:
        before = kept(site, ref)
        if before is None:
            raise
        return Outputs(values=before.values, at=before.at, source="kept")
    plain = {name: value for name, value in told.items() if name != INPUTS and value != HIDDEN}
    return Outputs(values=plain, at=datetime.now(UTC), source="pulumi")


async def inputs_of(site: Site, ref: StackRef) -> Mapping[str, Any] | None:
    """What the stack's program was last run with: as the stack has it, else as it was last seen here.

    None if nobody knows, or if there is no such stack. A stack that was emptied puts out nothing any more. Raises
    NoEngine.
    """
    try:
        told = (await _asked(site, ref, "--show-secrets")).get(INPUTS)
    except NoSuchStack:
        return None
    if isinstance(told, str):
        found: dict[str, Any] = json.loads(told)
        return found
    before = kept(site, ref)
    return before.inputs if before is not None else None


async def _asked(site: Site, ref: StackRef, *how: str) -> dict[str, Any]:
    """What the engine says that the stack puts out. Raises NoEngine, NoSuchStack, StackFailed."""
    backend = backend_of(site)
    engine = await in_thread(need, site)
    folder = work_dir(site, ref.project, ASKING)
    env, name = engine_env(site, backend, folder), backend.stack(ref.project, ref.name)
    code, out, err = await ask(engine, ["stack", "output", "--json", *how, "--stack", name], cwd=folder, env=env)
    if code and "no stack named" in err:
        forget(site, ref)  # somebody else has destroyed it
        raise no_such_stack(ref)
    if code and (refused := refusal(site, str(ref), err)):
        raise refused
    if code:
        message = f"pulumi stack output of {ref}: {mask_of(env)(err.strip()) or f'exit {code}'}"
        raise StackFailed(message, advice=f"see whether {shown(backend.url)} can be reached")
    told: dict[str, Any] = json.loads(out)
    return told


def no_such_stack(ref: StackRef) -> NoSuchStack:
    """Nobody has made it, and how it is made."""
    return NoSuchStack(f"stack {ref} does not exist", advice=f"recipe stack up {ref} RECIPE makes it")


def _path(site: Site, ref: StackRef) -> Path:
    return site.home / "stacks" / f"{ref.program}.{ref.name}.json"
