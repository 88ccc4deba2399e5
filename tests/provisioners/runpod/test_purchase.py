"""Exactly one pod: whatever becomes of the answer, and whoever interrupts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from provisioners.providers.runpod.answers import (
    ApiError,
    CapacityRefused,
    Lost,
    NoCredit,
    RateLimited,
    ServerError,
    Unauthorized,
    Unreachable,
)
from provisioners.providers.runpod.pace import Pace
from provisioners.providers.runpod.purchase import Attempt, buy
from provisioners.providers.runpod.values import Pod
from recipes.errors import ExitCode, NoCapacity, Unsettled
from tests.provisioners.runpod.scripted import NAME, QUICK, CloudDouble, always, wish


def bought(cloud: CloudDouble, attempt: Attempt | None = None, pace: Pace = QUICK) -> Pod:
    return asyncio.run(buy(cloud, wish(), pace, attempt or Attempt()))


LOST, BROKEN = Lost("POST /pods: no answer in time"), ServerError("POST /pods → 500", short="500")


def test_an_answered_create_is_one_request() -> None:
    cloud, attempt = CloudDouble(), Attempt()
    assert bought(cloud, attempt).id == "made1"
    assert cloud.calls == ["create"]
    assert attempt.pod_ids == {"made1"}


@pytest.mark.parametrize("error", [LOST, BROKEN])
def test_a_pod_that_was_made_without_an_answer_is_found_by_its_name(error: ApiError) -> None:
    cloud = CloudDouble(after={"create": [error]})
    cloud.add("other", "recipe-somebody-else")
    assert bought(cloud).id == "made1"
    assert cloud.count("create") == 1
    assert set(cloud.running) == {"other", "made1"}


def test_a_pod_that_the_lists_show_late_is_found_as_well() -> None:
    cloud = CloudDouble(after={"create": [BROKEN]}, hidden_from_lists={"made1"})

    def look(call: str) -> None:
        if call == "pods" and cloud.count("pods") == 5:
            cloud.hidden_from_lists.clear()

    cloud.on_call = look
    assert bought(cloud, pace=replace(QUICK, looks_s=60.0)).id == "made1"
    assert cloud.count("create") == 1


@pytest.mark.parametrize("error", [LOST, BROKEN])
def test_where_nothing_was_made_it_is_asked_again_after_a_long_look(error: ApiError) -> None:
    cloud, asked_at = CloudDouble(trouble={"create": [error]}), list[float]()
    cloud.on_call = lambda call: asked_at.append(time.monotonic()) if call == "create" else None
    assert bought(cloud).id == "made2"
    first, second = asked_at
    assert second - first >= QUICK.looks_s
    between = cloud.calls[1 : cloud.calls.index("create", 1)]
    assert between.count("pods") > 1
    assert list(cloud.running) == ["made2"]


def test_a_look_that_fails_at_the_last_moment_is_taken_again() -> None:
    cloud, pace = CloudDouble(trouble={"create": [BROKEN]}), replace(QUICK, looks_s=2.0)

    def fail_late(call: str) -> None:
        if call == "pods" and time.monotonic() - began > 0.8 * pace.looks_s and not failed:
            failed.append(call)
            cloud.trouble["pods"] = [ServerError("GET /pods → 502")] * 2

    began, failed = time.monotonic(), list[str]()
    cloud.on_call = fail_late
    assert bought(cloud, pace=pace).id == "made2"
    assert failed == ["pods"]


@pytest.mark.parametrize("error", [RateLimited("GET /pods → 429"), Unauthorized("GET /pods → 401"), BROKEN])
def test_a_list_that_is_refused_after_a_create_takes_nothing_back(error: ApiError) -> None:
    """The pod is there: that nobody says whether there are others of its name is no refusal of it."""
    cloud = CloudDouble(trouble={"create": [BROKEN]})

    def refuse(call: str) -> None:
        if call == "create" and cloud.count("create") == 2:
            cloud.trouble["pods"] = [error]

    cloud.on_call = refuse
    assert bought(cloud).id == "made2"


def test_it_is_asked_three_times_at_most() -> None:
    cloud = CloudDouble(trouble={"create": always(ServerError("POST /pods → 500: sorry"))})
    with pytest.raises(NoCapacity, match=r"3 creates, and no pod appeared .*sorry"):
        bought(cloud)
    assert cloud.count("create") == 3


def test_of_several_pods_of_one_name_one_is_kept() -> None:
    cloud = CloudDouble(after={"create": [LOST]})
    cloud.add("twin")
    kept = bought(cloud)
    assert list(cloud.running) == [kept.id]


def test_a_pod_that_appears_after_the_look_is_let_go_when_the_second_create_succeeds() -> None:
    cloud = CloudDouble(after={"create": [LOST]}, hidden_from_lists={"made1"})
    cloud.on_call = lambda call: cloud.hidden_from_lists.clear() if cloud.count("create") == 2 else None
    assert bought(cloud).id == "made2"
    assert list(cloud.running) == ["made2"]


def test_a_twin_that_will_not_go_leaves_it_unsettled() -> None:
    cloud = CloudDouble(after={"create": [LOST]}, trouble={"end": always(ServerError("DELETE → 500", short="500"))})
    cloud.add("twin")
    with pytest.raises(Unsettled, match="several pods called"):
        asyncio.run(buy(cloud, wish(), replace(QUICK, release_s=0.2), Attempt()))


@pytest.mark.parametrize(
    "error", [Unauthorized("GET /pods → 401"), ServerError("GET /pods → 502"), RateLimited("GET /pods → 429")]
)
def test_without_a_list_nobody_knows_and_nothing_is_asked_again(error: ApiError) -> None:
    cloud = CloudDouble(after={"create": [LOST]}, trouble={"pods": always(error)})
    attempt = Attempt()
    with pytest.raises(Unsettled) as caught:
        bought(cloud, attempt)
    assert cloud.count("create") == 1
    assert attempt.unanswered == 1
    assert caught.value.exit_code == ExitCode.NO_MACHINE


@pytest.mark.parametrize("error", [CapacityRefused("400"), Unauthorized("401"), NoCredit("402")])
def test_a_refusal_is_final(error: ApiError) -> None:
    cloud, attempt = CloudDouble(trouble={"create": [error]}), Attempt()
    with pytest.raises(type(error)):
        bought(cloud, attempt)
    assert cloud.calls == ["create"]
    assert attempt == Attempt()


@pytest.mark.parametrize("error", [RateLimited("429", retry_after_s=0.05), RateLimited("429"), Unreachable("refused")])
def test_what_was_turned_away_at_the_door_is_asked_again(error: ApiError) -> None:
    cloud, attempt = CloudDouble(trouble={"create": [error, error]}), Attempt()
    assert bought(cloud, attempt).id == "made3"
    assert cloud.calls == ["create"] * 3
    assert attempt.unanswered == 1


def test_a_wait_that_is_too_long_is_not_waited_for() -> None:
    cloud = CloudDouble(trouble={"create": [RateLimited("429", retry_after_s=3600)]})
    with pytest.raises(RateLimited):
        bought(cloud)


def interrupted(cloud: CloudDouble, attempt: Attempt, *, answer_comes: bool) -> None:
    """Cancel a create that is on its way; its answer comes a moment later, or not at all."""

    async def interruption() -> None:
        cloud.create_blocks = asyncio.Event()
        sent = asyncio.Event()
        cloud.on_call = lambda call: sent.set()
        work: Coroutine[Any, Any, Pod] = buy(cloud, wish(), replace(QUICK, last_word_s=0.2), attempt)
        buying = asyncio.create_task(work)
        await sent.wait()
        buying.cancel()
        await asyncio.sleep(0)
        if answer_comes:
            cloud.create_blocks.set()
        with pytest.raises(asyncio.CancelledError):
            await buying

    asyncio.run(interruption())


def test_who_interrupts_a_create_still_learns_what_it_made() -> None:
    attempt = Attempt()
    interrupted(CloudDouble(), attempt, answer_comes=True)
    assert attempt.pod_ids == {"made1"}


def test_who_interrupts_a_create_still_learns_that_it_was_refused() -> None:
    attempt = Attempt()
    interrupted(CloudDouble(after={"create": [CapacityRefused("400")]}), attempt, answer_comes=True)
    assert attempt.unanswered == 0


def test_an_interrupted_create_without_an_answer_stays_open() -> None:
    attempt = Attempt()
    interrupted(CloudDouble(), attempt, answer_comes=False)
    assert attempt == Attempt(unanswered=1)


def test_pods_of_other_names_are_left_alone() -> None:
    cloud = CloudDouble(after={"create": [BROKEN]})
    others = [cloud.add("a", f"{NAME}x"), cloud.add("b", NAME[:-1]), cloud.add("c", NAME.upper())]
    bought(cloud)
    assert all(pod.id in cloud.running for pod in others)


def test_a_create_that_hangs_is_looked_for_beside_the_waiting() -> None:
    cloud = CloudDouble()

    async def main() -> Pod:
        cloud.create_blocks = asyncio.Event()
        return await asyncio.wait_for(buy(cloud, wish(), QUICK, Attempt()), 60)

    assert asyncio.run(main()).id == "made1"
    assert cloud.count("create") == 1
