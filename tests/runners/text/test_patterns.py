"""What is proven of pre-tokenizers' expressions, and their pieces by Python's `re`, against the tokenizers library."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, pre_tokenizers

from runners.text.patterns import Unreadable, read, shape
from tests.runners.text.making import DEEPSEEK, GPT2, LLAMA3, O200K, QWEN2, random_text

EXPRESSIONS = {"gpt2": GPT2, "llama3": LLAMA3, "qwen2": QWEN2, "o200k": O200K, "deepseek": DEEPSEEK}
# Before spaces, before newlines, behind newlines.
PROVEN = {
    "gpt2": (True, True, False),
    "llama3": (True, False, True),
    "qwen2": (True, False, True),
    "o200k": (True, False, True),
    "deepseek": (True, False, True),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_known_expressions_are_proven(name: str) -> None:
    found = read(EXPRESSIONS[name])
    assert (found.cut_before_space, found.cut_before_newline, found.cut_after_newlines) == PROVEN[name]
    assert found.covers_blanks
    assert found.source is not None


@pytest.mark.parametrize(
    ("expression", "before_space", "before_newline", "after_newlines"),
    [
        (r"\S+|\s+", True, True, True),
        (r"[a-z ]+|\s+", False, True, True),
        (r"[^a]+|\s+", False, False, False),
        (r"a ?b|\s+", False, True, True),
        (r"(?:a|b\n)+|\s+", True, False, False),
        (r"[^\s]\n{0,2}|\s+", True, False, True),
        (r"\n[a-z]|\s+", True, True, False),
        (r"[!-~]+ |\s+", False, True, True),
        (r"\p{L}+\P{N}?|\s+", False, False, True),
        (r"\S+|\s+(?!\S)|\s+", True, True, False),
        (r"\S+|\s*[\r\n]+|\s+(?!\S)|\s+", True, True, True),
    ],
)
def test_what_may_stand_side_by_side(
    expression: str, before_space: bool, before_newline: bool, after_newlines: bool
) -> None:
    found = read(expression)
    assert found.cut_before_space == before_space
    assert found.cut_before_newline == before_newline
    assert found.cut_after_newlines == after_newlines


@pytest.mark.parametrize(
    "expression",
    [
        *(r"(?<=a)b", r"a$", r"^a", r".", r"\ba", r"(a)\1", r"[[a]]", r"a(?=b)", r"\X"),
        *(r"(?<n>a)", r"a{2}+", r"[a", r"(a", r"\w"),
    ],
)
def test_an_expression_of_another_kind_is_not_guessed_at(expression: str) -> None:
    with pytest.raises(Unreadable):
        read(expression)


def theirs(expression: str, text: str) -> list[str]:
    cut = pre_tokenizers.Split(Regex(expression), "isolated")
    return [text[a:b] for _, (a, b) in cut.pre_tokenize_str(text)]


def ours(expression: str, text: str) -> list[str] | None:
    source, shaped = read(expression).source, shape(text)
    assert source is not None
    return None if shaped is None else [text[m.start() : m.end()] for m in re.finditer(source, shaped)]


@pytest.mark.parametrize("name", EXPRESSIONS)
@settings(max_examples=120)
@given(
    text=st.one_of(
        st.text(st.characters(max_codepoint=127), max_size=40),
        st.text(st.sampled_from(" \n\t\r'sSvVEe.,/1aÀé’漢ªʰ½²\u00a0\u3000\u0301🙂"), max_size=40),
        st.text(st.characters(exclude_categories=("Cs",)), max_size=20),
        st.integers(0, 10**6).map(lambda seed: random_text(seed, 6)),
    )
)
def test_pieces_are_those_of_the_library(name: str, text: str) -> None:
    found = ours(EXPRESSIONS[name], text)
    if found is not None and "".join(found) == text:  # else the tokenizer is asked
        assert found == theirs(EXPRESSIONS[name], text)


def test_every_character_with_a_stand_in_has_the_librarys_category() -> None:
    every = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    known = [character for character in every if shape(character) is not None]
    assert len(known) > 90_000
    joined = "".join(known)
    for category in (r"\p{L}", r"\p{N}", r"\p{M}", r"\p{P}", r"\p{S}", r"\p{Lu}", r"\p{Ll}", r"\s"):
        source = re.compile(read(category).source or "")
        left = pre_tokenizers.Split(Regex(category), "removed").pre_tokenize_str(joined)
        in_theirs = set(known).difference("".join(joined[a:b] for _, (a, b) in left))
        assert {character for character in known if source.fullmatch(shape(character) or "")} == in_theirs
