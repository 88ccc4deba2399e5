"""A plan on one screen, at the widths that people have: nothing cut off, nothing twice, figures below each other."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from recipes.load import load
from runners import registry
from runners.terminal.checks_view import memory_bar
from runners.terminal.explain_view import explanation_lines
from runners.terminal.layout import wrapped_command
from runners.terminal.matrix_view import plans_lines
from runners.terminal.plan_view import plan_lines
from runners.terminal.refusal_view import refusal_lines, remedy_command
from tests.terminal.plans import MEMORY, SERVE, WORKS, finding, going, offer, refused

WIDTHS = [80, 100, 140, None]


def plain(lines: Any) -> list[str]:
    return [line.plain for line in lines]


def as_shell(text: str) -> list[str]:
    """The words that a shell makes of lines that it is told go on."""
    return shlex.split(text.replace("\\\n", " "))


def words(lines: list[str]) -> str:
    """Everything in one line, as it reads when lines are joined."""
    return " ".join(" ".join(line.removesuffix("\\") for line in lines).split())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("plan", [going(), refused()], ids=["goes", "refused"])
def test_nothing_is_wider_than_the_terminal(plan: dict[str, Any], width: int | None) -> None:
    lines = plain(plan_lines(plan, width))
    if width is not None:
        assert [line for line in lines if len(line) > width] == []
    assert all(line == line.rstrip() for line in lines if not line.startswith("checks"))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_whole_plan_is_there(width: int | None) -> None:
    plan = going()
    read = words(plain(plan_lines(plan, width)))
    told = [f["message"] for f in plan["findings"] if f["code"] not in ("weights", "kv-cache", "concurrency")]
    told += [f["suggestion"] for f in plan["findings"] if f["suggestion"]]
    told += ["A100 PCIe 80GB ×2", "$3.58/h", "← first", "$7.98/h above limits.max_price $5.00/h"]
    told += ["58.4 weights · 8.9 KV · 3.1 rest of 79.2 GiB", "58,300 tokens → 14 requests of 4,091 at once"]
    told += ["27:07 37:33 1:00:35 $2.24", "$1.62 to $3.61 of max_cost $10.00", "3 runs of this model on this GPU"]
    told += [shlex.join(SERVE), "bring back nohup.out", "go: recipe up 2xA100-airoboros-70b", "3.1 M tokens"]
    for text in told:
        assert " ".join(text.split()) in read, text


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_told_twice(width: int | None) -> None:
    findings = [*going()["findings"], *going()["findings"]]
    read = words(plain(plan_lines(going(findings=findings), width)))
    for text in ("64 heads, 8 KV heads, vocabulary 32,000 over", "58,300", "workload.concurrency=14", "HF_TOKEN=…"):
        assert read.count(text) == 1, text


@pytest.mark.parametrize("width", WIDTHS)
def test_figures_and_levels_stand_below_each_other(width: int | None) -> None:
    lines = plain(plan_lines(going(), width))
    levels = [re.search(r" (ok|warn)$", line) for line in lines]
    assert len({found.start() for found in levels if found}) == 1
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("forecast")) :][:8]
    ends = [[m.end() for m in re.finditer(r"\d+:\d\d(:\d\d)?", line)] for line in table[1:]]
    assert all(row == ends[0] for row in ends)
    costs = [line.index("$") + len(line[line.index("$") :].split()[0]) for line in table[1:]]
    assert len(set(costs)) == 1
    offers = [line for line in lines if "secure" in line]
    assert len({line.index("secure") for line in offers}) == 1


def test_it_is_one_screen() -> None:
    assert len(plain(plan_lines(going(), 100))) <= 40


def test_colour_only_carries_what_the_words_say() -> None:
    written = []
    for colour in (True, False):
        file = io.StringIO()
        shown = Console(file=file, force_terminal=colour, width=100, highlight=False, markup=False, no_color=not colour)
        for line in plan_lines(going(), 100):
            shown.print(line)
        written.append(re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()))
    assert written[0] == written[1]
    assert "warn" in written[1]


@pytest.mark.parametrize(("cells", "bar"), [(26, "█" * 19 + "░" * 3 + "▒" + "·" * 3), (8, "█" * 6 + "░" + "·")])
def test_the_bar_is_drawn_to_scale(cells: int, bar: str) -> None:
    assert memory_bar(MEMORY, cells).plain == bar


@pytest.mark.parametrize("weights", [0.0, 0.01, 79.2, 500.0])
def test_the_bar_is_never_longer_than_it_may_be(weights: float) -> None:
    assert len(memory_bar({**MEMORY, "weights_gib_per_gpu": weights}, 20)) == 20


def test_a_small_models_parts_are_told_in_mib() -> None:
    small = {**MEMORY, "weights_gib_per_gpu": 0.003, "kv_gib_per_gpu": 0.02}
    assert "3 MiB weights · 20 MiB KV" in words(plain(plan_lines(going(memory=small), None)))


def test_a_machine_without_accelerators_has_memory_and_no_gpu() -> None:
    plan = going(offers=[offer(None, 0, None)], passed_over=[], memory={**MEMORY, "basis": "by arithmetic"})
    read = words(plain(plan_lines(plan, 100)))
    assert "memory per GPU" not in read
    assert "2 CPUs" in read
    assert "no price given" in read


def test_a_long_list_of_offers_is_cut_and_says_so() -> None:
    many = [offer(price=float(n)) for n in range(1, 10)]
    skipped = [{"offer": offer(price=50.0 + n), "reason": f"reason {n}"} for n in range(5)]
    read = words(plain(plan_lines(going(offers=many, passed_over=skipped), 100)))
    assert "and 3 more tried after them, and 2 more passed over" in read
    assert "reason 2" in read
    assert "reason 3" not in read


def test_a_plan_that_knows_little_is_shown_all_the_same() -> None:
    plan = going(memory=None, forecast=None, model={"identifier": "m", "source": "m"}, steps=[], passed_over=[])
    lines = plain(plan_lines(plan, 80))
    assert lines[-1] == "go: recipe up 2xA100-airoboros-70b"
    assert not any(line.startswith("forecast") for line in lines)


def test_what_was_forced_is_in_the_command_that_goes_on() -> None:
    assert plain(plan_lines(going(forced=["kv-cache", "disk"]), 80))[-1].endswith("--force kv-cache --force disk")


def test_an_assumption_that_no_finding_tells_is_told() -> None:
    model = {**going()["model"], "assumptions": ["the vocabulary was taken from the tokenizer", "HF_TOKEN is not in"]}
    read = words(plain(plan_lines(going(model=model), 100)))
    assert "assumption the vocabulary was taken from the tokenizer warn" in read
    assert read.count("HF_TOKEN is not in") == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_a_refusal_says_why_what_the_engine_would_say_where_and_what_works(width: int | None) -> None:
    lines = plain(refusal_lines(refused(), width))
    read = words(lines)
    assert lines[0] == "refused   tensor_parallel_size 3 does not divide 64 attention heads"
    assert "vllm would say: Total number of attention heads (64) must be divisible by tensor parallel size (3)." in read
    assert "recipes/3xA40-airoboros-70b.yaml:8:32 engine.tensor_parallel_size" in read
    assert "works: 4 × A40 48GB $1.76/h (tensor parallel 4; 14.1 GiB KV per GPU)" in read
    prices = [line.index("$") for line in lines if "/h" in line]
    assert len(prices) == 2
    assert len(set(prices)) == 1
    assert lines[-1].endswith("exit 3")
    assert lines[-1].startswith("nothing was rented")
    if width is not None:
        assert len(lines[-1]) == min(width, 107)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_suggested_command_can_be_copied_from_the_screen(width: int | None) -> None:
    lines = plain(refusal_lines(refused(), width))
    start = next(i for i, line in enumerate(lines) if "try:" in line)
    copied = "\n".join(lines[start:-1]).partition("try:")[2]
    assert as_shell(copied) == [
        *("recipe", "plan", "3xA40-airoboros-70b"),
        *("--set", "resources.accelerators=A40-48GB:4", "--set", "engine.tensor_parallel_size=4"),
    ]


def test_a_change_of_flags_is_told_as_it_is_written() -> None:
    remedy = {"text": "2 × A100 (x)", "overrides": ["engine.args.max_model_len=2048"], "price_usd_per_h": 3.58}
    block = finding("block", "kv-cache", "too long", works=[remedy, WORKS[0]])
    read = words(plain(refusal_lines(going(findings=[block]), 100)))
    assert "works: engine.args.max_model_len=2048 $3.58/h (x)" in read


def test_several_reasons_are_all_told_and_one_without_a_remedy_says_what_to_do() -> None:
    blocks = [
        finding("block", "secret", "secret KEY is not in the environment", suggestion="export KEY=…", path="secrets"),
        finding("block", "context", "the longest request needs 5,464 tokens", suggestion="lower max_tokens"),
    ]
    lines = plain(refusal_lines(going(verdict="refuse", exit_code=3, findings=blocks), 100))
    assert [line for line in lines if line.startswith("refused")] == [
        "refused   secret KEY is not in the environment",
        "refused   the longest request needs 5,464 tokens",
    ]
    assert "          export KEY=…" in lines
    assert "          lower max_tokens" in lines


def test_a_reason_that_the_remedy_mends_as_well_is_told_in_short() -> None:
    second = finding(
        "block", "kv-cache", "nothing is left", quote="No available memory. " * 20, suggestion="larger GPUs"
    )
    plan = refused()
    lines = plain(refusal_lines({**plan, "findings": [*plan["findings"], second]}, 80))
    start = lines.index("refused   nothing is left")
    assert lines[start + 1].endswith("…")
    assert lines[start + 2].startswith("nothing was rented")
    alone = words(plain(refusal_lines({**plan, "findings": [second]}, 80)))
    assert alone.count("No available memory.") == 20
    assert "larger GPUs" in alone


def test_a_refused_plan_shows_what_its_reason_is_about() -> None:
    dear = [finding("block", "budget", "the run is likely to cost $2.24")]
    lines = plain(plan_lines(going(verdict="refuse", exit_code=3, findings=dear), 100))
    assert lines[0] == "refused   the run is likely to cost $2.24"
    assert any(line.startswith("forecast") for line in lines)
    assert not any("weights ·" in line for line in lines)
    assert any("and 1 more refused as well" in line for line in lines)
    full = [finding("block", "kv-cache", "nothing is left")]
    lines = plain(plan_lines(going(verdict="refuse", exit_code=3, findings=full), 100))
    assert any("weights ·" in line for line in lines)
    assert not any(line.startswith("forecast") for line in lines)


def test_the_exit_code_is_the_plans() -> None:
    assert plain(refusal_lines(going(verdict="refuse", exit_code=4, findings=[]), 80))[-1].endswith("exit 4")


def test_a_run_of_a_matrix_is_planned_alone_by_the_suggested_command(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "extends: local-smoke\nname: mine\nmatrix: {workload.concurrency: [1, 2], workload.max_tokens: [32, 64]}\n"
    )
    runs = load("mine.yaml", plugins=registry.installed(), cwd=tmp_path)
    plan = {"command": runs[1].command, "variant": runs[1].variant}
    argv = remedy_command(plan, ["workload.max_tokens=48", "workload.chunk_size=300"])
    assert argv[:3] == ["recipe", "plan", "mine.yaml"]
    (alone,) = load("mine.yaml", overrides=argv[4::2], plugins=registry.installed(), cwd=tmp_path)
    work = alone.recipe.workload
    assert (work.concurrency, work.max_tokens, work.chunk_size) == (1, 48, 300)


def test_a_suggestion_replaces_what_the_command_line_set_itself() -> None:
    plan = going(command="recipe up x --set engine.args.a=1 --set 'workload.inputs=[a b.txt]'")
    argv = remedy_command(plan, ["engine.args.a=2"])
    assert argv == ["recipe", "plan", "x", "--set", "workload.inputs=[a b.txt]", "--set", "engine.args.a=2"]


def test_an_override_is_its_own_place() -> None:
    block = finding("block", "weights", "too large", path="engine.args.a", place="--set engine.args.a=x:1:1:1")
    assert "          --set engine.args.a=x:1" in plain(refusal_lines(going(findings=[block]), 100))


@pytest.mark.parametrize("width", [80, 100, 140])
def test_several_plans_are_a_table_with_a_row_each_and_the_sums(width: int) -> None:
    lines = plain(plans_lines([going(), refused(), going(recipe="again")], width))
    assert [line for line in lines if len(line) > width] == []
    read = words(lines)
    assert "refused: tensor_parallel_size 3 does not divide 64 attention heads" in read
    assert "2 of 3 runs go, 1 refused" in read
    total = next(line for line in lines if line.startswith("total"))
    row = next(line for line in lines if line.startswith("again"))
    assert total.split()[1:3] == ["1:15:06", "$4.48"]
    assert total.index("$") == row.index("$")
    assert "58,300" in row
    assert "recipe plan 3xA40-airoboros-70b" in lines[-1]


def test_a_run_that_is_refused_adds_nothing_to_the_sums() -> None:
    lines = plain(plans_lines([going(), refused()], 140))
    assert next(line for line in lines if line.startswith("total")).split()[1:3] == ["37:33", "$2.24"]


def test_sums_are_those_of_all_repetitions() -> None:
    lines = plain(plans_lines([going(), going(recipe="again")], 140, repeat=3))
    assert next(line for line in lines if line.startswith("total")).split()[1:3] == ["3:45:18", "$13.44"]
    assert "2 of 2 runs go, each 3 times" in words(lines)


@pytest.mark.parametrize("width", [80, 140, None])
def test_warnings_and_long_reasons_stand_below_the_table(width: int | None) -> None:
    long = " ".join(["a reason that is longer than a row"] * 6)
    alike = finding("warn", "ram", "the RAM is nearly full")
    plans = [
        going(recipe="one", findings=[alike, finding("warn", "disk", "the disk is small")]),
        going(recipe="two", findings=[alike]),
        going(recipe="three", findings=[finding("block", "budget-month", long, suggestion="wait")], verdict="refuse"),
        *(going(recipe=f"r{i}", findings=[finding("warn", "offers", f"offer {i}")]) for i in range(5)),
    ]
    lines = plain(plans_lines(plans, width))
    read = words(lines)
    assert "go, 2 warnings" in read
    assert "refused: budget month, see below" in read
    assert f"three: {long} → wait" in read
    assert "2 runs: the RAM is nearly full" in read
    assert "one: the disk is small" in read
    assert ("offer 2" in read, "offer 3" in read, "2 more about offers" in read) == (True, False, True)
    assert "why:" not in read


def test_of_a_budget_that_is_nearly_spent_the_last_sum_is_told() -> None:
    warned = [finding("warn", "budget-month", f"$0.{i}0 is much of the budget") for i in range(1, 5)]
    lines = plain(plans_lines([going(recipe=f"r{i}", findings=[each]) for i, each in enumerate(warned)], 140))
    assert [line for line in lines if "of the budget" in line] == ["warning   r3: $0.40 is much of the budget"]
    assert sum("go, 1 warning" in line for line in lines) == 4


def test_an_explanation_gives_the_formula_the_plans_own_figures_and_the_source() -> None:
    text = "KV tokens = bytes ÷ bytes per token.\n  with a second line\nSource: the engine's release"
    lines = plain(explanation_lines("kv-cache", [text, text], [going(), refused()], 80))
    read = words(lines)
    assert read.count("KV tokens = bytes ÷ bytes per token.") == 1
    assert "source the engine's release" in read
    assert "            with a second line" in lines
    assert "KV tokens 58,300 tokens" in read
    assert "per token 163,840 bytes" in read
    assert "this plan has no finding of kv-cache" in read


def test_an_explanation_shows_a_findings_own_numbers() -> None:
    read = words(plain(explanation_lines("tensor-parallel", ["x Source: y"], [refused()], 80)))
    assert "heads 64" in read
    assert "would say: Total number of attention heads (64)" in read


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_broken_command_is_still_the_command(width: int) -> None:
    argv = ["env", "A=b c", *SERVE, "--flag", "--other=1", "-x", "a 'quoted' word"]
    lines = wrapped_command(argv, width)
    assert as_shell("\n".join(lines)) == argv
    assert len(lines) == 1 or all(line.endswith(" \\") for line in lines[:-1])


def test_lines_are_text_so_that_a_model_named_in_markup_stays_as_it_is() -> None:
    plan = going(model={**going()["model"], "source": "[bold]name[/bold]"})
    assert any(isinstance(line, Text) and "[bold]name[/bold]" in line.plain for line in plan_lines(plan, 100))
