"""Where the prompts of a load come from: a file with one per line, a dataset in JSONL, or words made up.

All are numbered from 0 and made when they are sent, so that a hundred thousand of them take no more memory than one.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import orjson

from recipes.errors import InvalidRecipe, Problem
from runners.text.tokens import TokenCounter

_OUTPUT_FIELDS = ("output_tokens", "output_len", "output_length", "max_tokens")
"""Names under which datasets keep how long an answer is to be."""
_ASKING = ("human", "user")
_MOST_PROBLEMS = 10
_COUNTED_LONGEST, _COUNTED_FIRST = 256, 2048
"""Of a large file, so many of its longest lines and of its first ones are counted in tokens."""

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request as it will be sent."""

    prompt: str
    max_tokens: int
    forced: bool = False
    """Whether the answer is to be just as long."""
    messages: Messages | None = None
    """A whole conversation, instead of the prompt."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What requests there are, in tokens."""

    prompt_tokens: float
    """The mean of a prompt."""
    output_tokens: float | None
    """The mean of an answer; None if that is for the model to say."""
    longest_tokens: int
    """The longest prompt with the whole of its answer."""
    longest_answer: int


class Prompts(Protocol):
    """What is asked."""

    @property
    def source(self) -> str:
        """For people."""
        ...

    @property
    def distinct(self) -> int | None:
        """How many differ; None if all do."""
        ...

    def ask(self, number: int) -> Ask:
        """The request of this number, the same whenever it is asked for."""
        ...

    def sizes(self, requests: int) -> Sizes:
        """Of the first so many requests."""
        ...


@dataclass(frozen=True)
class _Row:
    """A line of a file: its prompt, the conversation that it is if it is one, and how long its answer is to be."""

    prompt: str
    messages: Messages | None = None
    output_tokens: int | None = None
    answer: str | None = None
    """The answer that the dataset has; ours is to be as long."""


@dataclass(frozen=True)
class FilePrompts:
    """The lines of a file, in their order; after the last comes the first again."""

    path: Path
    field: str
    offsets: array[int]
    """Where each prompt's line begins, in bytes."""
    longest: tuple[int, ...]
    """The numbers of the longest lines in bytes, the longest first."""
    api: Literal["completions", "chat"]
    max_tokens: int
    counter: TokenCounter
    file: IO[bytes]

    @property
    def source(self) -> str:
        return self.path.name

    @property
    def distinct(self) -> int | None:
        return len(self.offsets)

    def ask(self, number: int) -> Ask:
        row = self._row(number)
        output = row.output_tokens
        if output is None and row.answer is not None:
            output = max(1, self.counter.count(row.answer) - self.counter.count(""))
        return Ask(row.prompt, output or self.max_tokens, output is not None, row.messages)

    def sizes(self, requests: int) -> Sizes:
        """Exact for the prompts of a file that is not very large; else from its first lines, and its longest ones."""
        used = min(requests, len(self.offsets))
        first = [self.ask(number) for number in range(min(used, _COUNTED_FIRST))]
        counted = self.counter.count_all([ask.prompt for ask in first])
        long = [self.ask(number) for number in self.longest if len(first) <= number < used]
        all_counted = [*counted, *self.counter.count_all([ask.prompt for ask in long])]
        answers = [ask.max_tokens for ask in first]
        return Sizes(
            prompt_tokens=sum(counted) / len(counted),
            output_tokens=sum(answers) / len(answers) if all(ask.forced for ask in first) else None,
            longest_tokens=max(n + ask.max_tokens for n, ask in zip(all_counted, [*first, *long], strict=True)),
            longest_answer=max(ask.max_tokens for ask in [*first, *long]),
        )

    def _row(self, number: int) -> _Row:
        self.file.seek(self.offsets[number % len(self.offsets)])
        line = self.file.readline()
        if self.path.suffix == ".jsonl":
            return _parsed(line, self.field, self.api)
        return _Row(line.decode("utf-8").strip("\r\n"))


