"""Letting something go, and the proof: its end was accepted, nobody can read it, and two lists apart do not have it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from provisioners.contract import Gone, MayStillBill, Release
from provisioners.providers.runpod.answers import PODS_URL, ApiError, Forbidden, NotFound, Retired, Unauthorized
from provisioners.providers.runpod.cloud import Kind, Rentals, Rented
from provisioners.providers.runpod.pace import Pace

COMMAND = f"recipe reap --yes   # or by hand: {PODS_URL}"
POD = Kind("pod", COMMAND)
_HOPELESS = (Unauthorized, Forbidden, Retired)
_REFUSALS = 3
"""Rounds in a row with such an answer that are believed: a single one is a mishap of the other side's."""


@dataclass
class _Target:
    """What is to end, and what has become of it so far."""

    id: str
    known: bool = False
    """It was read or listed once, or is old enough to be readable if it were there."""
    accepted_at: datetime | None = None
    asked_at: float | None = None
    status: str | None = None
    """Of the last look; None if nobody can read it."""


@dataclass
class _Look:
    """One look at everything: when it was, and whether it found nothing."""

    at: float
    said_at: datetime


@dataclass
class _Letting:
    """The conversation about one name."""

    cloud: Rentals[Any, Rented]
    kind: Kind
    name: str
    pace: Pace
    patience_s: float
    whole_name: bool
    began: float = field(default_factory=time.monotonic)
    targets: dict[str, _Target] = field(default_factory=dict)
    absent: list[_Look] = field(default_factory=list)
    """The latest looks that found nothing, without a gap."""
    deletes: int = 0
    last_error: ApiError | None = None
    asked_wait_s: float = 0.0
    """What RunPod asked to wait for in this round."""
    looked: bool = False
    """Whether the last look was answered."""
    refusal: ApiError | None = None
    """Of this round: an answer after which asking again is of little use."""
    refusals: int = 0
    """Rounds in a row that met one."""

    async def run(self) -> Release:
        """Gives up when its patience ends, but not before it has asked once."""
        try:
            async with asyncio.timeout(max(self.patience_s, self.pace.request_s)):
                return await self._converse()
        except TimeoutError:
            return MayStillBill(self._failure(), self.kind.command)

    async def _converse(self) -> Release:
        pause_s = self.pace.poll_first_s
        while True:
            self.asked_wait_s, self.refusal = 0.0, None
            await self._end_all()
            found_more = await self._look()
            self.refusals = self.refusals + 1 if self.refusal else 0
            if self.refusal and self.refusals >= _REFUSALS:
                return MayStillBill(f"RunPod refuses the key or the request: {self.refusal.what}", self.kind.command)
            if self._is_proven():
                return Gone(self._proof(), self.absent[0].said_at)
            if found_more:
                continue
            left_s = self.began + self.patience_s - time.monotonic()
            if left_s <= 0:
                return MayStillBill(self._failure(), self.kind.command)
            await asyncio.sleep(min(left_s, self._until_next_look(pause_s)))
            pause_s = min(2 * pause_s, self.pace.backoff_most_s)

    async def _end_all(self) -> None:
        """Ask for the end of each that has not accepted it, and again of each that is still there after it did."""
        for target in self.targets.values():
            now = time.monotonic()
            rested = target.asked_at is None or now - target.asked_at >= self.pace.lists_apart_s / 2
            if rested and (target.accepted_at is None or target.status is not None):
                target.asked_at = now
                self.deletes += 1
                try:
                    await self.cloud.end(target.id)
                    target.accepted_at = target.accepted_at or datetime.now(UTC)
                except ApiError as error:
                    self._note(error)

    async def _look(self) -> bool:
        """Read each and list all. True if there are more than were known, whose end has to be asked for at once."""
        before = len(self.targets)
        listing = asyncio.ensure_future(self.cloud.pods(again_s=0.0))
        reads = [(target, asyncio.ensure_future(self._status(target.id))) for target in self.targets.values()]
        failed = await _errors_of(listing, *(read for _, read in reads))
        if failed:
            self.looked = False
            self.absent.clear()
            for error in reversed(failed):
                self._note(error)
            return False
        self.looked = True
        for target, read in reads:
            target.status = read.result()
            target.known = target.known or target.status is not None
        for pod in filter(self._is_meant, listing.result()):
            target = self.targets.setdefault(pod.id, _Target(pod.id))
            target.known, target.status = True, pod.status
        if any(target.status is not None for target in self.targets.values()):
            self.absent.clear()
        else:
            self.absent.append(_Look(time.monotonic(), datetime.now(UTC)))
        return len(self.targets) > before

    async def _status(self, pod_id: str) -> str | None:
        """What a read says of the pod: None if there is nothing that could bill."""
        try:
            pod = await self.cloud.pod(pod_id, again_s=0.0)
        except NotFound:
            return None
        return None if pod.terminated else pod.status

    def _is_meant(self, pod: Rented) -> bool:
        named = self.whole_name and pod.name == self.name
        return (named or pod.id in self.targets) and not pod.terminated

    def _note(self, error: ApiError) -> None:
        self.last_error = error
        if isinstance(error, _HOPELESS):
            self.refusal = error
        self.asked_wait_s = max(self.asked_wait_s, error.retry_after_s or 0.0)

    def _denied(self) -> list[_Target]:
        """Those whose end was never accepted."""
        return [target for target in self.targets.values() if target.accepted_at is None]

    def _needed_s(self) -> float | None:
        """How far the first and the last absence must lie apart; None if no absence would prove anything."""
        if not self.targets:
            return self.pace.unnamed_settle_s
        denied = self._denied()
        if not all(target.known for target in denied):
            return None
        return self.pace.settle_s if denied else self.pace.lists_apart_s

    def _is_proven(self) -> bool:
        needed_s = self._needed_s()
        if needed_s is None or len(self.absent) < 2:
            return False
        return self.absent[-1].at - self.absent[0].at >= needed_s

    def _until_next_look(self, pause_s: float) -> float:
        if self.absent:
            pause_s = self.absent[-1].at + self.pace.lists_apart_s - time.monotonic()
        return max(0.0, pause_s, self.asked_wait_s)

    def _proof(self) -> str:
        lists = [f"{look.said_at:%H:%M:%S}" for look in self.absent]
        span = f"absent from the lists of {lists[0]} and {lists[-1]} UTC"
        if len(lists) > 2:
            span = f"absent from {len(lists)} lists between {lists[0]} and {lists[-1]} UTC"
        if not self.targets:
            return f"no {self.kind.noun} called {self.name}: {span}"
        each = [
            f"{self.kind.noun} {target.id} deleted {target.accepted_at:%H:%M:%S}"
            if target.accepted_at
            else f"{self.kind.noun} {target.id} was there before and is not any more"
            for target in self.targets.values()
        ]
        return f"{', '.join(each)}; cannot be read any more, {span}"

    def _failure(self) -> str:
        waited, noun = f"{time.monotonic() - self.began:.0f} s", self.kind.noun
        said = f" (last: {self.last_error.short})" if self.last_error else " (last: no answer in time)"
        tries = f"{self.deletes} delete{'' if self.deletes == 1 else 's'}"
        there = [f"{target.id} as {target.status}" for target in self.targets.values() if target.status is not None]
        if not self.targets:
            if self.looked:
                return f"no {noun} called {self.name} appeared in {waited}, which is too short a time to be sure"
            return f"RunPod did not list its {noun}s in {waited}{said}: nobody knows whether {self.name} exists"
        if not self.looked:
            if self._denied():
                return f"RunPod did not answer {tries} in {waited}{said}"
            return f"RunPod accepted the delete, but did not show in {waited} that it was done{said}"
        if there:
            accepted = "accepted" if not self._denied() else "did not accept"
            return f"RunPod {accepted} {tries} in {waited} and still has {noun} {', '.join(there)}{said}"
        ids = ", ".join(target.id for target in self._denied())
        return f"RunPod denies that there is a {noun} {ids}{said}, and it is too new for that to prove anything"


async def _errors_of(*under_way: asyncio.Future[Any]) -> list[ApiError]:
    """What went wrong with any of them, when all are done. Raises what is none of RunPod's errors."""
    try:
        await asyncio.wait(under_way)
    finally:
        for one in under_way:
            one.cancel()
    errors = [error for one in under_way if (error := one.exception()) is not None]
    for error in errors:
        if not isinstance(error, ApiError):
            raise error
    return [error for error in errors if isinstance(error, ApiError)]


async def let_go(
    cloud: Rentals[Any, Rented],
    name: str,
    pod_ids: Iterable[str],
    pace: Pace,
    *,
    patience_s: float | None = None,
    known: bool = True,
    whole_name: bool = True,
    kind: Kind = POD,
) -> Release:
    """End these, and everything else of the same name if it is meant as a whole, until that is proven.

    `known` says that they are sure to have existed: then, and only then, can RunPod's denial become a proof.
    """
    letting = _Letting(cloud, kind, name, pace, pace.release_s if patience_s is None else patience_s, whole_name)
    letting.targets = {pod_id: _Target(pod_id, known=known) for pod_id in pod_ids}
    return await letting.run()
