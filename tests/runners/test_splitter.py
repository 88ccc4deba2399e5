"""The splitter against langchain's, chunk by chunk."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_text_splitters import RecursiveCharacterTextSplitter

from runners.text.splitter import SEPARATORS, Splitter
from runners.text.tokens import TokenCounter
from tests.runners.text.making import KINDS
from tests.runners.text.making import random_text as odd_text

COUNTER = TokenCounter.from_path(Path(__file__).parents[2] / "recipes" / "models" / "lead" / "tokenizer.json")
SETS = sorted(SEPARATORS)
WORDS = ["it", "was", "the", "creature", "Ingolstadt", "über", "漢字", "🙂", "antidisestablishmentarianism", "x" * 40]
GLUE = [" ", " ", " ", " ", "  ", ". ", ".", "\n", "\n", "\n\n", "\n\n\n", " \n", "\t", "..", "\r\n"]

pieces = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(GLUE)), max_size=120)
any_text = st.text(alphabet=st.sampled_from("ab.é🙂 \n\t"), max_size=200)


def langchain(text: str, chunk_size: int, chunk_overlap: int, separators: str) -> list[str]:
    splitter = RecursiveCharacterTextSplitter(
        chunk_size=chunk_size,
        chunk_overlap=chunk_overlap,
        keep_separator=True,
        strip_whitespace=True,
        separators=list(SEPARATORS[separators]),
        length_function=COUNTER.count,
    )
    return splitter.split_text(text)


def ours(text: str, chunk_size: int, chunk_overlap: int, separators: str) -> list[str]:
    return Splitter(COUNTER, chunk_size, chunk_overlap, SEPARATORS[separators]).split(text)


def random_text(seed: int, words: int = 600) -> str:
    choose = random.Random(seed)
    return "".join(choose.choice(WORDS) + choose.choice(GLUE) for _ in range(words))


@pytest.mark.parametrize("separators", SETS)
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(parts=pieces, size=st.integers(2, 60), share=st.floats(0, 0.95))
def test_random_prose_is_cut_as_langchain_cuts_it(
    separators: str, parts: list[tuple[str, str]], size: int, share: float
) -> None:
    text, overlap = "".join(word + glue for word, glue in parts), int(size * share)
    assert ours(text, size, overlap, separators) == langchain(text, size, overlap, separators)


@pytest.mark.parametrize("separators", SETS)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(text=any_text, size=st.integers(2, 20), share=st.floats(0, 0.95))
def test_random_characters_are_cut_as_langchain_cuts_them(separators: str, text: str, size: int, share: float) -> None:
    overlap = int(size * share)
    assert ours(text, size, overlap, separators) == langchain(text, size, overlap, separators)


@pytest.mark.parametrize("separators", SETS)
@pytest.mark.parametrize(("size", "overlap"), [(100, 0), (100, 40), (300, 299), (1000, 512)])
def test_longer_texts_are_cut_as_langchain_cuts_them(separators: str, size: int, overlap: int) -> None:
    for seed in range(3):
        text = random_text(seed)
        chunks = ours(text, size, overlap, separators)
        assert chunks == langchain(text, size, overlap, separators)
        assert len(chunks) > 1


@pytest.mark.parametrize("kind", ["llama2", "mistral3", "llama3", "gpt2", "qwen2", "word pieces", "unigram"])
def test_any_tokenizer_cuts_odd_texts_as_langchain_does(tmp_path: Path, kind: str) -> None:
    tokenizer = KINDS[kind][0]()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    counter = TokenCounter.from_path(tmp_path, cache=tmp_path)
    for seed in range(20):
        text, size, overlap = odd_text(seed, 60), 4 + 9 * (seed % 11), seed % 4
        for separators in SETS:
            theirs = RecursiveCharacterTextSplitter(
                chunk_size=size,
                chunk_overlap=overlap,
                keep_separator=True,
                separators=list(SEPARATORS[separators]),
                length_function=lambda piece: len(tokenizer.encode(piece).ids),
            )
            assert Splitter(counter, size, overlap, SEPARATORS[separators]).split(text) == theirs.split_text(text)


class Characters:
    """Counts characters, so that chunks can be worked out by hand."""

    def count(self, text: str) -> int:
        return len(text)

    def count_pieces(self, text: str, edges: Sequence[int]) -> list[int]:
        return [end - start for start, end in pairwise(edges)]


@pytest.mark.parametrize(
    ("text", "size", "overlap", "chunks"),
    [
        ("aaaa bbbb cccc", 10, 5, ["aaaa bbbb", "bbbb cccc"]),
        ("aaaa bbbb cccc", 10, 4, ["aaaa bbbb", "cccc"]),
        ("aa\n\nbb bb\n\ncc", 5, 0, ["aa", "bb", "bb", "cc"]),
        ("abcdefgh", 3, 1, ["abc", "cde", "efg", "gh"]),
    ],
)
def test_chunks_worked_out_by_hand(text: str, size: int, overlap: int, chunks: list[str]) -> None:
    assert Splitter(Characters(), size, overlap, SEPARATORS["paragraphs"]).split(text) == chunks  # type: ignore[arg-type]


def test_no_text_makes_no_chunk() -> None:
    for separators in SETS:
        assert ours("", 10, 2, separators) == []
        assert ours(" \n\n \n", 10, 2, separators) == []


def test_chunks_hold_no_more_than_asked_where_they_can_be_cut() -> None:
    chunks = ours(random_text(7), 80, 30, "paragraphs")
    assert max(map(COUNTER.count, chunks)) <= 80
    assert all(chunk == chunk.strip() and chunk for chunk in chunks)


@pytest.fixture(scope="module")
def shared() -> Path:
    """The folder of test data that RECIPE_TEST_DATA names."""
    folder = Path(os.environ.get("RECIPE_TEST_DATA", ""))
    if "RECIPE_TEST_DATA" not in os.environ or not (folder / "frankenstein.txt").is_file():
        pytest.skip("RECIPE_TEST_DATA names no folder with frankenstein.txt and mistral-v1-tokenizer.json")
    return folder


@pytest.mark.parametrize("separators", SETS)
def test_frankenstein_makes_the_published_47_chunks(shared: Path, separators: str) -> None:
    counter = TokenCounter.from_path(shared / "mistral-v1-tokenizer.json")
    text = (shared / "frankenstein.txt").read_text(encoding="utf-8")
    assert len(Splitter(counter, 3000, 512, SEPARATORS[separators]).split(text)) == 47
