"""The documents: what a plan keeps of each, which is not its text, and the text when the document's turn has come."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from recipes.errors import InvalidRecipe, Problem
from recipes.inputs import expand_all
from recipes.prompts import PromptTemplate
from runners.schedule.schedule import shortest_first
from runners.text.files import Cut, cut_files
from runners.text.splitter import Splitter


class DocumentFailed(Exception):
    """A document that cannot be finished, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """An input and where its chunks lie: a few hundred bytes, so that many thousands can be planned at once.

    Offsets are in characters of the text as `open(path, encoding="utf-8")` reads it, where every line end is one.
    """

    rank: int
    """Which goes first; the shortest does, so that the first summary comes early and most come soon."""
    id: str
    path: str
    digest: bytes
    """Of the file."""
    characters: int
    tokens: int
    starts: array[int]
    ends: array[int]
    prompt_tokens: int
    """Of the prompts of all chunks together."""
    longest_prompt_tokens: int

    @property
    def chunks(self) -> int:
        """How many it begins with; one if it is short enough to be asked for at once."""
        return len(self.starts)

    def read(self) -> str:
        """Its text. Raises DocumentFailed if it is not the one that was planned with."""
        try:
            content = Path(self.path).read_bytes()
        except OSError as error:
            raise DocumentFailed(f"{self.path} cannot be read any more: {error.strerror}") from None
        if _digest(content) != self.digest:
            raise DocumentFailed(f"{self.path} has changed since the run was planned; run the recipe again")
        return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def read_all(
    patterns: Sequence[str], splitter: Splitter, template: PromptTemplate, *, whole_below: int
) -> tuple[Document, ...]:
    """Plan with every file of the patterns; one of fewer tokens than `whole_below` is not cut.

    Raises InvalidRecipe that names every file which cannot be used.
    """
    paths = _expanded(patterns)
    cuts = cut_files(paths, splitter, template=template)
    whole = replace(splitter, chunk_size=whole_below)
    documents = [
        _document(name, _whole(cut, whole, template))
        for name, cut in zip(names_of(paths), cuts, strict=False)  # fewer come where some are problems
    ]
    return tuple(
        replace(document, rank=rank)
        for document, rank in zip(documents, shortest_first([d.chunks for d in documents]), strict=True)
    )


def _whole(cut: Cut, splitter: Splitter, template: PromptTemplate) -> Cut:
    """A text that this splitter would leave whole, uncut."""
    if len(cut) == 1 or cut.tokens >= splitter.chunk_size:
        return cut
    (uncut,) = cut_files([cut.path], splitter, template=template)
    return uncut


def _document(name: str, cut: Cut) -> Document:
    return Document(
        rank=0,
        id=name,
        path=str(cut.path),
        digest=_digest(cut.path.read_bytes()),
        characters=cut.characters,
        tokens=cut.tokens,
        starts=cut.starts,
        ends=cut.ends,
        prompt_tokens=sum(cut.prompt_tokens),
        longest_prompt_tokens=max(cut.prompt_tokens),
    )


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


def _expanded(patterns: Sequence[str]) -> tuple[Path, ...]:
    """The input files; they were there when the recipe was read, and may have gone since."""
    try:
        return expand_all(patterns)
    except ValueError as error:
        raise InvalidRecipe([Problem(file="workload.inputs", code="value", message=str(error))]) from None


def names_of(paths: Sequence[Path]) -> list[str]:
    """A short name for each: the file's own, with its folder where two are alike."""
    alike = Counter(path.name for path in paths)
    return [path.name if alike[path.name] == 1 else str(path) for path in paths]
