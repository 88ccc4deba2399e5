"""What is found of a recipe on one offer: every check, the memory, the time and the money. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from provisioners import accelerators
from provisioners.accelerators import Accelerator, Machine
from provisioners.contract import Finding, Offer
from provisioners.preflight import price_findings
from runners.case import Assessment, Memory
from runners.forecast.budget import budget_findings
from runners.forecast.forecast import forecast
from runners.forecast.values import Forecast
from runners.preflight import cuda, disk, requests
from runners.preflight.assessing import assessed
from runners.preflight.question import Question

_SIZES = frozenset({"parallelism", "tensor-parallel", "pipeline-parallel", "expert-parallel"})
_OF_MEMORY = frozenset({"weights", "kv-cache", "ram"})
_DRIVERS_GIB = 1.0
_LISTED = 0.98
"""Share of the memory that nvidia-smi lists and programs get: 96 to 99.7 % on the cards of the table."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One offer, and what follows for the run."""

    offer: Offer
    machine: Machine
    findings: tuple[Finding, ...]
    memory: Memory | None
    forecast: Forecast | None = None
    """None for an offer that is refused without it."""

    @property
    def passed(self) -> bool:
        return not any(finding.level == "block" for finding in self.findings)


def machine_of(offer: Offer) -> Machine:
    """What an offer's machine has; its accelerator's facts from the table, else from the offer's own label."""
    if not offer.count:
        return Machine(cpus=offer.cpus, ram_gib=offer.memory_gib, disk_gib=offer.disk_gib, cuda=offer.cuda)
    found = accelerators.find(offer.id) or accelerators.find(offer.accelerator or "", memory_gb=offer.memory_gib)
    if found is None:
        found = accelerators.from_label(offer.accelerator or offer.id, offer.memory_gib)
    if offer.usable_gib:
        found = replace(found, usable_gib=_usable_gib(found, offer.usable_gib))
    return Machine(accelerator=found, count=offer.count, cpus=offer.cpus, disk_gib=offer.disk_gib, cuda=offer.cuda)


def _usable_gib(known: Accelerator, reported_gib: float) -> float:
    """What programs get: a driver's list of GPUs counts some memory that it keeps for itself, so the table is better.

    A card with other memory than the table's, such as a rebuilt one, is taken at the driver's word, less that share.
    """
    low, high = known.usable_range_gib
    if low * _LISTED <= reported_gib <= max(high, known.label_gb) * (2 - _LISTED):
        return min(known.usable_gib, reported_gib)
    return reported_gib * _LISTED


def judge_offer(question: Question, offer: Offer, forced: Sequence[str] = ()) -> Judged:
    """Every check of this offer, in the order in which people read them."""
    machine = machine_of(offer)
    case = question.case(machine)
    count = list(force(_count(question, machine), forced))
    said = assessed(question.engine, case) if case else Assessment()
    said = _without_figures_of_nothing(replace(said, findings=(*count, *force(said.findings, forced))))
    findings = [*_known(machine), *said.findings, *requests.findings(question, said.memory)]
    findings += [*disk.findings(question, offer), *cuda.findings(question, machine)]
    findings += [*_busy(question, offer, said.memory), *_stock(offer), *price_findings(question.recipe, offer)]
    judged = Judged(offer=offer, machine=machine, findings=tuple(force(findings, forced)), memory=said.memory)
    if not judged.passed:
        return judged
    expected = forecast(question.situation(offer, machine, said.memory))
    limited = force(budget_findings(expected, question.recipe.limits), forced)
    return replace(judged, findings=(*judged.findings, *limited), forecast=expected)


def _without_figures_of_nothing(said: Assessment) -> Assessment:
    """Of parallel sizes that cannot be, nobody needs to know how the memory would look."""
    if not any(finding.level == "block" and finding.code in _SIZES for finding in said.findings):
        return said
    left = (finding for finding in said.findings if finding.code not in _OF_MEMORY)
    return Assessment(findings=tuple(left))


