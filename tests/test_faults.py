"""Whatever goes wrong with a rented machine, nothing bills at the end, and the command says how it went."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Command
from tests.emulators.runpod import RunPod
from tests.fault_matrix import MATRIX, Fault
from tests.fault_play import play
from tests.test_rented import UP, image, runpod

__all__ = ["image", "runpod"]
SECRET = "hf_a-token-that-nobody-may-see-7b1f"
PAGE = Path(__file__).parents[1] / "docs" / "machines.md"


@pytest.mark.real
@pytest.mark.parametrize("fault", MATRIX, ids=lambda fault: fault.what)
def test_nothing_bills_after(fault: Fault, recipe: Command, runpod: RunPod, book: Path) -> None:
    played = play(fault, recipe, runpod, [*UP, "--set", "secrets=[HF_TOKEN]"], book, HF_TOKEN=SECRET)
    assert played.status in fault.codes, played.said
    assert fault.says in played.said
    assert len(runpod.ledger()) == fault.pods
    assert runpod.billing == []
    assert leaked(recipe.home, played.said, SECRET, runpod.key) == []


def leaked(home: Path, said: str, *secrets: str) -> list[str]:
    """Where a secret is that should be nowhere."""
    found = ["the terminal"] if any(secret in said for secret in secrets) else []
    files = [path for path in home.rglob("*") if path.is_file()]
    return found + [str(p) for p in files if any(secret.encode() in p.read_bytes() for secret in secrets)]


def test_the_table_of_the_documentation_has_every_row() -> None:
    page = PAGE.read_text()
    assert [fault.what for fault in MATRIX if f"| {fault.what} |" not in page] == []
