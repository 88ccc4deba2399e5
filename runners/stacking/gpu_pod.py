"""A recipe's pod that stays: what its stack is made of, what it costs, and how people reach it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from provisioners.contract import Gone, Lease, MayStillBill, Provisioner, Release
from provisioners.journal import Entry, Journal
from provisioners.named import underlying_of
from provisioners.naming import owner_name, read_name
from provisioners.preflight import clear
from provisioners.site import recipe_home
from recipes.errors import ExitCode, MayStillBillError, NoMachine, UsageError
from recipes.load import LoadedRecipe
from runners import registry
from runners.budget import lease_deadline
from runners.failures import waited_for
from runners.ledger import Ledger
from runners.machine import Machine
from runners.machines import end, in_stacks, journalled
from runners.ordering import boot_env, order_with
from runners.plan import Plan
from runners.planning import make_plan
from runners.stacking import pod_changes
from runners.stacking.billing import Billing, Replaced
from runners.stacking.program import StackOptions
from stacks.gpu_pod.lifecycle import ELSEWHERE
from stacks.holding import held
from stacks.orders import Request, digest_of, lease_of, pack
from stacks.provisioner import UNDERLYING, PulumiProvisioner
from stacks.reference import StackRef
from stacks.values import Changes, Heard, Unusable

_NOT_WANTED = {"provisioner", "retry", "hosts", "ssh_key", "jump_host", "price_per_hour", "price_per_kwh"}
"""Of a recipe's resources: what makes no other pod."""
_OWN = PulumiProvisioner.name
_THEIRS = "it was rented from another computer, whose key alone opens it"


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
        return dict(before)
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
    nameless = Lease(provider=_OWN, name="", run_id="")
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
        "order": pack(Request.of(order, clearance, plan.offers)),
        "secrets": secrets,
        "wanted": _without_nothing(wanted),
        "lasts_s": lasts_s,
        "max_price": recipe.limits.max_price,
        "usd_per_h": plan.offer.usd_per_h,
        "provision_s": recipe.limits.deadlines.provision,
        "release_s": recipe.limits.deadlines.release,
    }


def _without_nothing(data: Any) -> Any:
    """Plain data without what is None: Pulumi does not keep it, and would see a change in it."""
    if isinstance(data, dict):
        return {key: _without_nothing(value) for key, value in data.items() if value is not None}
    return [_without_nothing(value) for value in data] if isinstance(data, list | tuple) else data


def costs(inputs: Mapping[str, Any], changes: Changes, outputs: Mapping[str, Any]) -> list[str]:
    """What a new pod costs by the hour and at most; nothing if none is made."""
    step = changes.of("GpuPod")
    if step is None or step.op not in ("create", "replace"):
        return []
    price, hours = inputs.get("usd_per_h"), inputs["lasts_s"] / 3600
    if price is None:
        return [f"nobody says what it costs by the hour; it lets itself go after {hours:.1f} h"]
    return [
        f"${price:.2f}/h until it is destroyed; it lets itself go after {hours:.1f} h: ${price * hours:.2f} at most"
    ]


async def warnings(ref: StackRef, outputs: Mapping[str, Any], env: Mapping[str, str]) -> list[str]:
    """None: a pod that nobody holds is recipe reap's, and ends itself."""
    return []


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
        ("price", _price(lease)),
        ("ends itself", _until(lease)),
        ("shell", f"recipe ssh {lease.run_id}" if _entry(_journal(), lease) else _THEIRS),
    ]


def may_bill(outputs: Mapping[str, Any]) -> str:
    """The pod with its price."""
    found = billing(outputs)
    return found.what if found is not None else ""


def billing(outputs: Mapping[str, Any]) -> Billing | None:
    """The pod. Its machine ends it at its deadline, also where nobody looks."""
    if not outputs.get("lease"):
        return None
    lease = lease_of(outputs["lease"])
    return Billing(
        what=_told_of(lease),
        id=lease.id or "",
        usd_per_h=lease.usd_per_h,
        until=lease.deadline,
        gone=_proof_of(lease),
        way_out=_way_out(lease),
    )


def _way_out(lease: Lease) -> str:
    """What ends it without Pulumi: from here, if it was rented here."""
    said = read_name(lease.name)
    if said is None or _entry(_journal(), lease):
        return f"recipe down {lease.run_id} ends it without Pulumi"
    return (
        f"recipe reap --owner {said.owner} lists it, and with --yes ends it without Pulumi, with all of {said.owner}'s"
    )


def replaced(
    changes: Changes, before: Mapping[str, Any] | None, inputs: Mapping[str, Any], outputs: Mapping[str, Any]
) -> Replaced | None:
    """Why there is to be another pod, and which one is deleted first."""
    return pod_changes.replaced(changes, before, inputs, billing(outputs))


def left(ref: StackRef, outputs: Mapping[str, Any]) -> str:
    """Pods that were asked for from here, and that the journal has as open."""
    return " and ".join(_told_of(machine.lease) for machine in _left(ref, outputs))


