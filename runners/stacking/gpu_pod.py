"""A recipe's pod that stays: how people reach it, and what is seen to when its stack has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from provisioners.contract import Gone, Lease, MayStillBill, Provisioner, Release
from provisioners.naming import owner_name, read_name
from recipes.errors import MayStillBillError, NoMachine
from runners import registry
from runners.failures import waited_for
from runners.machine import Machine
from runners.machines import end
from runners.stacking import pod_changes
from runners.stacking.billing import Replaced
from runners.stacking.pod_inputs import inputs
from runners.stacking.pod_journal import journal, ledger, machines_left, open_entry, proof_of
from runners.stacking.pod_words import (
    THEIRS,
    billing,
    costs,
    known,
    price_of,
    told,
    told_of,
    told_of_others,
    until,
)
from stacks.holding import ELSEWHERE, held, is_minded, minded
from stacks.orders import lease_of
from stacks.provisioner import UNDERLYING, PulumiProvisioner
from stacks.reference import StackRef
from stacks.values import Changes, Heard, Unusable

__all__ = [
    "after_destroy",
    "after_failure",
    "after_up",
    "billing",
    "costs",
    "inputs",
    "known",
    "left",
    "replaced",
    "told",
    "warnings",
]
_OWN = PulumiProvisioner.name


async def warnings(
    ref: StackRef, inputs: Mapping[str, Any], outputs: Mapping[str, Any], env: Mapping[str, str]
) -> list[str]:
    """Pods of a stack of this name in another backend; where it is new, also those that no journal here knows."""
    found = told_of_others(ref)
    if outputs:
        return found
    with suppress(NoMachine):
        known, owned = journal(), await registry.provisioner(UNDERLYING).owned(owner_name(env))
        strange = [lease for lease in owned if known.state(lease.name) is None]
        found += [f"{told_of(lease)} is yours, and was not rented from here: recipe reap shows it" for lease in strange]
    return found


def replaced(
    changes: Changes, before: Mapping[str, Any] | None, inputs: Mapping[str, Any], outputs: Mapping[str, Any]
) -> Replaced | None:
    """Why there is to be another pod, and which one is deleted first."""
    return pod_changes.replaced(changes, before, inputs, billing(outputs))


def left(ref: StackRef, outputs: Mapping[str, Any]) -> str:
    """Pods that were asked for from here, and that the journal has as open."""
    return " and ".join(told_of(machine.lease) for machine in machines_left(ref, outputs))


async def after_up(
    ref: StackRef, inputs: Mapping[str, Any], outputs: Mapping[str, Any], env: Mapping[str, str], heard: Heard
) -> list[str]:
    """Waits until the pod can be reached; then, and only then, the stack holds it.

    Raises Unusable, where another update waits for it as well NoMachine.
    """
    lease = lease_of(outputs["lease"])
    pods, entry = journal(), open_entry(lease)
    if entry is None or entry.lease.details.get(ELSEWHERE):
        if entry is not None:
            pods.created(held(entry.lease, ref))
        return [f"{lease.name}: {THEIRS}; recipe stack destroy {ref} ends it from here as well"]
    provisioner = registry.provisioner(_OWN)
    if not entry.lease.details.get("reached"):
        heard(f"{lease.name}: waiting until it can be reached")
        if is_theirs := is_minded(entry.lease, by_another=True):
            heard(f"{lease.name}: another update waits for it as well")
        else:
            pods.created(minded(entry.lease))  # nobody reaps what is waited for
        try:
            await _reach(provisioner, entry.lease, inputs.get("provision_s"), ref, heard)
        except Unusable as error:
            if is_theirs:
                raise NoMachine(error.message, advice=error.advice) from error
            raise
    pods.reached(held(replace(entry.lease, details={**entry.lease.details, "reached": True}), ref))
    return [f"recipe ssh {lease.run_id} opens a shell; its engine and model come by themselves"]


async def _reach(provisioner: Provisioner, lease: Lease, within_s: float | None, ref: StackRef, heard: Heard) -> None:
    advice = f"recipe stack destroy {ref} ends it; it bills {price_of(lease)} until {until(lease)}"
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
    try:
        for note in host.notes:
            heard(note)
    finally:
        await host.close()


async def after_failure(
    ref: StackRef, made: Sequence[Mapping[str, Any]], outputs: Mapping[str, Any], env: Mapping[str, str], heard: Heard
) -> list[str]:
    """A pod stays: the next update goes on with it."""
    return [str(lease.get("name") or lease.get("id")) for lease in made]


async def after_destroy(
    ref: StackRef, outputs: Mapping[str, Any], env: Mapping[str, str], *, alone: bool = False
) -> list[str]:
    """The proof, from the journal or from the provider itself. Raises MayStillBillError without one.

    What another update of here is making by now is its own: it is named by a MayStillBillError.
    """
    lease = _lease_of(ref, outputs)
    named = {lease.name} if lease is not None else set()
    machines = [machine for machine in machines_left(ref, {}) if not alone or machine.lease.name in named]
    theirs = [one for one in machines if one.lease.name not in named and is_minded(one.lease, by_another=True)]
    machines = [machine for machine in machines if machine not in theirs]
    found = [(machine.lease, await end(machine, ledger())) for machine in machines]
    if lease is not None and lease.name not in [ended.name for ended, _ in found]:
        found.append((lease, await _release_of(lease)))
    for ended, release in found:
        if isinstance(release, MayStillBill):
            raise MayStillBillError(f"NOT PROVEN GONE: {told_of(ended)}: {release.reason}", advice=release.command)
    proofs = [release.proof for _, release in found if isinstance(release, Gone)]
    if theirs:
        raise _made_by_another(ref, theirs, proofs)
    return proofs


def _made_by_another(ref: StackRef, theirs: Sequence[Machine], proofs: Sequence[str]) -> MayStillBillError:
    """What is told in place of the proofs alone: the stack is not empty."""
    what = " and ".join(told_of(machine.lease) for machine in theirs)
    message = "; ".join([f"another recipe stack up of stack {ref} is making {what}", *proofs])
    return MayStillBillError(message, advice=f"once it has come to its end, recipe stack destroy {ref} ends that, too")


async def _release_of(lease: Lease) -> Release:
    """Pulumi has done what it can."""
    if proof := proof_of(lease):
        return Gone(proof)
    return await registry.provisioner(UNDERLYING).destroy(lease)


def _lease_of(ref: StackRef, outputs: Mapping[str, Any]) -> Lease | None:
    """The pod that it puts out; that of a run, whose stack bears its name, also where the state does not know it."""
    if outputs.get("lease"):
        return lease_of(outputs["lease"])
    said = read_name(ref.name)
    return Lease(provider=_OWN, name=ref.name, run_id=said.run) if said is not None else None
