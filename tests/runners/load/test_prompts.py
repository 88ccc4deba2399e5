"""Prompts of files: one per line, and the datasets that people have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from recipes import catalogue
from recipes.errors import InvalidRecipe, Problem
from runners.text.tokens import TokenCounter
from runners.workloads.load.prompts import Ask, FilePrompts, prompts_from

LEAD = TokenCounter.from_path(catalogue.ROOT / "models" / "lead")
HELLO = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def read(path: Path, api: Literal["completions", "chat"] = "completions", field: str = "prompt") -> FilePrompts:
    return prompts_from(path, field, api, 100, LEAD)


def rows(folder: Path, *found: Any) -> Path:
    path = folder / "set.jsonl"
    path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in found))
    return path


def problems(path: Path, **options: Any) -> tuple[Problem, ...]:
    with pytest.raises(InvalidRecipe) as caught:
        read(path, **options)
    return caught.value.problems


def test_each_line_is_a_prompt_and_blank_ones_are_none(folder: Path) -> None:
    path = folder / "prompts.txt"
    path.write_bytes("First.\r\n\n   \n  Zweite, schön.\nLast".encode())
    prompts = read(path)
    assert [prompts.ask(n).prompt for n in range(3)] == ["First.", "  Zweite, schön.", "Last"]
    assert prompts.ask(0) == Ask("First.", 100)
    assert prompts.distinct == 3


def test_after_the_last_comes_the_first_again(folder: Path) -> None:
    prompts = read(rows(folder, {"prompt": "a"}, {"prompt": "b"}))
    assert [prompts.ask(n).prompt for n in range(5)] == ["a", "b", "a", "b", "a"]


@pytest.mark.parametrize("key", ["output_tokens", "output_len", "max_tokens"])
def test_a_row_may_say_how_long_its_answer_is_to_be(folder: Path, key: str) -> None:
    assert read(rows(folder, {"prompt": "a", key: 7})).ask(0) == Ask("a", 7, forced=True)


def test_a_row_that_says_no_sensible_length_has_the_usual_one(folder: Path) -> None:
    prompts = read(rows(folder, {"prompt": "a", "output_tokens": 0}, {"prompt": "a", "output_tokens": True}))
    assert prompts.ask(0) == prompts.ask(1) == Ask("a", 100)


def test_the_field_may_have_another_name(folder: Path) -> None:
    path = rows(folder, {"question": "why?", "prompt": "no"})
    assert read(path, field="question").ask(0).prompt == "why?"


def test_messages_are_sent_as_they_are_to_the_chat_api(folder: Path) -> None:
    ask = read(rows(folder, {"messages": HELLO, "max_tokens": 3}), api="chat").ask(0)
    assert (ask.messages, ask.max_tokens, ask.forced) == (HELLO, 3, True)
    assert ask.prompt == "Be brief.\nHello."


def test_a_shared_conversation_is_its_first_question_and_as_long_as_the_answer_was(folder: Path) -> None:
    turns = [{"from": "system", "value": "x"}, {"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]
    ask = read(rows(folder, {"id": "1", "conversations": turns})).ask(0)
    assert ask == Ask("Why?", LEAD.count("Because.") - LEAD.count(""), forced=True)


def test_every_line_that_cannot_be_sent_is_named(folder: Path) -> None:
    path = rows(
        folder,
        {"prompt": "good"},
        {"question": "x", "id": 3},
        "{not json",
        [1],
        {"prompt": "  "},
        {"messages": HELLO},
        {"conversations": [{"from": "gpt", "value": "x"}]},
    )
    found = problems(path)
    assert [(p.line, p.message) for p in found] == [
        (2, "there is no prompt in it, but question, id"),
        (3, "not JSON"),
        (4, "not an object"),
        (5, "prompt holds no text"),
        (6, "messages are for the chat API"),
        (7, "conversations hold no question from human or user"),
    ]
    assert {p.file for p in found} == {str(path)}
    assert "traffic.field" in found[0].suggestion


def test_a_line_that_is_not_utf8_is_named(folder: Path) -> None:
    (folder / "latin.txt").write_bytes(b"fine\ncaf\xe9\n")
    (problem,) = problems(folder / "latin.txt")
    assert (problem.line, problem.code, problem.message) == (2, "encoding", "not UTF-8: byte 3 is 0xe9")


def test_a_very_broken_file_does_not_fill_the_screen(folder: Path) -> None:
    assert len(problems(rows(folder, *["{"] * 500))) == 10


@pytest.mark.parametrize("content", ["", "\n  \n"])
def test_a_file_without_a_prompt_is_refused(folder: Path, content: str) -> None:
    (folder / "none.txt").write_text(content)
    (problem,) = problems(folder / "none.txt")
    assert "no prompt" in problem.message


def test_an_array_is_refused_with_the_command_that_makes_lines_of_it(folder: Path) -> None:
    (folder / "sharegpt.json").write_text("[]")
    (problem,) = problems(folder / "sharegpt.json")
    assert "jq -c '.[]' sharegpt.json > sharegpt.jsonl" in problem.suggestion


def test_sizes_are_those_of_the_prompts_that_are_sent(folder: Path) -> None:
    long = "word " * 300
    prompts = read(
        rows(folder, {"prompt": "a b", "output_tokens": 5}, {"prompt": "a", "output_tokens": 9}, {"prompt": long})
    )
    assert prompts.sizes(2).longest_tokens == max(LEAD.count("a b") + 5, LEAD.count("a") + 9)
    assert prompts.sizes(2).output_tokens == 7
    assert prompts.sizes(10).longest_tokens == LEAD.count(long) + 100
    assert prompts.sizes(10).output_tokens is None


def test_the_longest_prompt_of_a_very_large_file_is_found_anywhere_in_it(folder: Path) -> None:
    long = "word " * 900
    prompts = read(rows(folder, *[{"prompt": f"a {n}"} for n in range(5000)], {"prompt": long}, {"prompt": "b"}))
    assert prompts.sizes(100_000).longest_tokens == LEAD.count(long) + 100
    assert prompts.sizes(5000).longest_tokens < LEAD.count(long)
