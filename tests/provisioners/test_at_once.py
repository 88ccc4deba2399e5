"""Several questions at once: none goes on alone."""

from __future__ import annotations

import asyncio

import pytest

from provisioners.at_once import all_of


def test_all_results_are_in_order() -> None:
    async def one(n: int) -> int:
        await asyncio.sleep(0.01 / n)
        return n

    assert asyncio.run(all_of(one(n) for n in (1, 2, 3))) == [1, 2, 3]
    assert asyncio.run(all_of([])) == []


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
def test_the_first_failure_ends_the_others(how: str) -> None:
    ended: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("the other")

    async def fails() -> None:
        if how == "fails":
            raise ValueError("no")
        raise asyncio.CancelledError

    async def life() -> None:
        with pytest.raises((ValueError, asyncio.CancelledError)):
            await all_of([waits(), fails()])
        assert ended == ["the other"]

    asyncio.run(life())
