"""Balanced chunks and whole sentences: what always holds, whatever the text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes import catalogue
from runners.text.splitter import SEPARATORS, Span, Splitter, even_windows, sentence_edges, windows
from runners.text.tokens import RoughCounter, TokenCounter

COUNTER = TokenCounter.from_path(catalogue.builtin_model("lead"), cache=Path("/nonexistent"))
SENTENCES = [
    "It rains.",
    "Is it he?",
    "“Go!”",
    "Mr. Smith met Dr. J. R. Jones.",
    "It cost 3.14 euros.",
    "日本語です。",
    "No",
]
GLUE = [" ", " ", " ", "  ", "\n", "\n\n", " \n\n  ", ""]

prose = st.lists(st.tuples(st.sampled_from(SENTENCES), st.sampled_from(GLUE)), max_size=60).map(
    lambda parts: "".join(sentence + glue for sentence, glue in parts)
)
options = st.fixed_dictionaries({"balanced": st.booleans(), "whole_sentences": st.booleans()})


def covered(text: str, spans: Sequence[Span]) -> bool:
    """Whether every character but white space is in a chunk."""
    inside = set()
    for span in spans:
        inside.update(range(*span))
    return all(character.isspace() or i in inside for i, character in enumerate(text))


@settings(max_examples=100)
@given(text=prose, size=st.integers(12, 80), share=st.floats(0, 0.9), chosen=options)
def test_chunks_cover_the_text_in_order_and_hold_no_more_than_asked(
    text: str, size: int, share: float, chosen: dict[str, bool]
) -> None:
    splitter = Splitter(COUNTER, size, int(size * share), **chosen)
    spans = splitter.spans(text)
    assert covered(text, spans)
    assert all(a.start <= b.start and a.end <= b.end for a, b in pairwise(spans))
    assert all(text[a:b] == text[a:b].strip() != "" for a, b in spans)
    assert all(tokens <= size for tokens in COUNTER.count_all(splitter.split(text)))


@settings(max_examples=100)
@given(text=prose, size=st.integers(60, 120), share=st.floats(0, 0.6), balanced=st.booleans())
def test_whole_sentences_begin_and_end_every_chunk(text: str, size: int, share: float, balanced: bool) -> None:
    edges = sentence_edges(text)
    begins = {edge + len(text[edge:]) - len(text[edge:].lstrip()) for edge in edges}
    ends = {len(text[:edge].rstrip()) for edge in edges}
    overlap = int(size * share)
    spans = Splitter(COUNTER, size, overlap, balanced=balanced, whole_sentences=True).spans(text)
    assert all(span.start in begins and span.end in ends for span in spans)
    shared = [text[b.start : a.end] for a, b in pairwise(spans) if b.start < a.end]
    assert all(COUNTER.count(part) <= overlap + 2 for part in shared)


@settings(max_examples=100)
@given(
    counts=st.lists(st.integers(0, 20), min_size=1, max_size=80),
    joint=st.integers(0, 2),
    size=st.integers(21, 120),
    share=st.floats(0, 0.9),
)
def test_balanced_chunks_are_no_more_and_none_is_larger(counts: list[int], joint: int, size: int, share: float) -> None:
    overlap = int(size * share)
    full, even = (list(made(counts, joint, size, overlap)) for made in (windows, even_windows))
    assert len(even) <= len(full)
    sizes = [[sum(counts[a:b]) + joint * (b - a - 1) for a, b in found] for found in (full, even)]
    assert max(sizes[1]) <= max(sizes[0])


def test_balanced_chunks_have_no_small_last_one() -> None:
    text = "\n\n".join(f"Paragraph {i} says that it is a paragraph, and little more." for i in range(100))
    full, even = (COUNTER.count_all(Splitter(COUNTER, 300, 20, balanced=b).split(text)) for b in (False, True))
    assert len(even) == len(full)
    assert min(full) < 0.6 * max(full)
    assert min(even) > 0.8 * max(even)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two? Three! Four", ["One.", " Two?", " Three!", " Four"]),
        ("Mr. Smith met Dr. J. R. Jones at 3.14. He left.", ["Mr. Smith met Dr. J. R. Jones at 3.14.", " He left."]),
        ("It was fine... or so. “So?” “Yes.”", ["It was fine... or so.", " “So?”", " “Yes.”"]),
        ("日本語です。次です。", ["日本語です。", "次です。"]),
        ("A title\n\nA text", ["A title", "\n\nA text"]),
        ("", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert [text[a:b] for a, b in pairwise(sentence_edges(text))] == sentences


@pytest.mark.parametrize("text", ["." * 300_000, '."' * 150_000, " " * 300_000, "a" * 300_000, "\n" * 300_000])
@pytest.mark.timeout(120)
def test_sentences_are_found_in_time_that_grows_with_the_text_alone(text: str) -> None:
    assert len(sentence_edges(text)) < 5


def test_a_rough_measure_cuts_too() -> None:
    text = "A sentence of some words. " * 200
    for separators in SEPARATORS.values():
        for chosen in ({}, {"balanced": True}, {"whole_sentences": True}):
            assert len(Splitter(RoughCounter(), 100, 10, separators, **chosen).spans(text)) > 1