def force(findings: Iterable[Finding], codes: Sequence[str]) -> Iterator[Finding]:
    """The findings, with the blocks of these codes let pass as warnings."""
    for finding in findings:
        if finding.level == "block" and finding.code in codes:
            yield replace(finding, level="warn", message=f"{finding.message} (forced)", forced=True)
        else:
            yield finding


def _known(machine: Machine) -> Iterator[Finding]:
    accelerator = machine.accelerator
    if accelerator is None or not accelerator.assumed:
        return
    assumed = (
        f"assumed {accelerator.usable_gib:.1f} GiB of usable memory from its label, and no speed"
        if accelerator.usable_gib
        else "nobody says how much memory it has, so whether the model fits was not looked at"
    )
    yield Finding(
        level="warn",
        code="assumption",
        message=f"{accelerator.name} is not in the table of accelerators; {assumed}",
        numbers={"usable_gib": round(accelerator.usable_gib, 2)},
    )


def _count(question: Question, machine: Machine) -> Iterator[Finding]:
    spec = question.recipe.engine
    needed = spec.tensor_parallel_size * spec.pipeline_parallel_size * spec.data_parallel_size
    have = machine.count * machine.hosts
    numbers = {"needed": needed, "available": have}
    if have and needed > have:
        size = _largest_size(question, machine)
        yield Finding(
            level="block",
            code="parallelism",
            message=f"the parallel sizes need {needed} accelerators; the machine has {have}",
            suggestion=f"try --set engine.tensor_parallel_size={size}" if size else "",
            numbers=numbers,
            path="engine.tensor_parallel_size",
        )
    elif question.engine.splits_tensors and needed < have:
        size = _largest_size(question, machine)
        larger = (
            f"try --set engine.tensor_parallel_size={size}, or " if size and size > spec.tensor_parallel_size else ""
        )
        yield Finding(
            level="warn",
            code="idle-accelerators",
            message=f"{needed} of {have} accelerators are used; the others are paid for",
            suggestion=f"{larger}ask for {needed}",
            numbers=numbers,
            path="engine.tensor_parallel_size",
        )


def _largest_size(question: Question, machine: Machine) -> int | None:
    """The largest tensor parallel size with which the engine would start on this machine."""
    spec = question.recipe.engine
    share = spec.pipeline_parallel_size * spec.data_parallel_size
    for size in range(machine.count * machine.hosts // share, 0, -1):
        case = question.changed([f"engine.tensor_parallel_size={size}"]).case(machine)
        if case and not any(finding.level == "block" for finding in assessed(question.engine, case).findings):
            return size
    return None


def _busy(question: Question, offer: Offer, memory: Memory | None) -> Iterator[Finding]:
    """Programs that are on the accelerator already; a driver's own share is in nobody's way."""
    if memory is None or offer.free_gib is None or offer.free_gib >= memory.usable_gib_per_gpu - _DRIVERS_GIB:
        return
    if offer.free_gib >= memory.budget_gib_per_gpu:
        return
    yield Finding(
        level="warn",
        code="busy",
        message=f"other programs use the accelerators: {offer.free_gib:.1f} GiB are free, "
        f"and {question.engine.known_as} takes up to {memory.budget_gib_per_gpu:.1f}",
        suggestion="end them, or give the engine a smaller share",
        numbers={"free_gib": round(offer.free_gib, 2), "budget_gib": round(memory.budget_gib_per_gpu, 2)},
        path="resources.accelerators",
    )


def _stock(offer: Offer) -> Iterator[Finding]:
    if offer.stock == "none":
        there = f" in {offer.region}" if offer.region else ""
        yield Finding(
            level="warn",
            code="stock",
            message=f"the provider has no {offer.accelerator or offer.id} ×{offer.count} in stock{there} now",
            suggestion="wait for it with --set resources.retry=30m, or add fallbacks under resources.any_of",
        )
