"""How much work follows from answers of a given length."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.ranges import Range
from runners.forecast.work import Group, Joining, Merging, Refining, Work, totals

MERGING = Merging(chunk_tokens=3000, template_tokens=100, max_levels=10)
PAIRS = Merging(chunk_tokens=3000, template_tokens=100, max_levels=10, most=2)
JOINING = Joining(chunk_tokens=3000, overlap_tokens=512, template_tokens=100, max_levels=10)


def work(*groups: Group, max_tokens: int = 1000, joining: Joining | Merging | Refining | None = JOINING) -> Work:
    return Work(groups=groups, max_tokens=max_tokens, joining=joining)


def test_a_short_document_is_asked_for_once() -> None:
    (level,) = work(Group(3, 1, 1200)).levels(200)
    assert (level.documents, level.requests, level.prompt_tokens, level.output_tokens) == (3, 3, 1200, 600)


def test_answers_that_fit_one_request_make_two_levels() -> None:
    first, second = work(Group(1, 10, 30_000)).levels(200)
    assert (first.requests, first.output_tokens) == (10, 2000)
    assert second.requests == 1
    assert second.prompt_tokens == 10 * 200 + 9 + 100, "the joined answers, newlines between them, and the template"


def test_answers_that_are_too_long_for_one_request_are_cut_again() -> None:
    levels = work(Group(1, 84, 84 * 3000)).levels(350)
    assert [level.number for level in levels] == [1, 2, 3, 4]
    assert levels[1].requests == pytest.approx(84 * 351 / 2500, rel=0.15)
    assert levels[-1].requests == 1


def test_without_joining_there_is_one_level() -> None:
    assert len(work(Group(1, 84, 84 * 3000), joining=None).levels(350)) == 1


def test_the_levels_end_where_the_summaries_do_not_shrink_or_the_recipe_says_so() -> None:
    same = work(Group(1, 10, 10 * 1000), max_tokens=2000)
    assert len(same.levels(2000)) == 1, "the client stops a document that grows"
    low = Joining(chunk_tokens=3000, overlap_tokens=512, template_tokens=100, max_levels=2)
    assert len(work(Group(1, 84, 84 * 3000), joining=low).levels(350)) == 2


def test_no_answer_is_longer_than_it_may_be() -> None:
    (level,) = work(Group(1, 1, 1000), max_tokens=50).levels(400)
    assert level.output_tokens == 50


def test_documents_of_different_sizes_share_their_levels() -> None:
    levels = work(Group(5, 1, 2000), Group(2, 10, 60_000)).levels(200)
    assert [(level.documents, level.requests) for level in levels] == [(7, 25), (2, 2)]


def test_pairs_are_merged_until_one_is_left_and_one_without_a_neighbour_costs_nothing() -> None:
    levels = work(Group(1, 5, 15_000), joining=PAIRS).levels(200)
    assert [level.requests for level in levels] == [5, 2, 1, 1]
    assert [level.prompt_tokens for level in levels[1:]] == [2 * 501, 501, 501]


def test_neighbours_are_merged_as_many_as_fit() -> None:
    levels = work(Group(1, 47, 47 * 3000), joining=MERGING).levels(350)
    assert [level.requests for level in levels] == [47, 6, 1], "eight and eight, and the last seven"
    assert levels[1].prompt_tokens == 47 * 351 - 6 + 6 * 100


def test_at_least_two_are_merged_so_that_there_is_an_end() -> None:
    levels = work(Group(1, 8, 24_000), max_tokens=4000, joining=MERGING).levels(4000)
    assert [level.requests for level in levels] == [8, 4, 2, 1]


def test_merging_ends_where_the_recipe_says_so() -> None:
    low = Merging(chunk_tokens=3000, template_tokens=100, max_levels=2, most=2)
    assert len(work(Group(1, 8, 24_000), joining=low).levels(200)) == 2


def test_refining_takes_a_level_for_each_chunk_of_the_longest_document() -> None:
    refined = work(Group(2, 1, 2000), Group(1, 3, 6000), joining=Refining(joint_tokens=20))
    levels = refined.levels(200)
    assert [(level.documents, level.requests) for level in levels] == [(3, 3), (1, 1), (1, 1)]
    assert [level.prompt_tokens for level in levels] == [4000, 2220, 2220]
    assert sum(level.output_tokens for level in levels) == 5 * 200


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 60)), min_size=1, unique_by=lambda group: group[1]))
def test_refining_asks_once_for_each_chunk(groups: list[tuple[int, int]]) -> None:
    made = [Group(documents, chunks, documents * chunks * 1000) for documents, chunks in groups]
    levels = work(*made, joining=Refining(joint_tokens=0)).levels(100)
    chunks = sum(documents * chunks for documents, chunks in groups)
    assert sum(level.requests for level in levels) == chunks
    followers = chunks - sum(documents for documents, _ in groups)
    assert sum(level.prompt_tokens for level in levels) == pytest.approx(chunks * 1000 + followers * 100)


@given(st.integers(2, 300), st.integers(1, 1000), st.booleans())
def test_merging_bounds_are_in_order_and_every_answer_but_the_last_is_asked_about_again(
    chunks: int, answer: int, pairs: bool
) -> None:
    merging = work(Group(1, chunks, chunks * 3000), joining=PAIRS if pairs else MERGING)
    levels = merging.levels(answer)
    assert levels[-1].requests == 1
    bounds = merging.bounds()
    assert bounds.requests.low <= sum(level.requests for level in levels) <= bounds.requests.high
    assert bounds.levels.low <= len(levels) <= bounds.levels.high


def test_the_worst_that_a_join_can_be_cut_is_within_the_bounds() -> None:
    """Whole answers of 400 tokens: seven with their newlines fit into a chunk, one of which the next repeats."""
    bounds = work(Group(1, 84, 84 * 3000), max_tokens=400).bounds()
    second = -(-(84 - 1) // 6)
    assert bounds.requests.high >= 84 + second + 3 + 1


@given(
    st.integers(1, 200),
    st.integers(1, 20),
    st.integers(100, 4000),
    st.integers(1, 1500),
    st.tuples(st.floats(1, 1500), st.floats(1, 1500), st.floats(1, 1500)),
)
def test_totals_hold_the_first_level_and_are_in_order(
    chunks: int, documents: int, tokens: int, max_tokens: int, answers: tuple[float, float, float]
) -> None:
    low, likely, high = sorted(answers)
    of_all = work(Group(documents, chunks, documents * chunks * tokens), max_tokens=max_tokens)
    found = totals(of_all, Range(low, likely, high))
    for total in (found.requests, found.prompt_tokens, found.output_tokens, found.levels):
        assert total.low <= total.likely <= total.high
    assert found.requests.low >= documents * chunks
    assert found.prompt_tokens.low >= documents * chunks * tokens


@given(st.integers(2, 150), st.integers(1, 5), st.integers(1, 900))
def test_more_chunks_are_never_less_work(chunks: int, more: int, answer: int) -> None:
    few, many = (work(Group(1, n, n * 3000)).levels(answer) for n in (chunks, chunks + more))
    assert sum(level.prompt_tokens for level in few) <= sum(level.prompt_tokens for level in many)
    assert sum(level.requests for level in few) <= sum(level.requests for level in many)
