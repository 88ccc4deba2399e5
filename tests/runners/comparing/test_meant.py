"""Which runs `recipe check` and `recipe export` take: the newest of a recipe, or of each variant of its matrix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recipes.errors import UsageError
from runners.cli.named import recipe_name
from runners.comparing.meant import runs_meant
from runners.ledger import Ledger
from tests.runners.comparing.making import result


def kept(home: Path, number: int, clients: int | None, text: str = "matrix", **changes: Any) -> str:
    """A run of the recipe mx, or of a variant of its matrix, that began at this hour."""
    made = result(recipe=f"mx.clients-{clients}" if clients else "mx", **changes)
    made |= {
        "run_id": f"{made['recipe']}-20261101-{number:02}0000-0000",
        "variant": {"workload.clients": clients} if clients else {},
        "recipe_digest": f"{text}{clients}",
        "started_at": f"2026-11-01T{number:02}:00:00+00:00",
    }
    folder = home / "runs" / made["run_id"]
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(text)
    (folder / "resolved.json").write_text(json.dumps({"workload": {"clients": clients}}))
    (folder / "result.json").write_text(json.dumps(made))
    Ledger(home).insert(made, origin="x")
    return str(made["run_id"])


def meant(home: Path, *words: str) -> list[str]:
    return [folder.run_id for folder in runs_meant(home, words)]


def test_a_matrix_means_the_newest_run_of_each_variant_however_it_ended(tmp_path: Path) -> None:
    for number, (clients, text) in enumerate([(1, "older"), (3, "older"), (1, "matrix"), (2, "matrix")]):
        kept(tmp_path, number, clients, text)
    failed = {"status": "failed", "phase": "launch", "error": "no"}
    newest = [kept(tmp_path, 5, 1), kept(tmp_path, 6, 2, outcome=failed)]
    assert meant(tmp_path, "mx") == newest
    assert meant(tmp_path, "mx", newest[0], "mx.clients-2") == newest
    assert meant(tmp_path, "mx.clients-3") == ["mx.clients-3-20261101-010000-0000"]


def test_a_recipe_that_has_run_without_its_matrix_since_means_that_run(tmp_path: Path) -> None:
    kept(tmp_path, 1, None)
    assert meant(tmp_path, "mx") == ["mx-20261101-010000-0000"]
    variant = kept(tmp_path, 2, 1)
    assert meant(tmp_path, "mx") == [variant]
    assert meant(tmp_path, alone := kept(tmp_path, 3, None)) == [alone]
    assert meant(tmp_path, "mx") == [alone]
    with pytest.raises(UsageError, match="nothing: no such run"):
        meant(tmp_path, "nothing")


def test_a_recipes_file_means_the_name_that_its_runs_have(tmp_path: Path) -> None:
    (tmp_path / "slow one.yaml").write_text("engine: llamacpp\n")
    (tmp_path / "named.yml").write_text("name: quick\n")
    (tmp_path / "heir").write_text("extends: named.yml\n")
    (tmp_path / "broken.yaml").write_text("name: [")
    files = {"slow one.yaml": "slow-one", "named.yml": "quick", "heir": "quick", "broken.yaml": "broken"}
    for file, name in files.items():
        assert recipe_name(str(tmp_path / file)) == name
    words = {"gone.yaml": "gone", "~nobody-here/x.yaml": "x", "slow": "slow", "a/b": "a/b", "x/" * 3000: "x/" * 3000}
    for word, name in words.items():
        assert recipe_name(word) == name
