"""The documents: what a plan keeps of each, which is not its text, and the text when the document's turn has come."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b, file_digest
from pathlib import Path

from recipes.errors import InvalidRecipe, Problem
from recipes.inputs import expand_all
from recipes.prompts import PromptTemplate
from runners.schedule.schedule import shortest_first
from runners.text.files import Cut, Cutter, cut_files
from runners.text.source import NotText, TextFile
from runners.text.splitter import Splitter

_IN_MEMORY = 1 << 24
"""Bytes; of a larger file each chunk is read when it is sent."""
_DIGEST_BYTES = 16

Reader = Callable[[int, int], str]


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

    def read(self) -> Reader:
        """Gives what lies between two of its characters; a large file is not held in memory for that.

        Raises DocumentFailed, as the reader may, if the file is not the one that was planned with.
        """
        path = Path(self.path)
        try:
            if path.stat().st_size > _IN_MEMORY:
                self._check(_digest(path))
                return self._from(TextFile(path))
            content = path.read_bytes()
        except OSError as error:
            raise self._unreadable(error) from None
        self._check(_digest_of(content))
        text = content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
        return lambda start, end: text[start:end]

    def _from(self, file: TextFile) -> Reader:
        def between(start: int, end: int) -> str:
            try:
                return file.read(start, end)
            except (OSError, NotText) as error:
                raise self._unreadable(error) from None

        return between

    def _check(self, digest: bytes) -> None:
        if digest != self.digest:
            raise DocumentFailed(f"{self.path} has changed since the run was planned; run the recipe again")

    def _unreadable(self, error: Exception) -> DocumentFailed:
        return DocumentFailed(f"{self.path} cannot be read any more: {getattr(error, 'strerror', None) or error}")


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
        for cut, name in zip(cuts, names_of(paths), strict=False)  # fewer come where some are problems
    ]
    return tuple(
        replace(document, rank=rank)
        for document, rank in zip(documents, shortest_first([d.chunks for d in documents]), strict=True)
    )


def _whole(cut: Cut, splitter: Splitter, template: PromptTemplate) -> Cut:
    """A text that this splitter would leave whole, uncut."""
    if len(cut) == 1 or cut.tokens >= splitter.chunk_size:
        return cut
    uncut = Cutter(splitter, template).cut(cut.path)
    if isinstance(uncut, Problem):
        raise InvalidRecipe([uncut])
    return uncut


def _document(name: str, cut: Cut) -> Document:
    return Document(
        rank=0,
        id=name,
        path=str(cut.path),
        digest=_digest(cut.path),
        characters=cut.characters,
        tokens=cut.tokens,
        starts=cut.starts,
        ends=cut.ends,
        prompt_tokens=sum(cut.prompt_tokens),
        longest_prompt_tokens=max(cut.prompt_tokens),
    )


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return file_digest(file, lambda: blake2b(digest_size=_DIGEST_BYTES)).digest()


def _digest_of(content: bytes) -> bytes:
    return blake2b(content, digest_size=_DIGEST_BYTES).digest()


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
