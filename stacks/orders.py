"""An order as one text, so that another process can ask for the machine: what a run's own client would ask for.

The text may hold secrets, in the environment of the machine's jobs: it travels as a Pulumi secret, and nowhere else.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from provisioners.contract import Boot, BootJob, Clearance, Finding, Lease, Offer, Order, Remedy
from provisioners.preflight import clear
from recipes.spec import Resources


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for: one order, the offers that will do, and the permission."""

    order: Order
    offers: tuple[Offer, ...]
    """In the order in which they are tried."""
    clearance: Clearance
    max_cost_usd: float | None = None
    """What the machine may cost in all, whichever offer is had: a dearer one ends sooner."""

    @classmethod
    def of(
        cls, order: Order, clearance: Clearance, offers: Sequence[Offer] = (), *, max_cost_usd: float | None = None
    ) -> Self:
        """The order's own offer alone, if no others are named."""
        offers = tuple(offers) or (order.offer,)
        return cls(order=order, offers=offers, clearance=clearance, max_cost_usd=max_cost_usd)

    def order_for(self, offer: Offer) -> Order:
        """The same order with another offer; its lease says what that costs, and when its machine ends itself."""
        price, storage = offer.price_usd_per_h, offer.storage_usd_per_h
        lease = replace(self.order.lease, price_usd_per_h=price, storage_usd_per_h=storage)
        return replace(self.order, offer=offer, lease=self.within_budget(lease))

    def within_budget(self, lease: Lease) -> Lease:
        """The same, ending itself before it has cost more than it may from now on; never later than it did."""
        if self.max_cost_usd is None or not lease.usd_per_h:
            return lease
        spent_at = datetime.now(UTC) + timedelta(hours=self.max_cost_usd / lease.usd_per_h)
        spent_at = spent_at.replace(microsecond=0)
        return replace(lease, deadline=spent_at if lease.deadline is None else min(lease.deadline, spent_at))

    def with_lease(self, lease: Lease) -> Self:
        """The same, under another name."""
        return replace(self, order=replace(self.order, lease=lease))

    def with_env(self, env: Mapping[str, str]) -> Self:
        """The same, with more in the environment of the machine's jobs."""
        boot = replace(self.order.boot, env={**self.order.boot.env, **env})
        return replace(self, order=replace(self.order, boot=boot))


def pack(request: Request) -> str:
    """One text; the same request gives the same text."""
    order = request.order
    data = {
        "offers": [asdict(offer) for offer in request.offers],
        "offer": asdict(order.offer),
        "lease": lease_data(order.lease),
        "resources": order.resources.model_dump(mode="json"),
        "boot": {
            "files": dict(order.boot.files),
            "jobs": [asdict(job) for job in order.boot.jobs],
            "env": dict(order.boot.env),
        },
        "max_price_usd_per_h": order.max_price_usd_per_h,
        "idle_s": order.idle_s,
        "ports": list(order.ports),
        "min_cuda": order.min_cuda,
        "max_cost_usd": request.max_cost_usd,
        "findings": [_finding_data(finding) for finding in request.clearance.findings],
    }
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def unpack(text: str) -> Request:
    """What `pack` was given. Raises Refused if its findings hold a block, and ValueError for a text that is none."""
    try:
        data = json.loads(gzip.decompress(base64.b64decode(text, validate=True)))
    except (OSError, EOFError, zlib.error, ValueError):
        raise ValueError("the order cannot be read") from None
    boot = data["boot"]
    jobs = tuple(BootJob(name=job["name"], argv=tuple(job["argv"])) for job in boot["jobs"])
    order = Order(
        offer=Offer(**data["offer"]),
        lease=lease_of(data["lease"]),
        resources=Resources.model_validate_json(json.dumps(data["resources"])),
        boot=Boot(files=boot["files"], jobs=jobs, env=boot["env"]),
        max_price_usd_per_h=data["max_price_usd_per_h"],
        idle_s=data["idle_s"],
        ports=tuple(data["ports"]),
        min_cuda=data["min_cuda"],
    )
    clearance = clear(_finding_of(finding) for finding in data["findings"])
    offers = (Offer(**offer) for offer in data["offers"])
    return Request.of(order, clearance, tuple(offers), max_cost_usd=data.get("max_cost_usd"))


def lease_data(lease: Lease) -> dict[str, Any]:
    """A lease as plain data; it holds no secret."""
    return {**asdict(lease), "deadline": lease.deadline.isoformat() if lease.deadline else None}


def lease_of(data: Mapping[str, Any]) -> Lease:
    """What `lease_data` was given."""
    deadline = data.get("deadline")
    return Lease(**{**data, "deadline": datetime.fromisoformat(deadline) if deadline else None})


def digest_of(boot: Boot) -> str:
    """Of what a machine makes ready: its engine and its model; not of the scripts that do it, nor of any secret."""
    asked = {name: text for name, text in boot.files.items() if "/" not in name and name.endswith(".json")}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


def _finding_data(finding: Finding) -> dict[str, Any]:
    return {**asdict(finding), "numbers": dict(finding.numbers)}


def _finding_of(data: Mapping[str, Any]) -> Finding:
    works = tuple(Remedy(**{**remedy, "overrides": tuple(remedy["overrides"])}) for remedy in data["works"])
    return Finding(**{**data, "works": works})
