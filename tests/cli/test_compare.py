"""recipe compare and recipe up --repeat, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runners.ledger import Ledger
from tests.conftest import Command
from tests.runners.comparing.making import several

RECIPE = """
name: mine
extends: local-smoke
matrix:
  workload.concurrency: [1, 2]
"""


def test_what_differs_is_printed_or_given_as_one_document(recipe: Command) -> None:
    slow, fast = several([100, 101, 99, 100, 102], recipe="slow"), several([142, 143, 141, 140, 144], recipe="fast")
    Ledger(recipe.home).insert_all([*slow, *fast], origin="test")
    ended = recipe("compare", "slow", "fast")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("B is 1.42 times as fast as A")
    document = json.loads(recipe("compare", "slow", fast[0]["run_id"], "--json").stdout)
    assert document["answer"][0] == ended.stdout.splitlines()[0]
    assert [group["figures"]["output_tokens_per_s"]["median"] for group in document["groups"]] == [100, 142]
    assert document["groups"][1]["runs"] == [one["run_id"] for one in reversed(fast)]
    found = {row["metric"]: row for row in document["differences"]}
    assert found["output_tokens_per_s"]["verdict"] == "more than noise"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["nix"], "nix: no such run"),
        (["@nix"], "no run has this tag"),
        (["slow", "--sort", "spead"], "--sort spead"),
        (["slow", "--since", "once"], "--since once: not a time"),
        (["slow", "--last", "0"], "at least 1"),
    ],
)
def test_a_wrong_word_is_said_in_two_lines_with_exit_code_2(recipe: Command, words: list[str], what: str) -> None:
    Ledger(recipe.home).insert_all(several([1.0], recipe="slow"), origin="test")
    ended = recipe("compare", *words)
    assert ended.returncode == 2
    assert what in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_machine_can_not_be_kept_for_several_runs(recipe: Command) -> None:
    ended = recipe("up", "local-smoke", "--repeat", "2", "--keep")
    assert ended.returncode == 2
    assert "these are 2 runs" in ended.stderr


@pytest.mark.real
def test_repetitions_of_a_matrix_take_turns_and_are_compared_afterwards(recipe: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE)
    ended = recipe("up", "mine.yaml", "--repeat", "3")
    assert ended.returncode == 0, ended.stderr
    assert "6 runs, each recipe 3 times" in ended.stderr
    assert "max_cost holds for each run, so $6.00 at most" in ended.stderr
    assert "recipe compare mine" in ended.stdout
    rows = Ledger(recipe.home).rows(sort="started")
    assert [row.variant["workload.concurrency"] for row in rows] == [1, 2] * 3
    document = json.loads(recipe("compare", "mine", "--json").stdout)
    assert [len(group["runs"]) for group in document["groups"]] == [3, 3]
    assert document["axes"] == ["workload.concurrency"]
    assert [change["path"] for change in document["recipe_changes"]] == ["workload.concurrency"]
    # Where nothing has run before, the first of them installed the engine.
    assert [said for said in document["caveats"] if "installed the engine" not in said] == []
    assert "what differs in the recipe" in recipe("compare", "mine").stdout


@pytest.mark.real
def test_a_repetition_takes_nothing_over_from_one_that_failed(recipe: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nextends: local-smoke\n")
    failed = recipe("up", "mine.yaml", "--set", "limits.deadlines.drive=1ms")
    assert failed.returncode != 0
    assert recipe("up", "mine.yaml", "--repeat", "2").returncode == 0
    document = json.loads(recipe("compare", "mine", "--json").stdout)
    assert [len(group["runs"]) for group in document["groups"]] == [2]
    assert document["groups"][0]["left_out"] == []
