"""Each strategy: what it asks for and when, and the tree that its output holds."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.errors import InvalidRecipe, WorkloadFailed
from runners.schedule.concurrency import Concurrency
from runners.schedule.schedule import Schedule
from runners.text.splitter import SEPARATORS, Splitter
from runners.workloads.summarize import Summarize
from tests.runners.summaries import COUNTER, TEMPLATE, Bench, Oracle, Work, prose, reference, summarise

STRATEGIES = ("recursive", "hierarchical", "pairwise", "refine")
_BETWEEN = (*(" " * 12), ". ", "\n", "\n\n")
CONTINUED = "\n\n[That was the text so far, in short. It goes on:]\n\n"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def worked(bench: Bench, oracle: Oracle, *, at_once: int = 4, **workload: Any) -> Work:
    prepared = bench.prepare(max_tokens=30, **workload)
    return asyncio.run(summarise(prepared, oracle, bench.outputs, at_once=at_once))


def failed(bench: Bench, oracle: Oracle, **workload: Any) -> str:
    with pytest.raises(WorkloadFailed) as caught:
        worked(bench, oracle, **workload)
    return caught.value.message


def number_of(prompt: str) -> int:
    """The same for the same prompt, and as good as random."""
    return int.from_bytes(sha256(prompt.encode()).digest()[:4])


def short(prompt: str) -> str:
    """A few words of the prompt; which and how many, the prompt decides."""
    words = prompt.split()
    choose = random.Random(number_of(prompt))
    said = choose.choices(words, k=choose.randint(1, 12))
    return "".join(word + choose.choice(_BETWEEN) for word in said)


def texts_of(prompt: str) -> str:
    return prompt.removeprefix("Summarize: ")


class Tree:
    """The tree of an output, with its text."""

    def __init__(self, output: Mapping[str, Any], text: str) -> None:
        self.summary, self.text = output["summary"], text
        self.nodes = {node["id"]: node for node in output["tree"]["nodes"]}
        self.root = self.nodes[output["tree"]["root"]]

    def slice(self, passage: Mapping[str, int]) -> str:
        return self.text[passage["start"] : passage["end"]]

    def below(self, node: Mapping[str, Any]) -> set[str]:
        return {node["id"]}.union(*(self.below(self.nodes[child]) for child in node["children"]))


@given(
    seed=st.integers(0, 2**32),
    sentences=st.integers(1, 60),
    strategy=st.sampled_from(STRATEGIES),
    separators=st.sampled_from(["paragraphs", "sentences"]),
    overlap=st.sampled_from([0, 15]),
    at_once=st.sampled_from([1, 3, 50]),
    empty=st.sampled_from([0, 0, 7]),
)
@settings(max_examples=150, deadline=None)
def test_what_always_holds(
    seed: int, sentences: int, strategy: str, separators: str, overlap: int, at_once: int, empty: int
) -> None:
    """Whatever the text, the answers, and the order in which they come."""

    def answer(prompt: str) -> str:
        return "" if empty and number_of(prompt) % empty == 0 else short(prompt)

    with TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        bench.write(book=prose(seed, sentences))
        oracle = Oracle(answer, turns=lambda prompt: number_of(prompt) % 5)
        changes = {"strategy": strategy, "separators": separators, "chunk_overlap": overlap, "max_levels": 60}
        try:
            work = worked(bench, oracle, at_once=at_once, on_empty="skip", **changes)
        except WorkloadFailed as failure:
            if not empty:
                assert strategy == "recursive" and "do not shrink" in failure.message  # noqa: PT017, PT018
            return
        tree = Tree(work.outputs["book"], (bench.folder / "book.txt").read_text(encoding="utf-8"))
    nodes = tree.nodes.values()
    assert len(nodes) == len(oracle.asked) == len(work.taken.records) == work.taken.expected
    assert oracle.most <= at_once
    assert tree.root["text"] == tree.summary == tree.summary.strip() != ""
    # Nothing of the text but white space lies outside of the chunks that were asked about.
    covered = [False] * len(tree.text)
    for node in nodes:
        if node["chunk"]:
            start, end = node["chunk"]["start"], node["chunk"]["end"]
            covered[start:end] = [True] * (end - start)
    assert not "".join(c for c, is_covered in zip(tree.text, covered, strict=True) if not is_covered).strip()
    for node in nodes:
        passages = [tree.nodes[child]["source"] for child in node["children"]] + [node["chunk"]] * bool(node["chunk"])
        assert node["source"]["start"] == min(passage["start"] for passage in passages)
        assert node["source"]["end"] == max(passage["end"] for passage in passages)
        assert all(tree.nodes[child]["text"] for child in node["children"]), "an empty answer is nobody's child"
    # Every answer is in the summary, or below it.
    assert empty or tree.below(tree.root) == {node["id"] for node in nodes}
    # What was sent is what the tree says.
    for node in nodes:
        assert prompt_of(tree, node) in oracle.asked if strategy != "recursive" else True
    if strategy == "recursive" and not empty:
        summary, prompts = reference(tree.text, separators, answer, overlap)
        assert tree.summary == summary
        assert Counter(oracle.asked) == Counter(prompts)
    # The schedule waits for nothing that does not come.
    assert work.schedule.waiting == work.schedule.under_way == 0


def prompt_of(tree: Tree, node: Mapping[str, Any]) -> str:
    """The prompt of a node, from the tree alone; not for the recursive strategy's cut joins."""
    said = "\n".join(tree.nodes[child]["text"] for child in node["children"])
    if not node["chunk"]:
        return TEMPLATE.replace("{{ prompt }}", said)
    chunk = tree.slice(node["chunk"])
    text = f"{said}{CONTINUED}{chunk}" if said else chunk
    return TEMPLATE.replace("{{ prompt }}", text)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_short_document_is_one_request_whatever_the_strategy(bench: Bench, strategy: str) -> None:
    bench.write(short="A short text. It is sent as it stands.")
    oracle = Oracle(lambda _: " its summary …")
    work = worked(bench, oracle, strategy=strategy)
    assert oracle.asked == ["Summarize: A short text. It is sent as it stands."]
    (node,) = work.outputs["short"]["tree"]["nodes"]
    assert node == {
        "id": "1/0",
        "level": 1,
        "index": 0,
        "source": {"start": 0, "end": 38},
        "chunk": {"start": 0, "end": 38},
        "children": [],
        "text": "its summary …",
        "tokens": COUNTER.count("its summary …"),
        "truncated": True,
    }
    assert work.outputs["short"]["tree"]["root"] == "1/0"


