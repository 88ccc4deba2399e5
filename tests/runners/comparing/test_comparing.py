"""What is said of groups of runs: who is faster, what differed, who is on the front."""

from __future__ import annotations

from typing import Any

import pytest

from runners.comparing import compared, groups_of, pareto
from runners.comparing.caveats import caveats
from runners.comparing.changes import circumstances, recipe_changes
from runners.comparing.groups import base_of, letter_of
from runners.comparing.metrics import METRICS, metrics_of
from runners.comparing.pareto import places_of
from tests.runners.comparing.making import result, several

SLOW = [100.0, 101.0, 99.0, 100.5, 99.5]
FAST = [142.0, 143.0, 141.0, 142.5, 141.5]


def test_the_faster_and_the_cheaper_are_named_with_their_factor_and_how_sure_it_is() -> None:
    found = compared(groups_of([*several(SLOW, recipe="slow"), *several(FAST, recipe="fast")]))
    speed, cost = found.answer
    assert speed.startswith("B is 1.42 times as fast as A (95 %: 1.4")
    assert speed.endswith("142 against 100 output tok/s.")
    assert cost.startswith("B costs 0.80 times as much as A (95 %: 0.")
    assert cost.endswith(" per document.")
    turned = compared(groups_of([*several(FAST, recipe="fast"), *several(SLOW, recipe="slow")]))
    assert turned.answer[0].startswith("A is 1.42 times as fast as B")
    assert "142 against 100" in turned.answer[0]


def test_a_difference_within_noise_is_not_sold_as_one() -> None:
    found = compared(groups_of([*several([90, 110, 100, 95, 105]), *several([92, 111, 102, 97, 104], recipe="b")]))
    assert found.answer[0].startswith(
        "The speed does not differ by more than noise: A 100, B 102 output tok/s (95 %: 0."
    )
    assert {each.verdict for each in found.pairs[0].differences} == {"within noise", "the same"}


def test_one_run_each_is_told_as_seen_and_never_with_an_interval() -> None:
    found = compared(groups_of([result(100, recipe="a"), result(142, recipe="b")]))
    assert found.answer[0] == "B was 1.42 times as fast as A: 142 against 100 output tok/s."
    assert found.answer[-1] == "One run each cannot be told from noise: repeat them with recipe up … --repeat 5."
    row = found.row()
    assert {each["verdict"] for each in row["differences"]} == {"cannot tell"}
    assert all(each["low"] is None and each["p"] is None for each in row["differences"])
    assert all(f["low"] is None for group in row["groups"] for f in group["figures"].values())


def test_of_many_the_best_is_named_and_those_that_are_not_surely_behind_it() -> None:
    speeds = {"a": SLOW, "b": FAST, "c": [value + 0.2 for value in FAST]}
    results = [one for name, own in speeds.items() for one in several(own, recipe=name)]
    told = compared(groups_of(results)).answer
    assert told[0].startswith("C is the fastest: 142 output tok/s, 1.42 times that of A; not ahead of B")
    results += several([200, 201, 199, 200.5, 199.5], recipe="d")
    assert compared(groups_of(results)).answer[0].endswith("; ahead of every other by more than noise.")


def test_nothing_is_said_of_cost_where_no_price_is_known() -> None:
    found = compared(groups_of([*several(SLOW, price=None), *several(FAST, recipe="b", price=None)]))
    assert found.answer[1] == "No price is known of A and B, so nothing is said of cost."
    free = compared(groups_of([*several(SLOW, price=0.0), *several(FAST, recipe="b", price=0.0)]))
    assert len(free.answer) == 1


def test_repetitions_are_runs_of_one_digest_on_one_kind_of_machine_with_one_engine() -> None:
    elsewhere = result(offer={"accelerator": "H100", "id": "H100"})
    newer = result(engine={"version": "0.34.0"})
    model = result(model={"commit": "other"})
    edited = result(workload={"inputs_digest": "cc" * 8})
    groups = groups_of([result(), result(), elsewhere, newer, model, edited])
    assert sorted(len(group.results) for group in groups) == [1, 1, 1, 1, 2]
    assert len({group.label for group in groups}) == 5
    assert [group.letter for group in groups] == ["A", "B", "C", "D", "E"]


