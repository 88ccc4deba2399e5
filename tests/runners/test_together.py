"""The first failure of tasks that stand and fall together comes out as it is."""

from __future__ import annotations

import asyncio

import pytest

from runners.together import to_its_end, together


class Expected(Exception):
    pass


async def fails(error: BaseException) -> None:
    raise error


async def waits() -> None:
    await asyncio.Event().wait()


async def all_of(*errors: BaseException) -> None:
    async with together(Expected) as group:
        group.create_task(waits())
        for error in errors:
            group.create_task(fails(error))


def test_the_first_is_raised_as_it_is_and_the_others_are_ended() -> None:
    with pytest.raises(Expected, match="first"):
        asyncio.run(all_of(Expected("first"), Expected("second")))


def test_one_within_another_is_raised_as_it_is() -> None:
    async def nested() -> None:
        async with together(Expected) as group:
            group.create_task(all_of(Expected("inner")))

    with pytest.raises(Expected, match="inner"):
        asyncio.run(nested())


def test_what_nobody_expected_keeps_its_group() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(all_of(Expected("known"), ValueError("a bug")))
    assert caught.group_contains(ValueError, match="a bug")


def test_letting_go_comes_to_its_end_and_its_time_limit_holds_however_often_it_is_cancelled() -> None:
    async def lets_go(ended: list[str]) -> str:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        ended.append("gone")
        return "gone"

    async def interrupted(ended: list[str]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            assert await to_its_end(lets_go(ended)) == "gone"

    async def go() -> list[str]:
        ended: list[str] = []
        task = asyncio.create_task(interrupted(ended))
        while not task.done():
            await asyncio.sleep(0)
            task.cancel()
        return ended

    assert asyncio.run(go()) == ["gone"]