def test_a_parent_of_the_recursive_strategy_covers_what_its_part_of_the_join_was_made_of(bench: Bench) -> None:
    bench.write(book=prose(4, 120))
    oracle = Oracle(short)
    work = worked(bench, oracle, max_levels=30)
    tree = Tree(work.outputs["book"], (bench.folder / "book.txt").read_text(encoding="utf-8"))
    second = [node for node in tree.nodes.values() if node["level"] == 2]
    assert len(second) > 1
    for node, prompt in zip(second, (p for p in oracle.asked if p in prompts_of_level(tree, oracle, 2)), strict=True):
        said = [tree.nodes[child]["text"] for child in node["children"]]
        # Its text is cut out of these summaries, and touches the first and the last of them.
        joined = "\n".join(said)
        assert texts_of(prompt) in joined
        at = joined.index(texts_of(prompt))
        assert at < len(said[0])
        assert at + len(texts_of(prompt)) > len(joined) - len(said[-1])


def prompts_of_level(tree: Tree, oracle: Oracle, level: int) -> list[str]:
    """One at a time, in the order of their index, the requests of a level come after those of the level before."""
    begin = sum(node["level"] < level for node in tree.nodes.values())
    return oracle.asked[begin : begin + sum(node["level"] == level for node in tree.nodes.values())]


@given(
    seed=st.integers(0, 2**32),
    answers=st.integers(2, 40),
    separators=st.sampled_from(sorted(SEPARATORS)),
    overlap=st.sampled_from([0, 15]),
    data=st.data(),
)
@settings(max_examples=200, deadline=None)
def test_of_the_beginning_of_a_join_every_chunk_but_the_last_is_a_chunk_of_the_whole(
    seed: int, answers: int, separators: str, overlap: int, data: st.DataObject
) -> None:
    said = [text for n in range(answers) if (text := short(f"{seed} {n} {prose(seed + n, 2)}").strip())]
    whole = "\n".join(said)
    beginning = "\n".join(said[: data.draw(st.integers(1, len(said)))])
    splitter = Splitter(COUNTER, 60, overlap, SEPARATORS[separators])
    if COUNTER.count(beginning) >= 60:
        certain = splitter.spans(beginning)[:-1]
        assert splitter.spans(whole)[: len(certain)] == certain