def prompts_from(
    path: Path, field: str, api: Literal["completions", "chat"], max_tokens: int, counter: TokenCounter
) -> FilePrompts:
    """The file's prompts, every line of it checked. Raises InvalidRecipe with the lines that cannot be used."""
    if path.suffix in (".json", ".parquet", ".csv"):
        command = f"jq -c '.[]' {path.name} > {path.stem}.jsonl"
        advice = f"make one object per line of it: {command}" if path.suffix == ".json" else ""
        message = f"a {path.suffix} file is no list of prompts; write a text file with one per line, or .jsonl"
        raise InvalidRecipe([Problem(file=str(path), code="value", message=message, suggestion=advice)])
    offsets, lengths = array("Q"), array("I")
    problems: list[Problem] = []
    try:
        for number, begin, line in _lines(path):
            problem = _problem(path, number, line, field, api)
            if problem is None:
                offsets.append(begin)
                lengths.append(len(line))
            elif len(problems) < _MOST_PROBLEMS:
                problems.append(problem)
        if not offsets and not problems:
            advice = "write one prompt per line, or leave prompts out for synthetic ones"
            problems = [Problem(file=str(path), code="empty", message="there is no prompt in it", suggestion=advice)]
        if problems:
            raise InvalidRecipe(problems)
        file = path.open("rb")
    except OSError as error:
        message = error.strerror or str(error)
        raise InvalidRecipe([Problem(file=str(path), code="value", message=message)]) from None
    longest = sorted(range(len(offsets)), key=lengths.__getitem__, reverse=True)[:_COUNTED_LONGEST]
    return FilePrompts(path, field, offsets, tuple(longest), api, max_tokens, counter, file)


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """The lines that are not blank: their numbers from 1, where they begin, and what they hold."""
    begin = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, begin, line
            begin += len(line)


def _problem(path: Path, number: int, line: bytes, field: str, api: Literal["completions", "chat"]) -> Problem | None:
    """Why a line cannot be sent; None if it can."""
    try:
        if path.suffix == ".jsonl":
            _parsed(line, field, api)
        else:
            line.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"not UTF-8: byte {error.start} is 0x{line[error.start]:02x}"
        return Problem(file=str(path), line=number, column=1, code="encoding", message=message)
    except ValueError as error:
        what, _, advice = str(error).partition("; ")
        return Problem(file=str(path), line=number, column=1, code="value", message=what, suggestion=advice)
    return None


def _parsed(line: bytes, field: str, api: Literal["completions", "chat"]) -> _Row:
    """A line of a dataset. Raises ValueError that says what is wrong with it, UnicodeDecodeError if it is not UTF-8."""
    try:
        row = orjson.loads(line)
    except ValueError:
        line.decode("utf-8")
        raise ValueError("not JSON; a .jsonl file has one object per line") from None
    if not isinstance(row, dict):
        raise ValueError(f"not an object; write {{{json.dumps(field)}: …}}")
    output = next((row[key] for key in _OUTPUT_FIELDS if _is_count(row.get(key))), None)
    if (told := row.get(field, row.get("messages"))) is None and "conversations" in row:
        return _shared(row["conversations"], output)
    if isinstance(told, str) and told.strip():
        return _Row(told, None, output)
    if isinstance(told, list):
        return _conversation(told, output, api)
    if told is None:
        there = ", ".join(map(str, row)) or "nothing"
        raise ValueError(f"there is no {field} in it, but {there}; write traffic.field: NAME")
    raise ValueError(f"{field} holds no text; write traffic.field: NAME")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _conversation(told: list[Any], output: int | None, api: Literal["completions", "chat"]) -> _Row:
    """Messages as the chat API takes them."""
    if not told or not all(isinstance(one, dict) and "role" in one and "content" in one for one in told):
        raise ValueError("messages must be a list of {role, content}; see OpenAI's chat completions")
    if api != "chat":
        raise ValueError("messages are for the chat API; write workload.api: chat")
    text = "\n".join(one["content"] for one in told if isinstance(one["content"], str))
    return _Row(text, told, output)


def _shared(turns: Any, output: int | None) -> _Row:
    """A conversation of ShareGPT's form: its first question, and the length of the answer that it got.

    As `vllm bench serve --dataset-name sharegpt` takes it.
    """
    if not isinstance(turns, list) or not all(isinstance(one, dict) for one in turns):
        raise ValueError("conversations must be a list of {from, value}")
    for turn, answer in zip(turns, [*turns[1:], {}], strict=True):
        asked = turn.get("value")
        if turn.get("from") in _ASKING and isinstance(asked, str) and asked.strip():
            said = answer.get("value")
            return _Row(asked, None, output, said if isinstance(said, str) and said.strip() else None)
    raise ValueError("conversations hold no question from human or user")
