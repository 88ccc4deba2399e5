"""Small questions to Pulumi's engine, without its SDK, from a folder that no stack works in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from provisioners.contract import Site
from provisioners.threads import in_thread
from stacks.backend import backend_of, engine_env, refusal, where, work_dir
from stacks.engine import ask, need
from stacks.events import last_error, marked_error
from stacks.masks import mask_of
from stacks.reference import StackRef
from stacks.values import NoSuchStack, StackFailed

ASKING = "_"
"""In a stack's place: the folder from which a project's stacks are asked after. No stack has this name."""


async def asked_of(site: Site, ref: StackRef, *argv: str) -> Any:
    """What `pulumi stack …` answers about one stack, JSON. Raises NoEngine, NoSuchStack, StackFailed, UsageError."""
    name = backend_of(site).stack(ref.project, ref.name)
    return await _asked(site, ref.project, [*argv, "--stack", name], f"{' '.join(argv[:2])} of {ref}", ref)


async def asked(site: Site, project: str, *argv: str) -> Any:
    """What it answers about a project, JSON. Raises NoEngine, StackFailed, UsageError."""
    return await _asked(site, project, argv, " ".join(argv[:2]), None)


async def _asked(site: Site, project: str, argv: Sequence[str], what: str, ref: StackRef | None) -> Any:
    backend = backend_of(site)
    engine = await in_thread(need, site)
    folder = work_dir(site, project, ASKING)
    env = engine_env(site, backend, folder)
    code, out, err = await ask(engine, argv, cwd=folder, env=env)
    if code and ref is not None and "no stack named" in err:
        raise no_such_stack(ref)
    if code and (refused := refusal(site, str(ref or project), err)):
        raise refused
    try:
        if code:
            raise ValueError(last_error([marked_error(err)]) or f"exit {code}")
        return json.loads(out)
    except ValueError as error:
        message = f"pulumi {what}: {mask_of(env)(str(error))}"
        raise StackFailed(message, advice=f"see whether {where(site)} can be reached, and read") from error


def no_such_stack(ref: StackRef) -> NoSuchStack:
    """Nobody has made it, and how it is made."""
    return NoSuchStack(f"stack {ref} does not exist", advice=f"recipe stack up {ref} RECIPE makes it")
