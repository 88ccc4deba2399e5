"""What a run asks a provisioner for, decided before it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from provisioners.contract import Lease, Offer, Order
from provisioners.naming import lease_name, owner_name
from runners.boot import AT_BOOT, boot_of
from runners.launch import EXPOSED_PORT
from runners.plan import Plan


def order_of(plan: Plan, offer: Offer, run_id: str, deadline: datetime | None, env: Mapping[str, str]) -> Order:
    """The order for one offer; its lease has no id yet."""
    provisioner = plan.provisioner
    rented = provisioner.billable and deadline is not None
    lease = Lease(
        provider=provisioner.name,
        name=lease_name(owner_name(env), run_id, deadline) if rented and deadline else f"recipe-{run_id}",
        run_id=run_id,
        price_usd_per_h=offer.price_usd_per_h,
        storage_usd_per_h=offer.storage_usd_per_h,
        deadline=deadline,
    )
    return order_with(plan, offer, lease, boot_env(plan, env))


def order_with(plan: Plan, offer: Offer, lease: Lease, env: Mapping[str, str]) -> Order:
    """The order for one offer under this lease; `env` is that of the jobs that run before there is a client."""
    recipe = plan.recipe
    return Order(
        offer=offer,
        lease=lease,
        resources=recipe.resources,
        boot=boot_of(plan, AT_BOOT, env),
        max_price_usd_per_h=recipe.limits.max_price,
        idle_s=recipe.limits.idle_duration,
        ports=(EXPOSED_PORT,) if recipe.engine.expose else (),
        min_cuda=plan.engine.cuda(plan.engine_version or "") if offer.count else None,
    )


def host_env(plan: Plan, env: Mapping[str, str]) -> dict[str, str]:
    """What the run's commands find in their environment, secrets included."""
    recipe = plan.recipe
    hub = {"HF_ENDPOINT": env["HF_ENDPOINT"]} if env.get("HF_ENDPOINT") else {}
    return {**hub, **recipe.env, **{name: env[name] for name in recipe.secrets if name in env}}


def boot_env(plan: Plan, env: Mapping[str, str]) -> dict[str, str]:
    """Of the jobs that run before there is a client: no secret but the one that the download needs."""
    secrets = set(plan.recipe.secrets)
    needed = {"HF_TOKEN"} if plan.model.hub else set()
    return {name: value for name, value in host_env(plan, env).items() if name not in secrets - needed}
