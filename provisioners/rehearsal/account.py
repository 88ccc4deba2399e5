"""The account: its key, its pods and volumes, and what can be done with them, by REST and GraphQL alike."""

from __future__ import annotations

import asyncio
import secrets
import string
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

from provisioners.rehearsal import catalogue
from provisioners.rehearsal.asking import PodRequest
from provisioners.rehearsal.faults import Mishaps, Way
from provisioners.rehearsal.pods import Pod, Workshop
from provisioners.rehearsal.problems import AnswerLost, Problem
from provisioners.rehearsal.volumes import Volumes, new_id

LONGEST_WAIT_S = 10.0
"""Real seconds that the answer to a termination waits for the last process."""
_LATE_LOOK_S = 0.05
_NO_INSTANCES = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again."
)


@dataclass(frozen=True)
class Caller:
    """Whose key came with a request."""

    pod: str | None = None
    """None for the account's own key."""

    @property
    def kind(self) -> Literal["account", "pod"]:
        return "account" if self.pod is None else "pod"


def new_key() -> str:
    return "rpa_" + "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(40))


class Account:
    """Everything that one key opens."""

    def __init__(self, shop: Workshop, mishaps: Mishaps, *, key: str) -> None:
        self.shop, self.mishaps, self.key = shop, mishaps, key
        self.pods: dict[str, Pod] = {}
        self.volumes = Volumes(shop, mishaps, self._mounted)
        self.ssh_keys: list[str] = []
        self.requests: Counter[str] = Counter()
        """How often each was asked with the account's key, as METHOD path; the emulator's own pages are none."""

    def caller(self, key: str) -> Caller | None:
        """Whose key this is; None if it is nobody's."""
        if secrets.compare_digest(key, self.key):
            return Caller()
        for pod in self.pods.values():
            if pod.key == key and not pod.gone.is_set():
                return Caller(pod.id)
        return None

    async def create(self, asked: PodRequest, via: str) -> Pod:
        """Make a pod, with the faults that are due. Raises Problem, AnswerLost."""
        ledger, due = self.shop.ledger, self.mishaps.due
        try:
            self._refuse_by_fault(asked)
            center, usd_per_h = self._place(asked)
        except Problem as problem:
            ledger.asked(asked.name, str(problem.status))
            raise
        pod = self._make(asked, center, usd_per_h)
        ledger.asked(asked.name, pod.id)
        if due("create_duplicate"):
            self._make(asked, center, usd_per_h)
        await self._answers_late()
        if due("create_lost_after"):
            raise AnswerLost(f"{via} made {pod.id}")
        if due("create_500_after"):
            raise Problem(500, "internal server error")
        return pod

    async def _answers_late(self) -> None:
        """As late as the fault says, and no later than until it is taken back."""
        began = self.shop.clock.now()
        while self.shop.clock.lasts(self.mishaps.faults.create_answer_delay_s, began):
            await asyncio.sleep(_LATE_LOOK_S)

    def _refuse_by_fault(self, asked: PodRequest) -> None:
        due, faults = self.mishaps.due, self.mishaps.faults
        if due("create_429"):
            waits = {"Retry-After": str(faults.retry_after_s)}
            raise Problem(429, "rate limit exceeded for the minute window", headers=waits)
        if due("create_422"):
            raise Problem(422, "Request validation failed.", errors=["$: refused by a fault of the rehearsal"])
        if due("create_402"):
            raise Problem(402, "Your balance is too low to create this pod.")
        if due("create_500_before"):
            raise Problem(500, "internal server error")
        forbidden = faults.forbidden_gpus
        centers = asked.data_centers or ("",)
        if any(catalogue.blocked(forbidden, asked.gpu_id, asked.cloud, center) for center in centers):
            raise Problem(403, "access denied")
        if due("create_no_capacity"):
            raise Problem(400, _NO_INSTANCES)

    def _place(self, asked: PodRequest) -> tuple[str, float]:
        """The data centre and the price. Raises Problem 400 where it cannot be had."""
        gpu = catalogue.gpu_named(asked.gpu_id)
        if gpu is None:
            raise Problem(400, f"gpu type {asked.gpu_id!r} not found")
        cuda = asked.cuda or None
        if asked.min_cuda is not None:
            cuda = catalogue.cuda_from(gpu, asked.min_cuda)
        preferred = asked.data_centers
        if asked.network is not None:
            volume = self.volumes.get(asked.network.volume_id)
            if volume is None:
                raise Problem(400, f"network volume {asked.network.volume_id!r} not found")
            if asked.cloud != "SECURE":
                raise Problem(400, "network volumes are for pods of the secure cloud")
            if preferred and volume.data_center not in preferred:
                raise Problem(400, f"network volume {volume.id!r} is in {volume.data_center}")
            preferred = (volume.data_center,)
        wanted = catalogue.Wanted(count=asked.gpu_count, cloud=asked.cloud, cuda=cuda)
        center = catalogue.placement(gpu, wanted, self.mishaps.faults, preferred)
        if center is None:
            raise Problem(400, _NO_INSTANCES)
        each = gpu.price(asked.cloud)
        if asked.bid_usd_per_h is not None:
            least = catalogue.least_bid(gpu, asked.cloud)
            if asked.bid_usd_per_h < least:
                raise Problem(400, f"Bid must be at least {least} per GPU")
            each = asked.bid_usd_per_h
        return center, round(each * asked.gpu_count * self.mishaps.faults.cost_factor, 6)

    def _make(self, asked: PodRequest, center: str, usd_per_h: float) -> Pod:
        gpu = catalogue.gpu_named(asked.gpu_id)
        assert gpu is not None
        if asked.start_ssh and self.ssh_keys and "PUBLIC_KEY" not in asked.env:
            asked = replace(asked, env={**asked.env, "PUBLIC_KEY": "\n".join(self.ssh_keys)})
        pod = Pod(new_id(), asked, self.shop, key=new_key(), data_center=center, cuda=gpu.cuda[0], usd_per_h=usd_per_h)
        self.pods[pod.id] = pod
        return pod

    def seen(self, pod_id: str) -> Pod:
        """A pod as GET finds it. Raises Problem 404."""
        faults, clock = self.mishaps.faults, self.shop.clock
        pod = self.pods.get(pod_id)
        if pod is None:
            raise Problem(404, "pod not found")
        if pod.ended_at is not None:
            if faults.terminated_visible_s and clock.lasts(faults.terminated_visible_s, pod.ended_at):
                return pod
            raise Problem(404, "pod not found")
        if self._is_unreadable(pod):
            raise Problem(404, "pod not found")
        return pod

    def _is_unreadable(self, pod: Pod) -> bool:
        seconds = self.mishaps.faults.unreadable_s
        return bool(seconds) and self.shop.clock.lasts(seconds, pod.created_at)

    def listed(self) -> list[Pod]:
        """The pods that a list shows now, in the order of their creation."""
        faults, clock = self.mishaps.faults, self.shop.clock

        def shown(pod: Pod) -> bool:
            if pod.ended_at is not None:
                return bool(faults.list_lag_gone_s) and clock.lasts(faults.list_lag_gone_s, pod.ended_at)
            return not (faults.list_lag_new_s and clock.lasts(faults.list_lag_new_s, pod.created_at))

        return [pod for pod in self.pods.values() if shown(pod)]

    async def act(self, pod_id: str, action: str, caller: Caller, way: Way) -> Pod:
        """Trigger a transition. Raises Problem: 403 for what a pod's key may not, 404, 409; AnswerLost."""
        self.check_may(caller, pod_id, way)
        pod = self.pods.get(pod_id)
        if pod is None or pod.gone.is_set() or (caller.pod is None and self._is_unreadable(pod)):
            raise Problem(404, "pod not found")
        if action == "terminate":
            await self._terminate(pod, caller, way)
            return pod
        if action not in pod.actions:
            raise Problem(409, f"action {action!r} is not valid for a pod in status {pod.status}")
        if pod.locked and action == "stop":
            raise Problem(409, "pod is locked")
        await pod.act(action, f"{caller.kind}: {way} {action}")
        return pod

    def check_may(self, caller: Caller, pod_id: str, way: Way) -> None:
        """Whether a caller may act on a pod. Raises Problem 403."""
        if caller.pod is None:
            return
        if caller.pod != pod_id or way in self.mishaps.faults.pod_key_refused:
            raise Problem(403, "access denied")

    async def _terminate(self, pod: Pod, caller: Caller, way: Way) -> None:
        faults, due = self.mishaps.faults, self.mishaps.due
        if faults.delete_faults_for in (caller.kind, "all"):
            if due("delete_500"):
                raise Problem(500, "internal server error")
            if due("delete_403"):
                raise Problem(403, "access denied")
            if due("delete_404"):
                raise Problem(404, "pod not found")
            if due("delete_ignored"):
                return
        said = {"action": "action terminate", "delete": "DELETE", "graphql": "podTerminate"}[way]
        ending = asyncio.ensure_future(pod.terminate(f"{caller.kind}: {said}"))
        await asyncio.wait([ending], timeout=LONGEST_WAIT_S)
        if faults.delete_faults_for in (caller.kind, "all") and due("delete_lost"):
            raise AnswerLost(f"{said} ended {pod.id}")

    def _mounted(self) -> set[str]:
        """The volumes that pods have now."""
        return {
            pod.asked.network.volume_id for pod in self.pods.values() if pod.asked.network and not pod.gone.is_set()
        }

    async def close(self, said: str) -> None:
        """End every pod."""
        await asyncio.gather(*(pod.terminate(said) for pod in self.pods.values()))
        await asyncio.gather(*(pod.cleared() for pod in self.pods.values()))
