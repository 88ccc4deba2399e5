"""Asking for something so that there is exactly one: after an unclear answer, by looking for its unique name."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

from provisioners.contract import MayStillBill
from provisioners.providers.runpod.answers import (
    Ambiguous,
    ApiError,
    CapacityRefused,
    Conflict,
    Forbidden,
    NotFound,
    RateLimited,
    Refusal,
    Retired,
    Unauthorized,
    Unreachable,
    as_no_machine,
)
from provisioners.providers.runpod.cloud import Kind, Named, Rentals, Rented
from provisioners.providers.runpod.pace import Pace
from provisioners.providers.runpod.release import POD, let_go
from recipes.errors import NoCapacity, NoMachine, Unsettled

W = TypeVar("W", bound=Named)
R = TypeVar("R", bound=Rented)


@dataclass
class Attempt:
    """What is known of a create at every moment, for whoever has to let go of it after an interruption."""

    unanswered: int = 0
    """Creates that left and were not refused: each may have made a pod."""
    pod_ids: set[str] = field(default_factory=set)
    kind: Kind = POD


async def buy(cloud: Rentals[W, R], wish: W, pace: Pace, attempt: Attempt) -> R:
    """One of this name. Raises Refusal; NoCapacity if RunPod never answers and none ever appears.

    Raises Unsettled if it cannot be known whether there is one.
    """
    for ask in range(pace.asks):
        try:
            pod = await _created_or_seen(cloud, wish, pace, attempt)
            return await keep_one(cloud, [pod, *await _others(cloud, wish.name)], pace, attempt) if ask else pod
        except Ambiguous as error:
            cause: ApiError = error
        if (found := await _appeared(cloud, wish.name, pace, attempt, cause)) is not None:
            return found
    raise NoCapacity(
        f"RunPod gave no usable answer to {pace.asks} creates, and no {attempt.kind.noun} appeared ({cause.what})",
        advice="try again later; see https://uptime.runpod.io",
    )


async def _created_or_seen(cloud: Rentals[W, R], wish: W, pace: Pace, attempt: Attempt) -> R:
    """The pod that the create answers with; where no answer comes for long, the one that is in the lists meanwhile."""
    asked = asyncio.ensure_future(_create(cloud, wish, pace, attempt))
    try:
        while not (await asyncio.wait({asked}, timeout=pace.hanging_s))[0]:
            if attempt.unanswered and (named := await _others(cloud, wish.name)):
                asked.cancel()
                return await keep_one(cloud, named, pace, attempt)
        return asked.result()
    except asyncio.CancelledError:
        if not asked.done():
            asked.cancel()
            # It may still learn the pod's id, which whoever lets go wants to know.
            await asyncio.wait({asked})
        raise


async def _create(cloud: Rentals[W, R], wish: W, pace: Pace, attempt: Attempt) -> R:
    """Ask; a request that was turned away at the door is asked again, any other never."""
    end = time.monotonic() + pace.limited_s
    pause_s = pace.backoff_first_s
    while True:
        try:
            return await _with_last_word(cloud.create(wish), pace.last_word_s, attempt)
        except (RateLimited, Unreachable) as error:
            wait_s = pause_s if error.retry_after_s is None else error.retry_after_s
            if time.monotonic() + wait_s > end:
                raise
        await asyncio.sleep(wait_s)
        pause_s = min(2 * pause_s, pace.backoff_most_s)


async def _with_last_word(create: Awaitable[R], last_word_s: float, attempt: Attempt) -> R:
    """The pod. Who is interrupted meanwhile waits a little longer for the answer: it names what has to be let go."""
    asked = asyncio.ensure_future(_recorded(create, attempt))
    try:
        return await asyncio.shield(asked)
    except asyncio.CancelledError:
        try:
            await asyncio.wait({asked}, timeout=last_word_s)
        finally:
            asked.cancel()
        raise


async def _recorded(create: Awaitable[R], attempt: Attempt) -> R:
    attempt.unanswered += 1
    try:
        pod = await create
    except Refusal:
        attempt.unanswered -= 1
        raise
    attempt.pod_ids.add(pod.id)
    return pod


async def _appeared(cloud: Rentals[W, R], name: str, pace: Pace, attempt: Attempt, cause: ApiError) -> R | None:
    """The pod of this name, if one appears in the lists while it is looked for; others of the same name are let go.

    None says that it was in no list during the whole time, the last one included. Raises Unsettled without such a list.
    """
    began = time.monotonic()
    pause_s = pace.look_first_s
    while True:
        wait_s, named = pause_s, None
        try:
            named = await _named(cloud, name)
        except (Unauthorized, Forbidden, Retired) as error:
            raise Unsettled(f"{cause.what}; and its {attempt.kind.noun} cannot be looked for: {error.what}") from error
        except ApiError as error:
            cause = error
            wait_s = max(pause_s, error.retry_after_s or 0.0)
        if named:
            return await keep_one(cloud, named, pace, attempt)
        looked_s = time.monotonic() - began
        if named is not None and looked_s >= pace.looks_s:
            return None
        if looked_s + wait_s > 1.5 * pace.looks_s:
            raise Unsettled(f"RunPod does not say whether it made the {attempt.kind.noun} {name}: {cause.what}")
        await asyncio.sleep(wait_s)
        pause_s = min(2 * pause_s, pace.look_every_s)


async def _named(cloud: Rentals[W, R], name: str) -> list[R]:
    return [pod for pod in await cloud.pods(again_s=0.0) if pod.name == name and not pod.terminated]


async def _others(cloud: Rentals[W, R], name: str) -> list[R]:
    """The same once there is a pod; a list that cannot be had now says nothing of it, and is looked at again later."""
    try:
        return await _named(cloud, name)
    except ApiError:
        return []


async def keep_one(cloud: Rentals[W, R], named: list[R], pace: Pace, attempt: Attempt) -> R:
    """The first of several with one name; the others are let go. Raises Unsettled if that is not proven."""
    keep, *others = {pod.id: pod for pod in named}.values()
    attempt.pod_ids |= {pod.id for pod in named}
    for pod in others:
        release = await let_go(cloud, pod.name, [pod.id], pace, whole_name=False, kind=attempt.kind)
        if isinstance(release, MayStillBill):
            several = f"RunPod made several {attempt.kind.noun}s called {keep.name}"
            raise Unsettled(f"{several}, and one of them stays: {release.reason}")
        attempt.pod_ids.discard(pod.id)
    return keep


def refused(error: Refusal, what: str) -> NoMachine:
    """A refusal of a create as an error for people: NoCapacity where another offer might be had."""
    match error:
        case CapacityRefused():
            return NoCapacity(f"RunPod has no {what} now: {error.what}")
        case Forbidden():
            return NoCapacity(f"this account may not rent {what}: {error.what}")
        case NotFound() | Conflict():
            return NoCapacity(f"RunPod does not rent {what}: {error.what}")
        case _:
            return as_no_machine(error)
