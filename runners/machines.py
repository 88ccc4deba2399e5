"""Everything that may be billing: from the journal, from the providers, and whether a client still minds it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from provisioners.contract import Gone, Lease, MayStillBill, Provisioner, Release
from provisioners.guarded import gone_since
from provisioners.journal import Entry, Journal
from provisioners.masking import Mask
from provisioners.named import underlying_of
from provisioners.site import site_of
from recipes.errors import NoCredentials, NoMachine, RecipeError, UsageError
from runners import registry
from runners.ledger import Ledger
from runners.machine import Client, Machine
from runners.outcome import masked, release_row
from runners.run_folder import DRIVER_BEGUN
from stacks.backend import where
from stacks.holding import Place, holder_of, is_gone_on_with, is_minded, is_put_out
from stacks.kept import all_kept, outputs_of
from stacks.reference import StackRef

_STACK_S = 20.0
"""How long a stack may take to say what it holds."""


def journalled(ledger: Ledger) -> list[Machine]:
    """What this machine's journal says may be billing."""
    return [_machine(entry, ledger) for entry in Journal(ledger.path).open_leases()]


def _machine(entry: Entry, ledger: Ledger) -> Machine:
    run = ledger.run(entry.lease.run_id)
    lives = (run and run["status"] == "running") or is_minded(entry.lease)
    client: Client = "running" if lives else "gone"
    driver = (ledger.path.parent / "runs" / entry.lease.run_id / DRIVER_BEGUN).exists()
    until = gone_since(entry.lease) if client == "gone" else None
    return Machine(
        lease=entry.lease,
        client=client,
        state=entry.state,
        since=entry.asked_at,
        until=until,
        driver=driver,
        held_by=holder_of(entry, datetime.now(UTC)),
        backend=_elsewhere(entry.lease),
    )


def of_stack(ledger: Ledger, reference: str) -> Entry | None:
    """The open lease of a stack's pod, by the run that its name carries, its name, or the stack; None if none is it.

    Of several of a stack the latest. Raises UsageError for a stack of which no pod was rented from here.
    """
    for entry in reversed(Journal(ledger.path).open_leases()):
        lease = entry.lease
        if not Place.of(lease).own and reference in (lease.run_id, lease.name, lease.id):
            return entry
    entries = [entry for stack, entry in in_stacks(ledger) if str(stack) == reference]
    if not entries and (others := [one for one in in_other_backends(ledger) if str(one[0]) == reference]):
        _, entry, url = others[-1]
        message = f"the pod of stack {reference} that was rented from here is of a stack whose state lies in {url}"
        raise UsageError(message, advice=f"recipe down {entry.lease.run_id} ends it")
    if not entries and reference.partition("/")[0] == "gpu_pod":
        message = f"no pod of stack {reference} that may bill was rented from here"
        raise UsageError(message, advice=f"recipe stack destroy {reference} ends one that was rented from elsewhere")
    return entries[-1] if entries else None


def in_stacks(ledger: Ledger) -> list[tuple[StackRef, Entry]]:
    """The open leases of pods that stacks hold or were to hold, the oldest first. Another backend's are not among them.

    Its stacks may bear the same names.
    """
    return [(stack, entry) for stack, entry, url in _of_stacks(ledger) if url is None]


def in_other_backends(ledger: Ledger) -> list[tuple[StackRef, Entry, str]]:
    """The same of all other backends, and where each has its state."""
    return [(stack, entry, url) for stack, entry, url in _of_stacks(ledger) if url is not None]


def _of_stacks(ledger: Ledger) -> Iterator[tuple[StackRef, Entry, str | None]]:
    for entry in Journal(ledger.path).open_leases():
        place = Place.of(entry.lease)
        if not place.own:
            yield StackRef.of(place.project, place.name), entry, _elsewhere(entry.lease)


def _elsewhere(lease: Lease) -> str | None:
    """The backend that has the state of the lease's stack; None if it is the one of now, or nobody has said."""
    place, here = Place.of(lease), where(site_of(os.environ))
    is_here = place.backend is None or place.backend.rstrip("/") == here.rstrip("/")
    return None if place.own or is_here else place.backend


async def everywhere(ledger: Ledger, owner: str) -> tuple[list[Machine], dict[str, NoMachine]]:
    """The journal's machines and those that the providers list under this owner; and which provider could not be asked.

    A provider that has no key, and of which the journal knows nothing, is not missed. What a stack held, and somebody
    else has ended, is written down as gone.
    """
    known = {(_lister(machine.lease.provider), machine.lease.name): machine for machine in journalled(ledger)}
    names = registry.installed().provisioners
    used = {provider for provider, _ in known}
    answers = await asyncio.gather(*(_owned(name, owner) for name in names))
    silent, listed = {}, set[tuple[str, str]]()
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, NoMachine):
            if name in used or not isinstance(answer, NoCredentials):
                silent[name] = answer
            continue
        listed |= {(name, lease.name) for lease in answer}
        for lease in answer:
            machine = known.get((name, lease.name))
            if machine is None:
                known[name, lease.name] = Machine(lease=lease, client="elsewhere", state="listed")
            elif machine.lease.id is None:
                known[name, lease.name] = replace(machine, lease=_with_id(machine.lease, lease))
            elif machine.lease.id != lease.id:
                twin = _twin(machine, lease)
                known.setdefault((name, twin.lease.name), twin)
    found = dict(zip(known, await asyncio.gather(*map(_gone_on_with, known.values())), strict=True))
    unlisted = [machine for key, machine in found.items() if machine.held_by and key not in listed]
    ended = await asyncio.gather(*(_ended(machine, ledger) for machine in unlisted))
    gone = {machine.lease.name for machine, was in zip(unlisted, ended, strict=True) if was}
    return [machine for machine in found.values() if machine.lease.name not in gone], silent


