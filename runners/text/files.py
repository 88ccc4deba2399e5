"""Cuts files up, many at once: what comes back is small, and the texts themselves are let go.

A text is read as Python reads text: UTF-8, every kind of line end as a newline. All offsets are in its characters.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path

from recipes.errors import InvalidRecipe, Problem
from recipes.prompts import PromptTemplate
from runners.text.splitter import Span, Splitter


@dataclass(frozen=True, slots=True)
class Cut:
    """A file that is cut up."""

    path: Path
    characters: int
    tokens: int
    """Of the whole text, special tokens included."""
    starts: array[int]
    ends: array[int]
    """Where each chunk lies, in characters. A text of fewer tokens than chunk_size is one chunk, unstripped."""
    prompt_tokens: array[int]
    """Of each chunk in its prompt, special tokens included; of the chunk alone, where no template was given."""

    @property
    def spans(self) -> list[Span]:
        return list(starmap(Span, zip(self.starts, self.ends, strict=True)))

    def __len__(self) -> int:
        return len(self.starts)


def cut_files(paths: Iterable[Path], splitter: Splitter, *, template: PromptTemplate | None = None) -> Iterator[Cut]:
    """Each file, in order. Raises InvalidRecipe at the end, with every file that is no text or has nothing in it."""
    problems: list[Problem] = []
    for path in paths:
        found = _cut(path, splitter, template)
        if isinstance(found, Problem):
            problems.append(found)
        else:
            yield found
    if problems:
        raise InvalidRecipe(problems)


def _cut(path: Path, splitter: Splitter, template: PromptTemplate | None) -> Cut | Problem:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        message = f"not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}"
        return Problem(file=str(path), code="encoding", message=message, suggestion="save it as UTF-8")
    if not text.strip():
        return Problem(file=str(path), code="empty", message="only white space", suggestion="remove it")
    tokens = splitter.counter.count(text)
    spans = [Span(0, len(text))] if tokens < splitter.chunk_size else splitter.spans(text)
    prompts = [text[start:end] if template is None else template.render(text[start:end]) for start, end in spans]
    return Cut(
        path,
        len(text),
        tokens,
        array("q", [span.start for span in spans]),
        array("q", [span.end for span in spans]),
        array("q", splitter.counter.count_all(prompts)),
    )
