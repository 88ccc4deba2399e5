"""What was agreed to reaches the providers: nothing is made that its preview has not shown."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

from recipes.errors import NoMachine

VARIABLE = "RECIPE_STACK_MAKES"


@contextmanager
def making(kinds: frozenset[str] | None, env: MutableMapping[str, str]) -> Iterator[None]:
    """While entered, an engine of this environment makes things of these kinds only; None: whatever it takes."""
    if kinds is not None:
        env[VARIABLE] = ",".join(sorted(kinds))
    try:
        yield
    finally:
        env.pop(VARIABLE, None)


def check_agreed(kind: str) -> None:
    """In a provider, before anything is asked for. Raises NoMachine."""
    agreed = os.environ.get(VARIABLE)
    if agreed is not None and kind not in agreed.split(","):
        what = f"a {kind} would have to be made, which the preview did not show: what there was has gone since then"
        raise NoMachine(what, advice="the same command again shows what it would make, and what that costs")
