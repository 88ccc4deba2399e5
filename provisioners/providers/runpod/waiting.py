"""Waiting for a pod: read again and again until it runs and says where its sshd listens, or will never."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from provisioners.providers.runpod.answers import (
    ApiError,
    Forbidden,
    NotFound,
    RateLimited,
    Retired,
    Unauthorized,
    as_no_machine,
)
from provisioners.providers.runpod.cloud import Cloud
from provisioners.providers.runpod.pace import Pace
from provisioners.providers.runpod.values import ERROR, EXITED, RUNNING, Pod
from recipes.errors import NoMachine

_LOG_LINES = 20


@dataclass
class Waiting:
    """The wait for one pod. `reason` says at every moment what is waited for."""

    cloud: Cloud
    pod_id: str
    pace: Pace
    on_sight: Callable[[], None]
    """Called when RunPod shows the pod for the first time."""
    reason: str = "RunPod has not said anything of it yet"
    pause_s: float = 0.0
    seen: bool = False
    """Whether RunPod has shown the pod at all."""
    _missing_since: float | None = field(default=None, repr=False)
    _exited_since: float | None = field(default=None, repr=False)

    async def address(self) -> Pod:
        """The pod once it runs and has an address. Raises NoMachine if it never will, or if nobody may ask."""
        while True:
            pod = await self._read()
            if pod is not None and pod.status == RUNNING and pod.address is not None:
                return pod
            await self.pause()

    async def pause(self) -> None:
        """A little longer each time: a fast start is seen soon, a slow one costs few requests."""
        self.pause_s = min(max(self.pause_s * self.pace.poll_growth, self.pace.poll_first_s), self.pace.poll_most_s)
        await asyncio.sleep(max(self.pause_s, self.cloud.scarce_s))

    async def _read(self) -> Pod | None:
        try:
            pod = await self.cloud.pod(self.pod_id, again_s=0.0)
        except NotFound:
            await self._check_missing()
            return None
        except (Unauthorized, Forbidden, Retired) as error:
            raise as_no_machine(error) from error
        except ApiError as error:
            self.reason = f"RunPod gives no usable answer: {error.what}"
            if isinstance(error, RateLimited):
                await asyncio.sleep(error.retry_after_s or self.pace.poll_most_s)
            return None
        if not self.seen:
            self.seen = True
            self.on_sight()
        self._missing_since = None
        await self._check_alive(pod)
        if pod.status != RUNNING:
            self.reason = f"it is {pod.status}"
        elif pod.address is None:
            self.reason = "it runs, and RunPod names no public port for it"
        elif not self.reason.startswith("it runs, and"):
            self.reason = f"it runs, and does not answer yet at {pod.address.host}:{pod.address.port}"
        return pod

    async def _check_missing(self) -> None:
        """A new pod can be unreadable for a while; one that nobody lists after that is lost."""
        now = time.monotonic()
        self._missing_since = self._missing_since or now
        self.reason = "RunPod does not know it, or not yet"
        allowed_s = self.pace.settle_s if self.seen else self.pace.missing_s
        if now - self._missing_since < allowed_s:
            return
        with suppress(ApiError):
            if all(pod.id != self.pod_id or pod.terminated for pod in await self.cloud.pods(again_s=0.0)):
                raise NoMachine(f"pod {self.pod_id} is gone: RunPod neither reads nor lists it", advice=_ENDED_ITSELF)

    async def _check_alive(self, pod: Pod) -> None:
        """Raises NoMachine for a pod that will not run any more, with what it said last."""
        now = time.monotonic()
        if pod.status != EXITED:
            self._exited_since = None
        else:
            self._exited_since = self._exited_since or now
        exited = self._exited_since is not None and now - self._exited_since >= self.pace.exited_s
        if not (exited or pod.terminated or pod.status == ERROR):
            return
        said = await log_tail(self.cloud, pod.id)
        if pod.terminated:
            advice = _ENDED_ITSELF
        elif pod.status == EXITED:
            advice = "its machine was taken away, or somebody stopped it: run the recipe again"
        else:
            advice = "see whether the image exists and starts on such a machine"
        raise NoMachine(f"pod {pod.id} is {pod.status}{said}", advice=advice)


_ENDED_ITSELF = "it was terminated by somebody, or ended itself at its deadline: run the recipe again"


async def log_tail(cloud: Cloud, pod_id: str) -> str:
    """What the pod said last, to be added to a sentence; nothing if that cannot be had."""
    try:
        lines = await cloud.log_tail(pod_id, _LOG_LINES)
    except ApiError:
        return ""
    return "; its log ends with:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""