def test_a_run_that_does_not_say_what_it_read_counts_with_the_only_others() -> None:
    older = result(workload={"inputs_digest": None, "prompt_digest": None})
    (group,) = groups_of([older, result()])
    assert len(group.results) == 2


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"status": "failed"}, "failed"),
        ({"status": "interrupted"}, "interrupted"),
        ({"taken_over": [{"run_id": "x", "answers": 3, "documents": 0}]}, "earlier run"),
        ({"requests": {"resumed": 4}}, "earlier run"),
        ({"lease": {"adopted": True}}, "client that died"),
    ],
)
def test_runs_that_are_no_repetition_are_left_out_with_the_reason(settings: dict[str, Any], why: str) -> None:
    other = result(**settings)
    (group,) = groups_of([result(), other])
    assert [left.run_id for left in group.left_out] == [other["run_id"]]
    assert why in group.left_out[0].why
    (lone,) = groups_of([other], alone=True)
    assert lone.run_ids == (other["run_id"],)


def test_every_figure_is_read_where_the_result_has_it_and_older_results_lack_some() -> None:
    new = result(cost={"energy": {"total_wh": 12.5}, "usd_per_million_tokens": 0.7})
    figures = {metric.key: metric.of(new) for metric in metrics_of([new])}
    assert figures["energy_wh"] == 12.5
    assert figures["usd_per_million_tokens"] == 0.7
    assert figures["output_tokens_per_s"] == 100.0
    assert figures["phase.drive"] == 1000.0
    assert figures["seconds"] == sum(phase["seconds"] for phase in new["phases"])
    old = result()
    by_key = {metric.key: metric for metric in METRICS}
    assert by_key["usd_per_million_tokens"].of(old) == pytest.approx(old["cost"]["total_usd"])
    assert all(metric.of({}) is None for metric in METRICS)


def resolved(**workload: Any) -> dict[str, Any]:
    return {
        "name": "x",
        "tags": ["a"],
        "workload": {"inputs": ["/home/ana/texts/*.txt"], "prompt": "builtin:summarize", "concurrency": 1, **workload},
        "engine": {"args": {"parallel": 2}},
        "resources": {"any_of": [{"accelerators": "H100:2"}]},
    }


def changes_of(*trees: dict[str, Any], **settings: Any) -> dict[str, tuple[str, ...]]:
    results = [result(recipe=str(i), **settings) for i in range(len(trees))]
    texts = {one["run_id"]: tree for one, tree in zip(results, trees, strict=True)}
    return {change.path: change.told for change in recipe_changes(groups_of(results, resolved=texts))}


def test_what_differs_in_the_recipe_is_told_by_path_with_each_value() -> None:
    other = {**resolved(concurrency=4), "name": "y", "tags": ["b"], "engine": {"args": {"parallel": 2, "threads": 1}}}
    other["resources"] = {"any_of": [{"accelerators": "A100:2"}, {"accelerators": "A40:4"}]}
    assert changes_of(resolved(), other) == {
        "workload.concurrency": ("1", "4"),
        "engine.args.threads": ("–", "1"),
        "resources.any_of.0.accelerators": ("H100:2", "A100:2"),
        "resources.any_of.1.accelerators": ("–", "A40:4"),
    }


def test_where_files_lie_is_no_difference_but_which_they_are_is() -> None:
    assert changes_of(resolved(), resolved(inputs=["/srv/bob/texts/*.txt"])) == {}
    found = changes_of(resolved(), resolved(inputs=["/srv/bob/novels/*.txt"]))
    assert found == {"workload.inputs": ("texts/*.txt", "novels/*.txt")}


def test_a_long_text_is_told_by_its_length_and_digest() -> None:
    found = changes_of(resolved(), resolved(prompt="Sum up:\n{{ prompt }}\n" * 40))
    before, after = found["workload.prompt"]
    assert before == "builtin:summarize"
    assert after.startswith("840 characters, sha256 ")
    assert "\n" not in after


def test_texts_that_changed_under_the_same_names_are_found_by_their_digests() -> None:
    results = [result(recipe="a"), result(recipe="b", workload={"inputs_digest": "cc" * 8, "prompt_digest": "dd" * 8})]
    groups = groups_of(results, resolved={one["run_id"]: resolved() for one in results})
    assert {change.path: change.told for change in recipe_changes(groups)} == {
        "workload.inputs": ("texts aaaaaaaa", "texts cccccccc"),
        "workload.prompt": ("text bbbbbbbb", "text dddddddd"),
    }


