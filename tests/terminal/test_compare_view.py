"""A comparison on the screen: the answer first, within the width, every figure as the document has it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from runners.comparing import compared, groups_of
from runners.terminal.compare_figures import figure
from runners.terminal.compare_view import comparison_lines
from runners.terminal.variants_view import ordered, sort_words
from tests.runners.comparing.making import result, several

SLOW = [100.0, 101.0, 99.0, 100.5, 99.5]
FAST = [142.0, 143.0, 141.0, 142.5, 141.5]
MATRIX = {1: 100.0, 4: 180.0, 16: 250.0, 64: 240.0}


def pair(**other: Any) -> dict[str, Any]:
    results = [*several(SLOW, recipe="a-recipe-of-some-length"), *several(FAST, recipe="another-recipe", **other)]
    tree = {"workload": {"inputs": ["/x/texts/*.txt"], "concurrency": 1}}
    texts = {one["run_id"]: tree for one in results}
    texts[results[-1]["run_id"]] = {"workload": {"inputs": ["/x/texts/*.txt"], "concurrency": 4}}
    return {**compared(groups_of(results, resolved=texts)).row(), "notes": []}


def matrix(runs: int = 4) -> dict[str, Any]:
    results = [
        result(
            speed * (1 + i / 500),
            recipe=f"m.concurrency-{value}",
            variant={"workload.concurrency": value},
            ttft=0.1 * value,
        )
        for i in range(runs)
        for value, speed in MATRIX.items()
    ]
    return {**compared(groups_of(results)).row(), "notes": []}


def models() -> dict[str, Any]:
    """A matrix whose values are long."""
    names = [f"some-organisation/a-model-with-a-long-name-{size}b-instruct-awq" for size in (7, 34, 70)]
    results = [result(recipe=f"m.repo-{i}", variant={"model.repo": name}) for i, name in enumerate(names)]
    return {**compared(groups_of(results)).row(), "notes": []}


def shown(document: dict[str, Any], width: int | None = None, sort: str = "") -> list[str]:
    return [str(line) for line in comparison_lines(document, width, sort=sort)]


@pytest.mark.parametrize("width", [80, 100, 140])
def test_it_fits_the_width_whatever_is_compared(width: int) -> None:
    for document in (pair(), pair(requests={"failed": 2}), matrix(), matrix(1), models()):
        assert max(map(len, shown(document, width))) <= width


def test_the_answer_comes_first_and_every_row_says_its_verdict_in_words() -> None:
    lines = shown(pair())
    assert lines[0].startswith("B is 1.42 times as fast as A")
    speed = next(line for line in lines if line.startswith("output tok/s"))
    assert re.fullmatch(r"output tok/s +100 +142 +1\.42 +1\.\d\d–1\.\d\d +yes, better", speed)
    assert next(line for line in lines if line.startswith("TTFT p50")).endswith("the same")
    assert next(line for line in lines if line.startswith("phase drive")).endswith("yes, better")
    assert any(re.fullmatch(r"  workload\.concurrency +1 +4", line) for line in lines)


def test_phases_that_take_no_time_are_not_shown() -> None:
    assert not [line for line in shown(pair()) if line.startswith("phase release")]


def test_a_matrix_is_a_table_with_the_front_and_who_is_ahead_of_the_others() -> None:
    lines = shown(matrix())
    assert "C (concurrency 16) is the fastest: 2" in lines[0]
    rows = {line[0]: line for line in lines if re.match(r"[A-D] {2}", line)}
    assert re.fullmatch(r"A +1 +4 +100 .* 1\.00 +front", rows["A"])
    assert rows["D"].endswith("behind C")
    assert " 2.50 " in rows["C"]


def test_how_noise_was_told_is_said_of_the_table_as_a_whole() -> None:
    told = " ".join(shown(pair()))
    assert "at most 5 % of tables say yes anywhere" in told
    assert "beyond the headline" not in told
    results = [*several(SLOW[:3], recipe="a"), *several(FAST[:3], recipe="b")]
    three = shown({**compared(groups_of(results)).row(), "notes": []})
    assert "beyond the headline it takes 5 runs each" in " ".join(three)
    verdicts = {line.split("   ")[0].strip(): line.rpartition("   ")[2].strip() for line in three}
    assert verdicts["output tok/s"] == "yes, better"
    assert verdicts["phase drive"] == "cannot tell"


def test_what_is_not_told_from_noise_stands_in_brackets_and_the_brackets_are_explained() -> None:
    lines = shown(matrix(1))
    assert any(line.startswith("B") and "(1.80)" in line for line in lines)
    assert any(line.startswith("of A") and "brackets" in line for line in lines)


def test_long_values_of_an_axis_keep_what_tells_them_apart() -> None:
    rows = [line for line in shown(models(), 80) if re.match(r"[A-C] {2}", line)]
    assert ["…7b…" in rows[0], "…34b…" in rows[1], "…70b…" in rows[2]] == [True, True, True]


def test_recipes_that_differ_by_name_only_are_not_said_to_differ_unknown() -> None:
    results = [result(recipe="a"), result(recipe="b")]
    known = compared(groups_of(results, resolved={one["run_id"]: {"name": "x"} for one in results})).row()
    assert any("nothing but their names" in line for line in shown(known))
    assert any("resolved.json is missing" in line for line in shown(compared(groups_of(results)).row()))
    same = compared(groups_of([result(), result(offer={"id": "other"})])).row()
    assert "the recipe is the same" in shown(same)


def test_the_table_is_sorted_as_asked_by_axis_or_figure() -> None:
    document = matrix()
    assert ordered(document, "concurrency") == [0, 1, 2, 3]
    assert ordered(document, "-workload.concurrency") == [3, 2, 1, 0]
    assert ordered(document, "-output_tokens_per_s") == [2, 3, 1, 0]
    letters = [line[0] for line in shown(document, sort="usd_per_document") if re.match(r"[A-D] {2}", line)]
    assert letters == ["C", "D", "B", "A"]
    assert {"concurrency", "workload.concurrency", "ttft_p50_s"} <= set(sort_words(document))


def test_a_group_alone_has_its_medians_with_their_intervals() -> None:
    document = {**compared(groups_of(several(SLOW))).row(), "notes": []}
    lines = shown(document)
    assert lines[0].startswith("5 runs of base: 100 output tok/s (94 %: 99–101)")
    assert any(re.fullmatch(r"output tok/s +100 +99 – 101", line) for line in lines)


def test_runs_that_do_not_count_are_named_but_not_by_the_page() -> None:
    left = [result(status="failed") for _ in range(30)]
    document = {**compared(groups_of([result(), result(), *left])).row(), "notes": ["a note"]}
    lines = shown(document)
    assert sum(one["run_id"] in line for one in left for line in lines) == 5
    assert any("and 25 more runs" in line for line in lines)
    assert "note      a note" in lines


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("tok/s", 1234.4, "1,234"),
        ("tok/s", 9.876, "9.88"),
        ("s", 0.071, "71 ms"),
        ("usd", 0.00012345, "$0.000123"),
        ("usd", 12.3, "$12.30"),
        ("share", 0.274, "27%"),
        ("count", 260.0, "260"),
        ("Wh", None, "–"),
    ],
)
def test_figures_read_as_people_write_them(unit: str, value: float | None, text: str) -> None:
    assert figure(unit, value) == text