def test_a_part_of_the_join_is_asked_about_before_its_level_is_complete(bench: Bench) -> None:
    """The last chunk's answer is held back until a part of the join has been answered."""
    text = prose(1, 120)
    bench.write(book=text)
    prepared = bench.prepare(max_tokens=30)
    (document,) = prepared.documents
    last = text[document.starts[-1] : document.ends[-1]]

    def answer(prompt: str) -> str:
        return f"{number_of(prompt)} says it."

    async def main() -> Oracle:
        oracle = Oracle(answer)
        oracle.held[last] = asyncio.Event()
        driving = asyncio.create_task(summarise(prepared, oracle, bench.outputs, at_once=50))
        async with asyncio.timeout(60):
            while sum("says it" in prompt for prompt in oracle.asked) < 2:
                await asyncio.sleep(0)
        oracle.held[last].set()
        await driving
        return oracle

    assert Counter(asyncio.run(main()).asked) == Counter(reference(text, "paragraphs", answer)[1])


def test_pairs_are_asked_about_in_one_tree_of_two(bench: Bench) -> None:
    bench.write(book=prose(1, 60))
    work = worked(bench, Oracle(short), strategy="pairwise")
    nodes = work.outputs["book"]["tree"]["nodes"]
    leaves = sum(node["level"] == 1 for node in nodes)
    assert leaves >= 5
    assert len(nodes) == 2 * leaves - 1
    assert {len(node["children"]) for node in nodes} == {0, 2}
    by_level = Counter(node["level"] for node in nodes)
    assert by_level[2] == leaves // 2
    assert max(by_level) == (leaves - 1).bit_length() + 1


def test_neighbours_are_merged_as_many_as_fit(bench: Bench) -> None:
    bench.write(book=prose(1, 90))
    work = worked(bench, Oracle(short), strategy="hierarchical")
    nodes = {node["id"]: node for node in work.outputs["book"]["tree"]["nodes"]}
    merges = [node for node in nodes.values() if node["children"]]
    assert max(len(node["children"]) for node in merges) > 2
    for node in merges:
        tokens = [nodes[child]["tokens"] for child in node["children"]]
        assert sum(tokens) < 80 or len(tokens) == 2
        following = nodes.get(f"{node['level'] - 1}/{int(node['children'][-1].partition('/')[2]) + 1}")
        if following and len(tokens) > 1:
            assert sum(tokens) + following["tokens"] >= 80, "one more would have fitted"


@pytest.mark.parametrize("strategy", ["hierarchical", "pairwise"])
def test_two_are_merged_also_where_they_are_too_long_together(bench: Bench, strategy: str) -> None:
    bench.write(book=prose(1, 60))
    oracle = Oracle(lambda prompt: " ".join(["word"] * 70))
    work = worked(bench, oracle, strategy=strategy)
    nodes = work.outputs["book"]["tree"]["nodes"]
    assert {len(node["children"]) for node in nodes} == {0, 2}
    longest = max(COUNTER.count(prompt) for prompt in oracle.asked)
    assert longest > 80


@pytest.mark.parametrize("strategy", ["hierarchical", "pairwise"])
def test_a_merge_does_not_wait_for_its_level(bench: Bench, strategy: str) -> None:
    """The last chunk's answer is held back until a merge of the first ones has been answered."""
    text = prose(1, 60)
    bench.write(book=text)
    prepared = bench.prepare(max_tokens=30, strategy=strategy)
    (document,) = prepared.documents
    last = text[document.starts[-1] : document.ends[-1]]

    async def main() -> None:
        oracle = Oracle(lambda prompt: f"{number_of(prompt)} says it")
        oracle.held[last] = asyncio.Event()
        driving = asyncio.create_task(summarise(prepared, oracle, bench.outputs, at_once=50))
        async with asyncio.timeout(60):
            while not any("says it" in prompt for prompt in oracle.asked):
                await asyncio.sleep(0)
        oracle.held[last].set()
        await driving

    asyncio.run(main())


