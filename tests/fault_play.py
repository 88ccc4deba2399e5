"""Plays one fault: the command as a user runs it, the fault when it is due, and how it all ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.conftest import Command, eventually, whole_rows
from tests.emulators.runpod import RunPod
from tests.fault_matrix import Fault

FURTHER = 20
"""Answers that must come after a fault which the work survives."""


@dataclass(frozen=True)
class Played:
    """How it ended."""

    status: int
    said: str
    seconds: float
    """From the fault, or from the creation of the pod, until nothing billed."""
    usd: float


def play(fault: Fault, recipe: Command, runpod: RunPod, up: Sequence[str], book: Path, **env: str) -> Played:
    """Run the command through the fault; where it takes that, end the fault and reap."""
    runpod.inject(**fault.at_start)
    work = [f"workload.inputs=[{book}]"] if fault.is_late else []
    settings = [part for text in (*fault.settings, *work) for part in ("--set", text)]
    process = recipe.start(*up, *settings, env={**runpod.env, **env})
    began = None
    if fault.is_late:
        eventually(lambda: answers(recipe) >= 2, what="two answers")
        began = time.time()
        _break(fault, runpod)
        if fault.survives:
            before = answers(recipe)
            eventually(lambda: answers(recipe) >= before + FURTHER, what="further answers")
        if fault.survives or not fault.mishap:
            process.terminate()
    out, err = process.communicate(timeout=240)
    said = out + err
    if fault.then_reaped:
        assert runpod.billing, "the fault did not keep the machine"
        runpod.inject(**fault.harmless)
        reaped = recipe("reap", "--yes", env=runpod.env)
        said += reaped.stdout + reaped.stderr
        assert reaped.returncode == 0, said
    pods = runpod.ledger()
    ends = [datetime.fromisoformat(pod["billing_until"]).timestamp() for pod in pods if pod["billing_until"]]
    starts = [datetime.fromisoformat(pod["created_at"]).timestamp() for pod in pods]
    seconds = max(ends) - (began or min(starts)) if ends and starts else 0.0
    return Played(process.returncode, said, seconds, sum(pod["usd"] for pod in pods))


def _break(fault: Fault, runpod: RunPod) -> None:
    if fault.mishap:
        runpod.mishap(fault.mishap)
    else:
        runpod.inject(**fault.while_driving)


def answers(recipe: Command) -> int:
    return sum(len(whole_rows(path)) for path in recipe.home.glob("runs/*/answers.jsonl"))
