"""A matrix: one recipe, many runs."""

from __future__ import annotations

import pytest

from tests.recipes.conftest import MINIMAL, Folder


def settings_of(here: Folder, matrix: str) -> list[dict[str, object]]:
    return [run.variant for run in here.runs(f"{MINIMAL}matrix:\n  {matrix}\n")]


def test_without_a_matrix_there_is_one_run(here: Folder) -> None:
    assert here.run(MINIMAL).variant == {}


def test_there_is_one_run_per_combination_named_by_what_it_sets(here: Folder) -> None:
    runs = here.runs(MINIMAL + "matrix: {workload.concurrency: [1, 8], engine.args.a: [x, y z]}\n")
    assert [run.recipe.name for run in runs] == [
        "mine.concurrency-1.a-x",
        "mine.concurrency-1.a-y-z",
        "mine.concurrency-8.a-x",
        "mine.concurrency-8.a-y-z",
    ]
    assert [(run.recipe.workload.concurrency, run.recipe.engine.args["a"]) for run in runs] == [
        (1, "x"),
        (1, "y z"),
        (8, "x"),
        (8, "y z"),
    ]
    assert len({run.digest for run in runs}) == 4


def test_axes_may_be_sections_and_entries_of_lists(here: Folder) -> None:
    here.write("Another text.", "b.txt")
    runs = here.runs(
        MINIMAL + "matrix:\n  workload.inputs[0]: [a.txt, b.txt]\n  engine: [{args: {a: 1}}, {name: vllm}]\n"
    )
    assert [(run.recipe.workload.inputs[0][-5:], run.recipe.engine.name) for run in runs] == [
        ("a.txt", "llamacpp"),
        ("a.txt", "vllm"),
        ("b.txt", "llamacpp"),
        ("b.txt", "vllm"),
    ]


def test_exclude_drops_and_include_adds(here: Folder) -> None:
    matrix = """engine.args.a: [1, 2]
  workload.concurrency: [4, 8]
  exclude: [{engine.args.a: 1, workload.concurrency: 8}]
  include: [{workload.concurrency: 99}]"""
    assert settings_of(here, matrix) == [
        {"engine.args.a": 1, "workload.concurrency": 4},
        {"engine.args.a": 2, "workload.concurrency": 4},
        {"engine.args.a": 2, "workload.concurrency": 8},
        {"workload.concurrency": 99},
    ]


def test_include_alone_lists_the_runs(here: Folder) -> None:
    assert settings_of(here, "include: [{workload.seed: 1}, {workload.seed: 2}]") == [
        {"workload.seed": 1},
        {"workload.seed": 2},
    ]


def test_a_matrix_is_inherited_and_can_be_set(here: Folder) -> None:
    here.write(MINIMAL + "matrix: {workload.seed: [1, 2]}\n", "base.yaml")
    assert len(here.runs("extends: base.yaml\n")) == 2
    assert len(here.runs("extends: base.yaml\nmatrix: {workload.concurrency: [1, 2]}\n")) == 4
    assert len(here.runs(MINIMAL, "matrix={workload.seed: [1, 2, 3]}")) == 3


@pytest.mark.parametrize(
    ("matrix", "problem"),
    [
        ("[1, 2]", "mine.yaml:4:9 matrix: must be a mapping of paths to lists"),
        ("", "mine.yaml:4:8 matrix: must be a mapping of paths to lists"),
        ("{}", "mine.yaml:4:9 matrix: no run is left"),
        ("{workload.seed: []}", "mine.yaml:4:25 matrix.workload.seed: must be a list with at least one entry"),
        ("{workload.seed: 7}", "mine.yaml:4:25 matrix.workload.seed: must be a list"),
        ("{include: []}", "matrix.include: must be a list with at least one entry"),
        ("{include: [7]}", "matrix.include[0]: must be a mapping of paths to values"),
        ("{include: [{}]}", "matrix.include[0]: must be a mapping of paths to values"),
        ("{workload.chunk_siz: [9]}", "workload.chunk_siz: unknown key; did you mean chunk_size?"),
        ("{workload.chunk_size: [big]}", "workload.chunk_size: must be a whole number, not the text 'big'"),
        ("{include: [{workload.seeed: 1}]}", "workload.seeed: unknown key; did you mean seed?"),
        ('{"": [1]}', "'': not a path"),
        ('{"..": [1]}', "'..': not a path"),
        ("{name.x: [1]}", "name.x: there is no x in it"),
        ('{"workload.inputs[5]": [a]}', "workload.inputs[5]: the list has only 1 entry"),
        ("{matrix: [1]}", "matrix: can be written in a recipe file only"),
        ("{extends: [local-smoke]}", "extends: can be written in a recipe file only"),
        (
            "{workload.seed: [1], exclude: [{workload.sed: 1}]}",
            "workload.sed is not an axis; did you mean workload.seed?",
        ),
        (
            "{workload.seed: [1, 2], exclude: [{workload.seed: 1}, {workload.seed: 2}]}",
            "no run is left; loosen exclude",
        ),
    ],
)
def test_refuses_with_its_place(here: Folder, matrix: str, problem: str) -> None:
    (found,) = here.problems(f"{MINIMAL}matrix: {matrix}\n")
    assert found.startswith("mine.yaml:4:")
    assert problem in found


def test_everything_that_is_wrong_with_a_matrix_is_reported_at_once(here: Folder) -> None:
    matrix = "{workload.seed: 7, engine.args.a: [], include: [7], exclude: [x]}"
    assert len(here.problems(f"{MINIMAL}matrix: {matrix}\n")) == 4


def test_a_problem_of_all_runs_is_reported_once(here: Folder) -> None:
    text = MINIMAL.replace("]}", "], max_tokns: 5}") + "matrix: {workload.seed: [1, 2, 3]}\n"
    assert here.problems(text) == ["mine.yaml:3:29 workload.max_tokns: unknown key; did you mean max_tokens?"]


def big(size: int) -> str:
    return f"{MINIMAL}matrix: {{workload.seed: {list(range(size))}}}\n"


def test_more_than_a_thousand_runs_need_a_word(here: Folder) -> None:
    assert here.problems(big(1001)) == [
        "mine.yaml:4:9 matrix: 1,001 runs, more than 1,000; narrow an axis, or say --yes if you mean it"
    ]
    assert len(here.runs(big(1001), any_size=True)) == 1001


def test_a_matrix_of_millions_is_refused_without_being_made(here: Folder) -> None:
    axes = ", ".join(f"engine.args.a{i}: {list(range(10))}" for i in range(12))
    (problem,) = here.problems(f"{MINIMAL}matrix: {{{axes}}}\n")
    assert "1,000,000,000,000 runs" in problem


def test_included_runs_count_too(here: Folder) -> None:
    text = f"{MINIMAL}matrix: {{workload.seed: {list(range(1000))}, include: [{{workload.seed: -1}}]}}\n"
    (problem,) = here.problems(text)
    assert "1,001 runs" in problem
