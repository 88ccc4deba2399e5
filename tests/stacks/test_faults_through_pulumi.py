"""Whatever goes wrong with a rented machine, also through Pulumi nothing bills at the end.

The engine is a double that speaks Pulumi's protocol; the dynamic provider's process and the Automation API are real.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.emulators.pulumi import install_engine
from tests.emulators.runpod import RunPod
from tests.fault_matrix import MATRIX, SHORT, Fault
from tests.fault_play import play
from tests.test_faults import SECRET, leaked
from tests.test_rented import UP, image, runpod

__all__ = ["image", "runpod"]
CONCERNED = [fault for fault in MATRIX if not fault.mishap]
"""What happens to a pod that runs does not pass through Pulumi."""
THROUGH = [*UP, "--set", "secrets=[HF_TOKEN]", "--set", "resources.provisioner=pulumi"]


@pytest.fixture
def engine(tmp_path: Path) -> dict[str, str]:
    """The environment in which `pulumi` is the double."""
    return {"PATH": os.pathsep.join([str(install_engine(tmp_path / "engine")), os.environ["PATH"]])}


def with_time_for_pulumi(fault: Fault) -> Fault:
    """The same: a deadline that holds for a pod of itself is too short for one that an engine asks for."""
    settings = tuple("limits.deadlines.provision=25s" if one == SHORT[0] else one for one in fault.settings)
    return replace(fault, settings=settings)


@pytest.mark.real
@pytest.mark.parametrize("fault", CONCERNED, ids=lambda fault: fault.what)
def test_nothing_bills_after(fault: Fault, recipe: Command, runpod: RunPod, book: Path, engine: dict[str, str]) -> None:
    played = play(with_time_for_pulumi(fault), recipe, runpod, THROUGH, book, HF_TOKEN=SECRET, **engine)
    assert played.status in fault.codes, played.said
    assert fault.says in played.said
    assert len(runpod.ledger()) == fault.pods
    assert runpod.billing == []
    assert leaked(recipe.home, played.said, SECRET, runpod.key) == []
    if not fault.pods:
        stacks = recipe.home / "pulumi" / "state" / ".pulumi" / "stacks"
        assert list(stacks.rglob("*.json")) == [], "a run that got no machine leaves no stack"