def test_a_pair_waits_for_no_other_pair(bench: Bench) -> None:
    text = prose(1, 60)
    bench.write(book=text)
    prepared = bench.prepare(max_tokens=30, strategy="pairwise")
    (document,) = prepared.documents
    first, third, fourth = (text[document.starts[i] : document.ends[i]] for i in (0, 2, 3))

    async def main() -> None:
        oracle = Oracle(lambda prompt: f"{number_of(prompt)} says it")
        oracle.held[first] = asyncio.Event()
        driving = asyncio.create_task(summarise(prepared, oracle, bench.outputs, at_once=50))
        said = "\n".join(f"{number_of(TEMPLATE.replace('{{ prompt }}', chunk))} says it" for chunk in (third, fourth))
        async with asyncio.timeout(60):
            while f"Summarize: {said}" not in oracle.asked:
                await asyncio.sleep(0)
        oracle.held[first].set()
        await driving

    asyncio.run(main())


def test_refining_sends_each_chunk_with_the_summary_of_what_came_before(bench: Bench) -> None:
    text = prose(1, 40)
    bench.write(book=text)
    oracle = Oracle(lambda prompt: f"Sum {number_of(prompt)}.")
    work = worked(bench, oracle, strategy="refine")
    nodes = work.outputs["book"]["tree"]["nodes"]
    assert len(nodes) > 3
    assert [node["id"] for node in nodes] == [f"{level}/0" for level in range(1, len(nodes) + 1)]
    assert [node["children"] for node in nodes] == [[], *([f"{level}/0"] for level in range(1, len(nodes)))]
    assert all(node["source"]["start"] == nodes[0]["source"]["start"] for node in nodes)
    assert work.outputs["book"]["summary"] == f"Sum {number_of(oracle.asked[-1])}."
    for before, prompt, node in zip(oracle.asked, oracle.asked[1:], nodes[1:], strict=False):
        chunk = text[node["chunk"]["start"] : node["chunk"]["end"]]
        assert prompt == f"Summarize: Sum {number_of(before)}.{CONTINUED}{chunk}"
    assert all(COUNTER.count(prompt) < 80 + COUNTER.count("Summarize: ") for prompt in oracle.asked)


def test_a_template_says_where_the_summary_of_what_came_before_stands(bench: Bench) -> None:
    bench.write(book=prose(1, 40))
    template = "{% if summary %}Known: {{ summary }}\n{% endif %}New: {{ prompt }}"
    oracle = Oracle(lambda prompt: f"Sum {number_of(prompt)}.")
    worked(bench, oracle, strategy="refine", prompt=template)
    first, second, *_ = oracle.asked
    assert first.startswith("New: ")
    assert second.startswith(f"Known: Sum {number_of(first)}.\nNew: ")


def test_where_an_answer_is_empty_the_summary_before_it_is_refined_on(bench: Bench) -> None:
    bench.write(book=prose(1, 40))
    answers = iter(["", "second", "", "fourth", *(f"{n}th" for n in range(5, 900))])
    oracle = Oracle(lambda _: next(answers))
    work = worked(bench, oracle, strategy="refine", on_empty="skip")
    nodes = work.outputs["book"]["tree"]["nodes"]
    assert [node["children"] for node in nodes[:4]] == [[], [], ["2/0"], ["2/0"]]
    assert CONTINUED not in oracle.asked[1]
    assert f"Summarize: second{CONTINUED}" in oracle.asked[3]


@pytest.mark.parametrize("strategy", ["hierarchical", "pairwise", "refine"])
def test_a_strategy_of_ones_own_needs_no_shrinking_summaries_to_end(bench: Bench, strategy: str) -> None:
    bench.write(book=prose(3, 60))
    work = worked(bench, Oracle(lambda prompt: " ".join(["so"] * 75)), strategy=strategy)
    assert work.outputs["book"]["summary"].startswith("so so")


