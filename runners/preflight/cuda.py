"""The CUDA that the engine is built for against the one that the machine's driver knows."""

from __future__ import annotations

from collections.abc import Iterator

from provisioners.accelerators import Machine
from provisioners.contract import Finding
from runners.preflight.question import Question


def findings(question: Question, machine: Machine) -> Iterator[Finding]:
    """A driver runs what is built for its own major release of CUDA, or an older one; newer minor ones too.

    NVIDIA, CUDA Compatibility, "Minor Version Compatibility": code that needs to be compiled by the driver (PTX) is
    the exception, hence the warning.
    """
    needed = question.engine.cuda(question.version) if machine.count else None
    if needed is None:
        return
    what = f"{question.engine.known_as} {question.version} comes with CUDA {needed}"
    if machine.cuda is None:
        if question.billable:
            message = f"{what}; only hosts with such a driver are asked for"
            yield Finding(level="ok", code="cuda", message=message, numbers={"needed": needed})
        return
    numbers = {"needed": needed, "driver": machine.cuda}
    has = f"the machine's driver knows {machine.cuda}"
    if _release(machine.cuda) >= _release(needed):
        yield Finding(level="ok", code="cuda", message=f"{what}; {has}", numbers=numbers)
    elif _release(machine.cuda)[0] >= _release(needed)[0]:
        message = f"{what}; {has}, which runs it, but for code that the driver has to compile"
        yield Finding(level="warn", code="cuda", message=message, numbers=numbers)
    else:
        yield Finding(
            level="block",
            code="cuda",
            message=f"{what}; {has}",
            suggestion="update its driver, or take another machine",
            numbers=numbers,
            quote="CUDA driver version is insufficient for CUDA runtime version",
            path="engine.version",
        )


def _release(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)
