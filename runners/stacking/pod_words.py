"""A pod's stack in people's words: what it is, what it costs, and what of it bills."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from provisioners.contract import Lease
from provisioners.naming import read_name
from recipes.units import format_duration
from runners.stacking.billing import Billing
from runners.stacking.pod_journal import of_other_backends, open_entry, proof_of
from stacks.holding import ELSEWHERE
from stacks.orders import lease_of, unpack
from stacks.reference import StackRef
from stacks.values import Changes

_MAKES = ("create", "replace")
_ROUNDING_USD = 0.005
THEIRS = "it was rented from another computer, whose key alone opens it"
"""Of a pod that this machine cannot log in to."""


def costs(inputs: Mapping[str, Any], changes: Changes, outputs: Mapping[str, Any]) -> list[str]:
    """What a new pod costs by the hour and at most; nothing if none is made."""
    step, name = changes.of("GpuPod"), changes.of("UniqueName")
    if step is None or step.op not in _MAKES:
        return []
    lines = _prices(inputs)
    if name is not None and name.op not in _MAKES:
        lines.append("a pod that an earlier update asked for is taken over, with the price and the end that it has")
    return lines


def _prices(inputs: Mapping[str, Any]) -> list[str]:
    price, before = inputs.get("usd_per_h"), inputs.get("was_usd_per_h")
    lasts = format_duration(max(60, round(inputs["lasts_s"] / 60) * 60))
    if price is None:
        return [f"nobody says what it costs by the hour; it lets itself go after {lasts}"]
    dearest, most = _at_worst(inputs, price)
    was = f" (it was ${before:.2f}/h when it was planned)" if before is not None else ""
    said = f"${price:.2f}/h{was} until it is destroyed; it lets itself go after {lasts}: ${most:.2f} at most"
    return [said, *([f"if that cannot be had, up to ${dearest:.2f}/h"] if dearest > price + _ROUNDING_USD else [])]


def _at_worst(inputs: Mapping[str, Any], price: float) -> tuple[float, float]:
    """What the dearest offer that may be taken costs by the hour, and what any of them can cost in all."""
    request, hours = unpack(inputs["order"]), inputs["lasts_s"] / 3600
    limit = inputs.get("max_price")
    prices = [price, *(offer.usd_per_h for offer in request.offers if offer.usd_per_h)]
    allowed = [one for one in prices if limit is None or one <= limit]
    dearest = max(allowed, default=price)
    most = dearest * hours
    return dearest, most if request.max_cost_usd is None else min(most, max(request.max_cost_usd, price * hours))


def known(outputs: Mapping[str, Any]) -> Mapping[str, Any]:
    """As they are."""
    return outputs


def told(outputs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The pod, its price, its end and the way in."""
    if not outputs.get("lease"):
        return []
    lease = lease_of(outputs["lease"])
    return [
        ("pod", f"{lease.id}   {lease.name}"),
        ("hardware", " ".join(filter(None, [lease.details.get("gpu"), lease.details.get("cloud")]))),
        ("price", price_of(lease)),
        ("ends itself", until(lease)),
        ("shell", f"recipe ssh {lease.run_id}" if _has_key(lease) else THEIRS),
    ]


def _has_key(lease: Lease) -> bool:
    entry = open_entry(lease)
    return entry is not None and not entry.lease.details.get(ELSEWHERE)


def billing(outputs: Mapping[str, Any]) -> Billing | None:
    """The pod. Its machine ends it at its deadline, also where nobody looks."""
    if not outputs.get("lease"):
        return None
    lease = lease_of(outputs["lease"])
    return Billing(
        what=told_of(lease),
        id=lease.id or "",
        usd_per_h=lease.usd_per_h,
        until=lease.deadline,
        gone=proof_of(lease),
        way_out=_way_out(lease),
    )


def _way_out(lease: Lease) -> str:
    """What ends it without Pulumi: from here, if it was rented here."""
    said = read_name(lease.name)
    if said is None or open_entry(lease):
        return f"recipe down {lease.run_id} ends it without Pulumi"
    return (
        f"recipe reap --owner {said.owner} lists it, and with --yes ends it without Pulumi, with all of {said.owner}'s"
    )


def told_of_others(ref: StackRef) -> list[str]:
    """Pods of a stack of this name in another backend."""
    return [
        f"{told_of(lease)} is of a stack {ref} too, whose state lies in {url}: recipe down {lease.run_id} ends it"
        for lease, url in of_other_backends(ref)
    ]


def told_of(lease: Lease) -> str:
    over = lease.deadline is not None and lease.deadline <= datetime.now(UTC)
    end = f", which was to end by itself at {until(lease)}" if over else f" until {until(lease)}"
    return f"pod {lease.id or '?'} ({lease.name}) at {price_of(lease)}{end}"


def price_of(lease: Lease) -> str:
    return f"${lease.usd_per_h:.2f}/h" if lease.usd_per_h is not None else "a price that nobody says"


def until(lease: Lease) -> str:
    return f"{lease.deadline.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if lease.deadline else "somebody ends it"