def _twin(machine: Machine, listed: Lease) -> Machine:
    """Another machine of the same name. It has a name of its own here, so that the first one does not end with it.

    A client that is still asking for its machine deals with both.
    """
    lease = replace(listed, name=f"{listed.name} ({listed.id})")
    asking = machine.state == "intended"
    return Machine(lease=lease, client=machine.client if asking else "gone", state="listed")


async def _gone_on_with(machine: Machine) -> Machine:
    """Held by its stack until its deadline, if another update has gone on with it after one of here died.

    Of a machine that was not asked for from here, a stack is known that this computer has seen with it.
    """
    place, deadline = Place.of(machine.lease), machine.lease.deadline
    if deadline is not None and deadline <= datetime.now(UTC):
        return machine
    if machine.client == "elsewhere":
        return replace(machine, held_by=_seen_in(machine.lease))
    begun_to_end = machine.state in ("releasing", "may-still-bill")
    if place.own or machine.held_by or machine.backend or machine.client != "gone" or begun_to_end:
        return machine
    ref = StackRef.of(place.project, place.name)
    with suppress(Exception):  # then it is as the journal has it
        async with asyncio.timeout(_STACK_S):
            outputs = (await outputs_of(site_of(os.environ), ref)).values
        if is_gone_on_with(machine.lease, outputs):
            return replace(machine, held_by=str(ref))
    return machine


def _seen_in(lease: Lease) -> str | None:
    return next((str(ref) for ref, seen in all_kept(site_of(os.environ)) if is_put_out(lease, seen.values)), None)


async def _ended(machine: Machine, ledger: Ledger) -> bool:
    """Whether it has gone, by its provider's word and then by its proof, which the journal keeps.

    Its stack is not asked: that may hold another machine by now.
    """
    with suppress(Exception):
        provisioner = registry.provisioner(_lister(machine.lease.provider))
        if (await provisioner.observe(machine.lease)).state == "gone":
            return isinstance(await _end(machine.lease, provisioner, ledger), Gone)
    return False


def _lister(provider: str) -> str:
    """Who lists the machines of a provisioner: itself, or the one that it stands upon."""
    with suppress(RecipeError):
        return underlying_of(registry.provisioner(provider))
    return provider


def _with_id(lease: Lease, listed: Lease) -> Lease:
    """Ours, as it is listed; it stays with the provisioner that asked for it."""
    if lease.provider == listed.provider:
        return listed
    return replace(listed, provider=lease.provider, details={**listed.details, **lease.details})


def silent_rows(silent: Mapping[str, NoMachine]) -> list[dict[str, str]]:
    """Which providers could not be asked, and why."""
    return [{"provider": name, "message": e.message, "advice": e.advice} for name, e in silent.items()]


async def _owned(provider: str, owner: str) -> list[Lease] | NoMachine:
    """What it lists; an error of one provider must not keep the machines of the others from being found."""
    try:
        return await registry.provisioner(provider).owned(owner)
    except NoMachine as error:
        return error
    except Exception as error:
        return NoMachine(f"{type(error).__name__}: {error}")


async def end(machine: Machine, ledger: Ledger, *, patience_s: float = 60.0) -> Release:
    """Let a machine go; the journal knows it before and after. Never raises: another's may be waiting for its end."""
    lease = machine.lease
    try:
        provisioner = registry.provisioner(lease.provider)
    except RecipeError as error:
        return MayStillBill(error.message, error.advice or f"install the plug-in {lease.provider}")
    return await _end(lease, provisioner, ledger, patience_s)


async def _end(lease: Lease, provisioner: Provisioner, ledger: Ledger, patience_s: float = 60.0) -> Release:
    mask = Mask(os.environ.get(name, "") for name in provisioner.secrets)
    journal = Journal(ledger.path, mask)
    with suppress(Exception):  # the journal says already that it may be billing
        journal.releasing(lease)
    try:
        release = await provisioner.destroy(lease, patience_s=patience_s)
    except Exception as error:
        release = MayStillBill(f"{type(error).__name__}: {error}", provisioner.command_to_end(lease))
    if isinstance(release, MayStillBill):
        with suppress(Exception):
            entry = journal.of_run(lease.run_id)
            is_proven = entry is not None and entry.lease.name == lease.name and entry.state == "gone"
            if entry is not None and is_proven and await _may_be_gone(lease, provisioner):
                return masked(Gone(entry.proof or ""), mask)  # another process was faster
    with suppress(Exception):
        journal.released(lease, release)
    return masked(release, mask)


async def _may_be_gone(lease: Lease, provisioner: Provisioner) -> bool:
    """Whether its provider does not see it any more: what is seen after its proof makes that void."""
    return (await provisioner.observe(lease)).state in ("gone", "unknown")


async def end_all(machines: Iterable[Machine], ledger: Ledger) -> list[dict[str, Any]]:
    """Let all go at the same time; a row each, with how it ended."""

    async def one(machine: Machine) -> dict[str, Any]:
        return {**machine.row(), "release": release_row(await end(machine, ledger))}

    return await asyncio.gather(*map(one, machines))
