"""How much work follows from answers of a given length."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipes.ranges import Range
from runners.forecast.work import Group, Joining, Work, totals

JOINING = Joining(chunk_tokens=3000, overlap_tokens=512, template_tokens=100, max_levels=10)


def work(*groups: Group, max_tokens: int = 1000, joining: Joining | None = JOINING) -> Work:
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
