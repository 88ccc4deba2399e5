"""Token counts that are added up, against the tokenizer's own: kinds of tokenizers, odd texts, what is kept on disk."""

from __future__ import annotations

import os
import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

import runners.text.sums as sums
from runners.text.tokens import TokenCounter
from tests.runners.text.making import GLUE, KINDS, LLAMA3, WORDS, byte_level, random_text, sentencepiece

PLAIN = [word for word in WORDS if "<" not in word and not set(word) & {"\0", "\1"}]
"""Words that are no added token and spoil no quick way of counting."""
SIGNS = list(" \n\t\r.,'/aAbs1é’漢\u0301▁\u00a0\x1c🙂 \n  ")

characters = st.text(st.sampled_from(SIGNS), max_size=40)
prose = st.lists(st.tuples(st.sampled_from(PLAIN), st.sampled_from(GLUE)), max_size=30).map(
    lambda parts: "".join(word + glue for word, glue in parts)
)
anything = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
spoilt = st.integers(0, 10**6).map(lambda seed: random_text(seed, 12))


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, TokenCounter]:
    make, method = KINDS[request.param]
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = make()
    tokenizer.save(str(folder / "tokenizer.json"))
    counter = TokenCounter.from_path(folder, cache=folder)
    assert counter.method == method
    return tokenizer, counter


@settings(max_examples=100)
@given(text=st.one_of(prose, characters, anything, spoilt))
def test_a_text_counts_as_the_tokenizer_counts_it(made: tuple[Tokenizer, TokenCounter], text: str) -> None:
    tokenizer, counter = made
    assert counter.count(text) == len(tokenizer.encode(text).ids)


@settings(max_examples=30)
@given(text=st.one_of(prose, spoilt), cuts=st.sets(st.integers(0, 400), max_size=12))
def test_pieces_of_a_text_count_as_texts_of_their_own(
    made: tuple[Tokenizer, TokenCounter], text: str, cuts: set[int]
) -> None:
    tokenizer, counter = made
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in pairwise(edges)]
    assert counter.count_pieces(text, edges) == [len(tokenizer.encode(piece).ids) for piece in pieces]


