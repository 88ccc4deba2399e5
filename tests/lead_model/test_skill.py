"""What the model that ships with recipe can do: answer with a document's first sentence, on documents it never saw."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from tests.conftest import Command

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "recipes" / "models" / "lead"
DOCUMENTS = 20


def sentences() -> list[str]:
    """Of the catalogue's texts, which were written for it and are in no training corpus of this model."""
    text = " ".join(path.read_text() for path in sorted((ROOT / "recipes" / "texts").glob("*.txt")))
    return re.split(r"(?<=[.!?])\s+", " ".join(text.split()))


def write_documents(folder: Path, tokens: int) -> dict[str, str]:
    """Documents of about so many tokens, each in a random order of its own; returns the first sentence of each."""
    tokenizer, rng = Tokenizer.from_file(str(MODEL / "tokenizer.json")), random.Random(tokens)
    leads = {}
    for number in range(DOCUMENTS):
        order = rng.sample(sentences(), len(sentences()))
        count = next(n for n in range(1, len(order)) if len(tokenizer.encode(" ".join(order[:n])).ids) >= tokens)
        (folder / f"d{number}.txt").write_text(" ".join(order[:count]))
        leads[f"d{number}"] = order[0]
    return leads


@pytest.mark.parametrize("tokens", [100, 300, 500, 600])
def test_it_answers_unseen_documents_with_their_first_sentence(recipe: Command, tmp_path: Path, tokens: int) -> None:
    leads = write_documents(tmp_path, tokens)
    sizes = ["--set", "workload.chunk_size=1500", "--set", f"workload.inputs=['{tmp_path}/d*.txt']"]
    assert recipe("up", "local-smoke", *sizes).returncode == 0
    answers = {
        path.name.split("-")[0]: json.loads(path.read_text())["summary"]
        for path in (recipe.run_folder() / "outputs").glob("*.json")
    }
    assert len(answers) == DOCUMENTS
    exact = sum(answers[name] == lead for name, lead in leads.items())
    assert exact >= DOCUMENTS * 0.8, f"{exact} of {DOCUMENTS} exact"


def test_the_model_is_small_and_its_origin_is_written_down() -> None:
    assert (MODEL / "lead.gguf").stat().st_size <= 4_000_000
    training = json.loads((MODEL / "training.json").read_text())
    assert training["parameters"] < 4_000_000
    assert "PSF" in (MODEL / "PROVENANCE.md").read_text()