def test_levels_that_are_too_many_two_by_two_are_known_before(bench: Bench) -> None:
    bench.write(book=prose(3, 60), short="Short.")
    with pytest.raises(InvalidRecipe) as caught:
        bench.prepare(strategy="pairwise", max_levels=2)
    (problem,) = caught.value.problems
    assert problem.file == str(bench.folder / "book.txt")
    assert "two by two; workload.max_levels is 2" in problem.message
    levels = int(problem.suggestion.rpartition(" ")[2])
    work = worked(bench, Oracle(short), strategy="pairwise", max_levels=levels)
    assert max(node["level"] for node in work.outputs["book"]["tree"]["nodes"]) == levels


def test_the_level_limit_ends_a_hierarchy(bench: Bench) -> None:
    bench.write(book=prose(3, 90))
    message = failed(bench, Oracle(lambda _: " ".join(["so"] * 30)), strategy="hierarchical", max_levels=2)
    assert "not finished after 2 levels; raise workload.max_levels" in message


def test_refining_needs_room_for_the_summary_beside_the_text(bench: Bench) -> None:
    bench.write(book=prose(3, 60))
    with pytest.raises(InvalidRecipe) as caught:
        bench.prepare(strategy="refine", max_tokens=70)
    (problem,) = caught.value.problems
    assert "strategy refine sends a summary of up to max_tokens 70 with each chunk" in problem.message
    assert problem.suggestion == "raise workload.chunk_size, or lower workload.max_tokens"


def test_a_text_that_fits_one_request_is_not_cut_to_be_refined(bench: Bench) -> None:
    text = prose(1, 4)
    bench.write(book=text)
    prepared = bench.prepare(strategy="refine", max_tokens=30)
    assert prepared.splitter.chunk_size < prepared.documents[0].tokens < 80
    assert prepared.documents[0].chunks == 1
    assert prepared.documents[0].prompt_tokens == COUNTER.count(f"Summarize: {text}")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("words", [1, 12, 29])
def test_the_estimate_bounds_what_every_strategy_asks_for(bench: Bench, strategy: str, words: int) -> None:
    bench.write(a=prose(1, 120), b=prose(2, 50), c=prose(5, 51), d="Short one.")
    settings = {"strategy": strategy, "chunk_size": 120, "max_tokens": 30, "max_levels": 30}
    estimate = Summarize().estimate(bench.prepare(**settings))
    oracle = Oracle(lambda _: " ".join(["so"] * words))
    records = asyncio.run(summarise(bench.prepare(**settings), oracle, bench.outputs)).taken.records
    for total, done in (
        (estimate.totals.requests, len(records)),
        (estimate.totals.prompt_tokens, sum(record.prompt_tokens for record in records)),
        (estimate.totals.levels, max(record.level for record in records)),
    ):
        assert total.low * 0.999 <= done <= total.high, "but for a token where two texts meet"
    longest = max(record.prompt_tokens for record in records)
    assert longest + 30 <= estimate.longest_request_tokens
    levels = estimate.work.levels(COUNTER.count(" ".join(["so"] * words)))
    by_level = Counter(record.level for record in records)
    assert levels[0].requests == by_level[1]
    if strategy in ("refine", "pairwise"):
        assert [level.requests for level in levels] == [by_level[level.number] for level in levels]
        assert [level.documents for level in levels] == [
            len({record.document for record in records if record.level == level.number}) for level in levels
        ]
    assert sum(level.requests for level in levels) == pytest.approx(len(records), rel=0.15)
    assert sum(level.prompt_tokens for level in levels) == pytest.approx(
        sum(record.prompt_tokens for record in records), rel=0.15
    )


def test_the_schedule_is_told_of_all_documents_before_the_first_begins(bench: Bench) -> None:
    """And of nothing more when all have ended."""
    bench.write(a=prose(1, 120), b=prose(2, 50), c="Short one.")
    prepared = bench.prepare(max_tokens=30, max_levels=30)
    schedule, told = Schedule(Concurrency(4)), []

    def answer(prompt: str) -> str:
        told.append({rank: schedule._order.foreseen(rank) for rank in range(3)})
        return short(prompt)

    asyncio.run(summarise(prepared, Oracle(answer), bench.outputs, schedule=schedule))
    at_first = sum(told[0].values())
    assert at_first > sum(document.chunks for document in prepared.documents), "also of the levels above"
    assert told[0][2] > told[0][1] > 0, "the shortest has the lowest rank"
    assert [schedule._order.foreseen(rank) for rank in range(3)] == [0, 0, 0]