def test_long_texts_are_taken_apart_between_words(
    made: tuple[Tokenizer, TokenCounter], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, counter = made
    monkeypatch.setattr(sums, "_SEGMENT", 5)
    for seed in range(30):
        choose = random.Random(seed)
        text = "".join(choose.choice(PLAIN) + choose.choice(GLUE) for _ in range(40))
        assert counter.count(text) == len(tokenizer.encode(text).ids)


@pytest.mark.parametrize(
    "text", ["漢" * 129, "x" * 400, "\n" + "漢" * 200, "a " + "漢" * 200 + " b", "漢" * 200 + "\n"]
)
def test_parts_too_long_to_be_remembered_are_counted(made: tuple[Tokenizer, TokenCounter], text: str) -> None:
    tokenizer, counter = made
    assert counter.count(text) == len(tokenizer.encode(text).ids)


@pytest.mark.parametrize("kind", ["llama2", "llama3"])
def test_a_text_in_blocks_counts_as_the_whole(kind: str, tmp_path: Path) -> None:
    KINDS[kind][0]().save(str(tmp_path / "tokenizer.json"))
    counter = TokenCounter.from_path(tmp_path, cache=tmp_path)
    for seed in range(40):
        choose = random.Random(seed)
        text = "".join(choose.choice(PLAIN) + choose.choice(GLUE) for _ in range(60))
        size = choose.choice([1, 7, 50, 1000])
        assert counter.count_blocks(text[i : i + size] for i in range(0, len(text), size)) == counter.count(text)


@pytest.mark.parametrize("kind", ["llama2", "llama3", "gpt2"])
def test_words_are_shown_to_the_tokenizer_once_and_long_ones_are_not_remembered(kind: str, tmp_path: Path) -> None:
    KINDS[kind][0]().save(str(tmp_path / "tokenizer.json"))
    counter = TokenCounter.from_path(tmp_path, cache=tmp_path)
    text = "a word and another word, " * 2000 + "x" * 5000
    assert counter.count(text) == len(Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids)
    assert counter._sums is not None
    assert len(counter._sums.known) < 20
    assert max(map(len, counter._sums.known)) < 200


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = sentencepiece()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    counter = TokenCounter.from_path(tmp_path, cache=tmp_path)
    monkeypatch.setattr(sums, "_MANY", 50)
    for i in range(40):
        text = " ".join(f"word{i}x{j}" for j in range(20)) + "  two  spaces"
        assert counter.count(text) == len(tokenizer.encode(text).ids)
    assert counter._sums is not None
    assert len(counter._sums.known) < 100


def test_half_a_surrogate_pair_counts_as_a_replacement_character(made: tuple[Tokenizer, TokenCounter]) -> None:
    tokenizer, counter = made
    for text in ("\ud83d", "a \ud83d b\n\n", "\udc00\ud83d"):
        replaced = "".join("\ufffd" if 0xD800 <= ord(c) < 0xE000 else c for c in text)
        assert counter.count(text) == len(tokenizer.encode(replaced).ids)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    byte_level(LLAMA3).save(str(tmp_path / "tokenizer.json"))
    return tmp_path


TEXT = " ".join(f"word{i % 97} number{i % 89}," for i in range(400)) + "\n\nthe end."


def kept_file(folder: Path) -> Path:
    (file,) = (folder / "counts").glob("*.counts")
    return file


def counter_of(folder: Path) -> TokenCounter:
    return TokenCounter.from_path(folder, cache=folder / "counts")


def opened(counter: TokenCounter) -> bool:
    return counter._tokenizer._tokenizer is not None  # type: ignore[attr-defined]


def test_kept_counts_answer_without_opening_the_tokenizer(folder: Path) -> None:
    first = counter_of(folder)
    tokens = first.count(TEXT)
    first.keep()
    second = counter_of(folder)
    assert second.count(TEXT) == tokens
    assert not opened(second)
    assert second.count("something new") == len(
        Tokenizer.from_file(str(folder / "tokenizer.json")).encode("something new")
    )
    assert opened(second)


def test_the_file_is_written_for_a_new_word_and_not_for_known_ones(folder: Path) -> None:
    for text, new in [(TEXT, True), (TEXT, False), ("number1,  number2,\tnumber3", True), (TEXT + " new", True)]:
        before = kept_file(folder).stat().st_ino if (folder / "counts").exists() else 0
        counter = counter_of(folder)
        counter.count(text)
        counter.keep()
        assert (kept_file(folder).stat().st_ino != before) == new
        assert not list((folder / "counts").glob(".*"))


def test_two_processes_keep_what_both_counted(folder: Path) -> None:
    one, other = counter_of(folder), counter_of(folder)
    ours, theirs = (" ".join(f"{name}{i}" for i in range(200)) for name in ("our", "their"))
    counts = one.count(ours), other.count(theirs)
    one.keep()
    other.keep()
    third = counter_of(folder)
    assert (third.count(ours), third.count(theirs)) == counts
    assert not opened(third)
    assert [path.suffix for path in (folder / "counts").iterdir()] == [".counts"]


@pytest.mark.parametrize("broken", ["cut", "flipped", "empty", "other format", "other release", "not a header"])
def test_a_broken_file_of_counts_is_ignored_and_written_again(folder: Path, broken: str) -> None:
    first = counter_of(folder)
    tokens = first.count(TEXT)
    first.keep()
    file = kept_file(folder)
    good = file.read_bytes()
    flipped = bytearray(good)
    flipped[-len(good) // 3] ^= 1
    file.write_bytes(
        {
            "cut": good[:-5],
            "flipped": bytes(flipped),
            "empty": b"",
            "other format": good.replace(b'"format": ', b'"format": 1'),
            "other release": good.replace(b'"tokenizers": "', b'"tokenizers": "0'),
            "not a header": b"[1]\n" + good,
        }[broken]
    )
    second = counter_of(folder)
    assert second.count(TEXT) == tokens
    assert opened(second)
    second.keep()
    third = counter_of(folder)
    assert third.count(TEXT) == tokens
    assert not opened(third)


def test_another_tokenizer_has_other_counts(folder: Path) -> None:
    first = counter_of(folder)
    first.count(TEXT)
    first.keep()
    sentencepiece().save(str(folder / "tokenizer.json"))
    second = counter_of(folder)
    assert second.count(TEXT) == len(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT).ids)


def test_counting_goes_on_where_nothing_can_be_kept(folder: Path) -> None:
    (folder / "counts").write_text("a file where a folder should be")
    counter = counter_of(folder)
    tokens = counter.count(TEXT)
    counter.keep()
    assert counter.count(TEXT) == tokens


@pytest.fixture(scope="module")
def mistral() -> Path:
    path = Path(os.environ.get("RECIPE_TEST_DATA", "")) / "mistral-v1-tokenizer.json"
    if "RECIPE_TEST_DATA" not in os.environ or not path.is_file():
        pytest.skip("RECIPE_TEST_DATA names no folder with mistral-v1-tokenizer.json")
    return path


def test_mistrals_tokenizer_counts_by_words(mistral: Path, tmp_path: Path) -> None:
    counter, tokenizer = TokenCounter.from_path(mistral, cache=tmp_path), Tokenizer.from_file(str(mistral))
    assert counter.method == "words"
    book = (mistral.parent / "frankenstein.txt").read_text(encoding="utf-8")
    choose = random.Random(47)
    for seed in range(400):
        start = choose.randrange(len(book))
        text = random_text(seed, 10) if seed % 2 else book[start : start + choose.randrange(2000)]
        assert counter.count(text) == len(tokenizer.encode(text).ids)
