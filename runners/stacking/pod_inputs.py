"""What a pod's stack is run with: a recipe's plan, or the last one at the prices of now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from provisioners.contract import Lease, Offer
from provisioners.named import underlying_of
from provisioners.naming import owner_name
from provisioners.preflight import clear
from recipes.errors import ExitCode, NoMachine, UsageError
from recipes.load import LoadedRecipe
from recipes.spec import Limits
from runners import registry
from runners.budget import lease_deadline
from runners.ordering import boot_env, order_with
from runners.plan import Plan
from runners.planning import make_plan
from runners.stacking.program import StackOptions
from stacks.orders import Request, digest_of, pack, unpack
from stacks.provisioner import PulumiProvisioner
from stacks.reference import StackRef

_NOT_WANTED = {"provisioner", "retry", "hosts", "ssh_key", "jump_host", "price_per_hour", "price_per_kwh"}
"""Of a recipe's resources: what makes no other pod."""
_WAS = "was_usd_per_h"
"""What it cost when it was planned, where that has changed."""
_CENT_USD = 0.005


async def inputs(
    recipes: Sequence[LoadedRecipe],
    ref: StackRef,
    options: StackOptions,
    env: Mapping[str, str],
    before: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What `stacks.gpu_pod.program` is run with, after the checks that a run of the recipe would have to pass."""
    if options.size_gb is not None or options.region is not None or options.fill or options.volume:
        raise UsageError(
            "--size, --region, --fill and --volume are the model cache's", advice="recipe stack up model_cache"
        )
    if not recipes:
        if before is None:
            raise UsageError(f"stack {ref}: nobody has said whose pod it is", advice=f"recipe stack up {ref} RECIPE")
        return await _as_before(before)
    if len(recipes) > 1:
        advice = f"one stack for each, such as {ref.program}/{recipes[0].recipe.name}"
        raise UsageError(f"stack {ref} holds one pod, and these are {len(recipes)} recipes", advice=advice)
    plan = await make_plan(recipes[0], env, forced=options.forced)
    if plan.no_machine is not None and plan.exit_code == ExitCode.NO_MACHINE:
        raise plan.no_machine
    return _inputs(plan, env)


def _inputs(plan: Plan, env: Mapping[str, str]) -> dict[str, Any]:
    recipe, clearance, now = plan.recipe, clear(plan.findings), datetime.now(UTC)
    deadline = lease_deadline(recipe.limits, plan.offer.usd_per_h, now, billable=plan.provisioner.billable)
    if not plan.provisioner.billable or deadline is None:
        message = f"provisioner {plan.provisioner.name} rents no machine that a stack could hold"
        raise UsageError(message, advice="add --set resources.provisioner=runpod")
    given = boot_env(plan, env)
    secrets = sorted(set(given) & set(recipe.secrets))
    nameless = Lease(provider=PulumiProvisioner.name, name="", run_id="")
    told = {name: value for name, value in given.items() if name not in secrets}
    lasts_s = round((deadline.at - now).total_seconds())
    order = order_with(plan, plan.offer, nameless, told)
    order = replace(order, idle_s=recipe.limits.idle_duration or float(lasts_s))
    wanted = {
        **recipe.resources.model_dump(mode="json", exclude_defaults=True, exclude=_NOT_WANTED),
        "recipe": recipe.name,
        "makes ready": digest_of(order.boot),
        "ports": list(order.ports),
        "limits": recipe.limits.model_dump(mode="json", include={"max_cost", "max_duration", "idle_duration"}),
    }
    return {
        "recipe": recipe.name,
        "owner": owner_name(env),
        "provisioner": underlying_of(plan.provisioner),
        "order": pack(Request.of(order, clearance, plan.offers, max_cost_usd=recipe.limits.max_cost)),
        "secrets": secrets,
        "wanted": _without_nothing(wanted),
        "lasts_s": lasts_s,
        "max_price": recipe.limits.max_price,
        "usd_per_h": plan.offer.usd_per_h,
        "provision_s": recipe.limits.deadlines.provision,
        "release_s": recipe.limits.deadlines.release,
    }


async def _as_before(before: Mapping[str, Any]) -> dict[str, Any]:
    """The last wish, at the prices of now; at the last ones where nothing of it is offered, or nobody can be asked.

    A pod that runs needs no offer; for another one these are asked for again when it is bought.
    """
    inputs, request = {name: value for name, value in before.items() if name != _WAS}, unpack(before["order"])
    planned = {_hardware(offer) for offer in request.offers}
    try:
        found = await registry.provisioner(str(before["provisioner"])).offers(request.order.resources)
    except NoMachine:
        return inputs
    offers = [offer for offer in found if _hardware(offer) in planned]
    allowed = [one for one in offers if before.get("max_price") is None or (one.usd_per_h or 0) <= before["max_price"]]
    if not allowed:
        return inputs
    return {**inputs, **_priced(inputs, request, [*allowed, *(one for one in offers if one not in allowed)])}


def _priced(inputs: Mapping[str, Any], request: Request, offers: Sequence[Offer]) -> dict[str, Any]:
    """The inputs that another price changes; the first offer is the one that is asked for first."""
    limits = Limits.model_validate(inputs["wanted"].get("limits") or {})
    now, was = datetime.now(UTC), _price_of(inputs)
    price = offers[0].usd_per_h
    deadline = lease_deadline(limits, price, now, billable=True)
    lasts_s = round((deadline.at - now).total_seconds()) if deadline is not None else inputs["lasts_s"]
    order = replace(request.order, offer=offers[0], idle_s=limits.idle_duration or float(lasts_s))
    packed = pack(Request.of(order, request.clearance, offers, max_cost_usd=limits.max_cost))
    changed = was is not None and price is not None and abs(price - was) >= _CENT_USD
    return {"order": packed, "usd_per_h": price, "lasts_s": lasts_s, **({_WAS: was} if changed else {})}


def _price_of(inputs: Mapping[str, Any]) -> float | None:
    price = inputs.get("usd_per_h")
    return None if price is None else float(price)


def _hardware(offer: Offer) -> tuple[object, ...]:
    """What was judged, whatever it costs."""
    return offer.id, offer.count, offer.cloud, offer.region, offer.spot


def _without_nothing(data: Any) -> Any:
    """Plain data without what is None: Pulumi does not keep it, and would see a change in it."""
    if isinstance(data, dict):
        return {key: _without_nothing(value) for key, value in data.items() if value is not None}
    return [_without_nothing(value) for value in data] if isinstance(data, list | tuple) else data