async def after_up(
    ref: StackRef, inputs: Mapping[str, Any], outputs: Mapping[str, Any], env: Mapping[str, str], heard: Heard
) -> list[str]:
    """Waits until the pod can be reached; then, and only then, the stack holds it. Raises Unusable."""
    lease = lease_of(outputs["lease"])
    journal = _journal()
    entry = _entry(journal, lease)
    if entry is None or entry.lease.details.get(ELSEWHERE):
        if entry is not None:
            journal.created(held(entry.lease, ref))
        return [f"{lease.name}: {_THEIRS}; recipe stack destroy {ref} ends it from here as well"]
    provisioner = registry.provisioner(_OWN)
    if not entry.lease.details.get("reached"):
        heard(f"{lease.name}: waiting until it can be reached")
        await _reach(provisioner, entry.lease, inputs.get("provision_s"), ref, heard)
    journal.reached(held(replace(entry.lease, details={**entry.lease.details, "reached": True}), ref))
    return [f"recipe ssh {lease.run_id} opens a shell; its engine and model come by themselves"]


async def _reach(provisioner: Provisioner, lease: Lease, within_s: float | None, ref: StackRef, heard: Heard) -> None:
    advice = f"recipe stack destroy {ref} ends it; it bills {_price(lease)} until {_until(lease)}"
    try:
        async with asyncio.timeout(within_s):
            host = await provisioner.host(lease)
    except TimeoutError as error:
        waited = waited_for(error)
        what = f"{lease.name} could not be reached within limits.deadlines.provision" + (
            f": {waited}" if waited else ""
        )
        raise Unusable(what, advice=advice) from None
    except NoMachine as error:
        raise Unusable(f"{lease.name} cannot be reached: {error.message}", advice=advice) from error
    for note in host.notes:
        heard(note)
    await host.close()


async def after_failure(
    ref: StackRef, made: Sequence[Mapping[str, Any]], outputs: Mapping[str, Any], env: Mapping[str, str], heard: Heard
) -> list[str]:
    """A pod stays: the next update goes on with it."""
    return [str(lease.get("name") or lease.get("id")) for lease in made]


async def after_destroy(
    ref: StackRef, outputs: Mapping[str, Any], env: Mapping[str, str], *, alone: bool = False
) -> list[str]:
    """The proof, from the journal or from the provider itself. Raises MayStillBillError without one."""
    lease = _lease_of(ref, outputs)
    named = {lease.name} if lease is not None else set()
    machines = [machine for machine in _left(ref, {}) if not alone or machine.lease.name in named]
    found = [(machine.lease, await end(machine, _ledger())) for machine in machines]
    if lease is not None and lease.name not in [ended.name for ended, _ in found]:
        found.append((lease, await _release_of(lease)))
    for ended, release in found:
        if isinstance(release, MayStillBill):
            raise MayStillBillError(f"NOT PROVEN GONE: {_told_of(ended)}: {release.reason}", advice=release.command)
    return [release.proof for _, release in found if isinstance(release, Gone)]


async def _release_of(lease: Lease) -> Release:
    """Pulumi has done what it can."""
    if proof := _proof_of(lease):
        return Gone(proof)
    return await registry.provisioner(UNDERLYING).destroy(lease)


def _proof_of(lease: Lease) -> str:
    """The journal's, that this very pod is gone; "" if it has none. Another of its name has a proof of its own."""
    latest = _journal().of_run(lease.run_id)
    is_its = latest is not None and latest.state == "gone" and lease.id in (None, latest.lease.id)
    return (latest.proof or "") if latest is not None and is_its else ""


def _left(ref: StackRef, outputs: Mapping[str, Any]) -> list[Machine]:
    """The journal's open machines of this stack, but for the one that it puts out."""
    out, ledger = dict(outputs.get("lease") or {}), _ledger()
    names = {entry.lease.name for stack, entry in in_stacks(ledger) if stack == ref} - {out.get("name")}
    return [machine for machine in journalled(ledger) if machine.lease.name in names]


def _lease_of(ref: StackRef, outputs: Mapping[str, Any]) -> Lease | None:
    """The pod that it puts out; that of a run, whose stack bears its name, also where the state does not know it."""
    if outputs.get("lease"):
        return lease_of(outputs["lease"])
    said = read_name(ref.name)
    return Lease(provider=_OWN, name=ref.name, run_id=said.run) if said is not None else None


def _ledger() -> Ledger:
    return Ledger(Path(recipe_home()))


def _journal() -> Journal:
    return Journal(_ledger().path)


def _entry(journal: Journal, lease: Lease) -> Entry | None:
    """The pod's open lease, if this computer has asked for it."""
    entry = journal.of_run(lease.run_id)
    return entry if entry is not None and entry.open and entry.lease.name == lease.name else None


def _told_of(lease: Lease) -> str:
    over = lease.deadline is not None and lease.deadline <= datetime.now(UTC)
    end = f", which has ended by itself at {_until(lease)}" if over else f" until {_until(lease)}"
    return f"pod {lease.id or '?'} ({lease.name}) at {_price(lease)}{end}"


def _price(lease: Lease) -> str:
    return f"${lease.usd_per_h:.2f}/h" if lease.usd_per_h is not None else "a price that nobody says"


def _until(lease: Lease) -> str:
    return f"{lease.deadline.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if lease.deadline else "somebody ends it"
