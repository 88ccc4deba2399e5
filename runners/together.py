"""Tasks that stand and fall together, and work that is never cut short."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

T = TypeVar("T")


@asynccontextmanager
async def together(kind: type[Exception]) -> AsyncIterator[asyncio.TaskGroup]:
    """Tasks of which the first failure ends the others; where all that failed is of this kind, the first is raised.

    As it is, not in a group: what `except*` raises is put into one by some releases of Python 3.11, by others not.
    """
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as failures:
        expected, others = failures.split(kind)
        if expected is None or others is not None:
            raise
        raise _first(expected) from None


def _first(failures: BaseExceptionGroup[Exception]) -> Exception:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Letting go is never cut short, however often whoever waits for it is cancelled.

    In a task of its own, which nobody cancels: time limits within hold there on each release of Python 3.11.
    """
    working = asyncio.ensure_future(work)
    while not working.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({working})
    return working.result()
