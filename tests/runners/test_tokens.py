"""Token counts: the tokenizer's own, special tokens included, remembered or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from recipes.errors import Refused
from runners.text.tokens import TokenCounter

SHIPPED = Path(__file__).parents[2] / "recipes" / "models" / "lead" / "tokenizer.json"
TEXTS = [
    "",
    " ",
    "\n\n",
    "word",
    "Two  words.",
    "über, naïve, 漢字 and 🙂\n",
    "<s>",
    "x" * 300,
    "It was a dark night. " * 40,
]


@pytest.fixture
def counter() -> TokenCounter:
    return TokenCounter.from_path(SHIPPED)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(SHIPPED))


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_costs_its_tokens_and_the_special_ones(counter: TokenCounter, tokenizer: Tokenizer, text: str) -> None:
    assert counter.count(text) == len(tokenizer.encode(text).ids)
    assert counter.count(text) == len(tokenizer.encode(text, add_special_tokens=False).ids) + 1


def test_an_empty_text_costs_the_beginning_of_sequence(counter: TokenCounter) -> None:
    assert counter.count("") == 1


def test_many_at_once_count_as_each_alone_and_in_order(counter: TokenCounter, tokenizer: Tokenizer) -> None:
    repeated = [*TEXTS, *reversed(TEXTS)]
    expected = [len(tokenizer.encode(text).ids) for text in repeated]
    assert counter.count_all(repeated) == expected
    assert counter.count_all(repeated) == expected, "also from memory"
    assert counter.count_all([]) == []


def test_short_texts_are_tokenized_once() -> None:
    watched = Watched(Tokenizer.from_file(str(SHIPPED)))
    counter = TokenCounter.of(watched, "watched")  # type: ignore[arg-type]
    counter.count_all(["word", "word", "other"])
    counter.count_all(["other", "word", "third"])
    assert watched.seen == ["word", "other", "third"]


def test_a_tokenizers_own_truncation_and_padding_are_off(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(SHIPPED))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    counter = TokenCounter.from_path(tmp_path)
    plain = Tokenizer.from_file(str(SHIPPED))
    assert counter.count("a") == len(plain.encode("a").ids)
    assert counter.count(TEXTS[-1]) == len(plain.encode(TEXTS[-1]).ids) > 40


def test_a_folder_and_its_file_are_the_same(counter: TokenCounter) -> None:
    assert TokenCounter.from_path(SHIPPED.parent).count(TEXTS[-1]) == counter.count(TEXTS[-1])
    assert counter.name == str(SHIPPED)


def test_no_tokenizer_there(tmp_path: Path) -> None:
    with refused(str(tmp_path / "tokenizer.json"), "workload.tokenizer"):
        TokenCounter.from_path(tmp_path)
    with refused("nowhere.json", "workload.tokenizer"):
        TokenCounter.from_path(tmp_path / "nowhere.json")


@pytest.mark.parametrize("content", [b"", b"{}", b"not JSON", b"\xff\xfe\x00"])
def test_not_a_tokenizer(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with refused("not a tokenizer", "workload.tokenizer"):
        TokenCounter.from_path(tmp_path)


class Watched:
    """A tokenizer that takes down what it is asked."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.seen: list[str] = []

    def encode_batch_fast(self, texts: list[str]) -> Any:
        self.seen += texts
        return self._tokenizer.encode_batch_fast(texts)

    def encode(self, text: str) -> Any:
        return self._tokenizer.encode(text)

    def no_truncation(self) -> None:
        self._tokenizer.no_truncation()

    def no_padding(self) -> None:
        self._tokenizer.no_padding()


@contextmanager
def refused(words: str, advice: str) -> Iterator[None]:
    with pytest.raises(Refused) as caught:
        yield
    assert words in caught.value.message
    assert advice in caught.value.advice