def test_true_and_one_are_not_the_same_setting() -> None:
    assert changes_of(resolved(concurrency=True), resolved(concurrency=1)) == {"workload.concurrency": ("true", "1")}


def test_what_differs_besides_the_recipe_is_told() -> None:
    other = {"offer": {"region": "EU-RO-1"}, "engine": {"version": "0.34.0"}, "git_commit": None}
    found = {c.path: c.told for c in circumstances(groups_of([result(recipe="a"), result(recipe="b", **other)]))}
    assert found == {
        "region": ("US-KS-2", "EU-RO-1"),
        "engine version": ("0.33.0", "0.34.0"),
        "git commit": ("9236d20f0bae", "–"),
    }


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"workload": {"kind": "load"}}, "workloads differ"),
        ({"workload": {"inputs_digest": "cc" * 8}}, "inputs differ"),
        ({"documents": {"total": 3}}, "inputs differ"),
        ({"workload": {"prompt_digest": "dd" * 8}}, "prompts differ"),
        ({"throughput": {"measured_at": "host"}}, "measured on the host"),
        ({"throughput": {"output_tokens": 250_000}}, "B wrote 2.50 times the output tokens of A"),
        ({"requests": {"failed": 3}}, "B: 3 requests failed"),
        ({"forced": [{"code": "kv-cache", "message": ""}]}, "B: run with --force kv-cache"),
    ],
)
def test_what_makes_a_comparison_unfair_is_said(other: dict[str, Any], words: str) -> None:
    groups = groups_of([result(recipe="a"), result(recipe="b", **other)])
    assert any(words in told for told in caveats(groups))
    assert not list(caveats(groups_of([result(recipe="a"), result(recipe="b")])))


def test_different_inputs_are_compared_by_the_token_and_not_by_the_document() -> None:
    other = several(FAST, recipe="b", workload={"inputs_digest": "cc" * 8})
    found = compared(groups_of([*several(SLOW), *other]))
    assert found.answer[1].endswith(" per million tokens.")


def test_a_first_run_that_had_to_install_is_pointed_out() -> None:
    groups = groups_of([result(prepared={"installed": True}), result(), result()])
    assert "1 of 3 runs installed the engine" in next(caveats(groups))


def test_the_front_is_of_those_that_no_other_beats_everywhere() -> None:
    places = places_of([(1, 5), (2, 2), (5, 1), (3, 3), (2, 2), (1, None)])
    assert [place.on_front for place in places] == [True, True, True, False, True, False]
    assert places[3].beaten_by == (1, 4)
    assert places[5].unknown


def test_the_front_is_over_throughput_cost_and_latency_and_over_less_where_there_is_no_price() -> None:
    fast, slow, quick = result(200, recipe="a"), result(100, recipe="b"), result(150, recipe="c", ttft=0.1)
    front = pareto(groups_of([fast, slow, quick]))
    assert [axis.key for axis in front.axes] == ["output_tokens_per_s", "usd_per_million_tokens", "ttft_p50_s"]
    assert [place.on_front for place in front.places] == [True, False, True]
    assert front.places[1].beaten_by == (0, 2)
    free = pareto(groups_of([result(200, price=0.0), result(100, recipe="b", price=0.0)]))
    assert [axis.key for axis in free.axes] == ["output_tokens_per_s", "ttft_p50_s"]
    assert free.note == "every machine is free of charge"
    unknown = pareto(groups_of([result(200, price=None), result(100, recipe="b", price=None)]))
    assert unknown.note == "no run has a figure for $ per M tokens"


def test_a_variants_recipe_is_found_in_its_name() -> None:
    assert base_of("mine.concurrency-4.parallel-2", {"workload.concurrency": 4, "engine.args.parallel": 2}) == "mine"
    assert base_of("a.b.model-x-y", {"model": "x/y"}) == "a.b"
    assert base_of("mine", {}) == "mine"
    assert [letter_of(number) for number in (0, 25, 26, 27, 52)] == ["A", "Z", "AA", "AB", "BA"]
