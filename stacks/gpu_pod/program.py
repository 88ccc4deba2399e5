"""The stack's program: a unique name and the pod that bears it; and that of a run that has a stack of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi import Output

from provisioners.processes import this_one
from recipes.errors import UsageError
from stacks.gpu_pod.pod import GpuPod, PodName, PodNameProvider, PodsTimeProvider, pod_name
from stacks.holding import UPDATED_BY, in_stack
from stacks.orders import Request, pack, unpack
from stacks.unique import UniqueName

POD = "pod"
_LONG_AGO = "2000-01-01T00:00:00+00:00"


def run(inputs: Mapping[str, Any]) -> None:
    """The pod of `inputs`, as runners.stacking.gpu_pod makes them. Secrets are read from the environment by name."""
    wanted = inputs["wanted"]
    words = {"owner": inputs["owner"], "recipe": inputs["recipe"]}
    asks = {"provisioner": str(inputs["provisioner"])}
    unique = UniqueName(
        "name", keepers=wanted, lasts_s=inputs["lasts_s"], words=words, provider=PodsTimeProvider(), asks=asks
    )
    run_id = Output.concat(unique.words["recipe"], "-", unique.stamp, "-", unique.suffix)
    name = Output.all(unique.words["owner"], run_id, unique.deadline).apply(lambda made: pod_name(*made))
    order = pack(unpack(inputs["order"]).with_env(_secrets(inputs["secrets"])))
    common = {"provisioner": inputs["provisioner"], "run": run_id}
    named = PodName(PodNameProvider(), "pod-name", unique_name=name, **common)
    pod = GpuPod(
        POD,
        unique_name=named.unique_name,
        **common,
        deadline=unique.deadline,
        made_at=unique.made_at,
        order=order,
        wanted=wanted,
        max_price=inputs.get("max_price"),
        release_s=inputs.get("release_s"),
        details=in_stack(pulumi.get_project(), pulumi.get_stack()),
    )
    _export(pod)
    pulumi.export(UPDATED_BY, list(this_one()))
    pulumi.export("ssh", pod.lease.apply(lambda lease: f"recipe ssh {lease['run_id']}"))


def run_request(request: Request, *, provisioner: str, first: bool) -> None:
    """The pod of one order whose lease has its name already, as of a run; `first` if nobody can have asked for it."""
    lease = request.order.lease
    pod = GpuPod(
        POD,
        provisioner=provisioner,
        unique_name=lease.name,
        run=lease.run_id,
        deadline=lease.deadline.isoformat() if lease.deadline else "",
        made_at=None if first else _LONG_AGO,
        order=pack(request),
        wanted={"run": lease.run_id},
        max_price=request.order.max_price_usd_per_h,
        details=lease.details,
    )
    _export(pod)


def _export(pod: GpuPod) -> None:
    lease = pod.lease
    pulumi.export("lease", lease)
    for name in ("id", "name", "price_usd_per_h", "deadline"):
        pulumi.export(name, lease[name])
    pulumi.export("run", lease["run_id"])


def _secrets(names: list[str]) -> dict[str, str]:
    """Raises UsageError where one is not in the environment."""
    for name in names:
        if not os.environ.get(name):
            raise UsageError(f"secret {name} is not in the environment", advice=f"export {name}=…")
    return {name: os.environ[name] for name in names}
