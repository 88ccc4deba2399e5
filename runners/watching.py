"""Notices that a rented machine was taken away, instead of waiting for what runs on it to fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from provisioners.contract import Bill, Lease, Observed, Provisioner
from recipes.errors import NoMachine
from runners.outcome import Failed

_NO_MACHINE = NoMachine.exit_code
_EVERY_S = 10.0
_PATIENCE_S = 10.0
_BILL_PATIENCE_S = 5.0
TAKEN = ("stopped", "failed", "gone")


async def taken_away(provisioner: Provisioner, lease: Lease) -> Observed | None:
    """What the provider says of a machine that will not go on; None if it does, or if nobody knows."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            seen = await provisioner.observe(lease)
    except (Exception, asyncio.CancelledError):
        return None
    return seen if seen.state in TAKEN else None


async def until_taken_away(
    provisioner: Provisioner, lease: Lease, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> Observed:
    """Ask now and then; returns when it was said twice in a row, because a single answer may be a mishap."""
    said = 0
    while True:
        await sleep(_EVERY_S if not said else 1.0)
        seen = await taken_away(provisioner, lease)
        said = said + 1 if seen else 0
        if seen and said > 1:
            return seen


def without_machine(failed: Failed, seen: Observed, mask: Callable[[str], str]) -> Failed:
    """What failed on a machine that was taken away did so because of that."""
    what = f"the machine was taken away in the {failed.phase} phase: {seen.message or seen.state}"
    error = mask(f"{what}; {failed.error}" if failed.error else what)
    return Failed(failed.phase, error, "run again; a machine of resources.use_spot can go at any time", _NO_MACHINE)


async def billed(provisioner: Provisioner, lease: Lease) -> Bill | None:
    """What the provider says that it cost; None if it does not say so soon."""
    try:
        async with asyncio.timeout(_BILL_PATIENCE_S):
            return await provisioner.bill(lease)
    except (Exception, asyncio.CancelledError):
        return None
