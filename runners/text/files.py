"""Cuts files up, many at once: what comes back is small, and the texts themselves are let go.

A text is read as Python reads text: UTF-8, every kind of line end as a newline. All offsets are in its characters.
Where there is much to cut, processes share it: each counts with the same kept counts, and is given one file after the
other; they end when this process does.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import TYPE_CHECKING

from recipes.errors import InvalidRecipe, Problem
from runners.text.source import NotText, TextFile
from runners.text.splitter import Span, Splitter
from runners.text.stream import stream
from runners.text.tokens import TokenCounter

if TYPE_CHECKING:
    from recipes.prompts import PromptTemplate

_IN_MEMORY = 1 << 22
"""Bytes; larger files are cut block by block."""
_WORTH_A_PROCESS = 24 << 20
"""Bytes that take about a second: several times what it takes to start one more process."""
_ROOT = Path(__file__).parents[2]


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


@dataclass(frozen=True)
class Cutter:
    """How files are cut up."""

    splitter: Splitter
    template: PromptTemplate | None = None

    def cut(self, path: Path) -> Cut | Problem:
        """The file's chunks, or what is wrong with it."""
        try:
            if not self._fits_memory(path):
                return self._streamed(path)
            return self._at_once(path, TextFile(path).read(0, path.stat().st_size))
        except NotText as error:
            return Problem(file=str(path), code="encoding", message=str(error), suggestion="save it as UTF-8")
        except OSError as error:
            return Problem(file=str(path), code="file", message=error.strerror or str(error), suggestion="")

    def _fits_memory(self, path: Path) -> bool:
        """Balanced chunks and sentences are made of a text as a whole."""
        whole = self.splitter.balanced or self.splitter.whole_sentences
        return whole or path.stat().st_size <= _IN_MEMORY

    def _at_once(self, path: Path, text: str) -> Cut | Problem:
        if not text or text.isspace():
            return _empty(path)
        counter = self.splitter.counter
        tokens = counter.count(text)
        spans = [Span(0, len(text))] if tokens < self.splitter.chunk_size else self.splitter.spans(text)
        prompts = counter.count_all([self._prompt(text[start:end]) for start, end in spans])
        return _cut_of(path, len(text), tokens, spans, prompts)

    def _streamed(self, path: Path) -> Cut | Problem:
        source, counter = TextFile(path), self.splitter.counter
        characters, blank = 0, True
        for block in source.blocks():
            characters, blank = characters + len(block), blank and block.isspace()
        if blank:
            return _empty(path)
        tokens = counter.count_blocks(source.blocks())
        if tokens < self.splitter.chunk_size:
            return self._at_once(path, source.read(0, characters))
        spans, prompts = [], array("q")
        for span, chunk in stream(self.splitter, source):
            spans.append(span)
            prompts.append(counter.count(self._prompt(chunk)))
        return _cut_of(path, characters, tokens, spans, prompts)

    def _prompt(self, chunk: str) -> str:
        return chunk if self.template is None else self.template.render(chunk)


def cut_files(
    paths: Iterable[Path], splitter: Splitter, *, template: PromptTemplate | None = None, processes: int | None = None
) -> Iterator[Cut]:
    """Each file, in order, as soon as it is cut. Raises InvalidRecipe at the end, with every file that is no text.

    `processes`: how many share the work; if left out, as many as the bytes are worth, on all cores. May be called from
    any thread.
    """
    paths = list(paths)
    problems: list[Problem] = []
    for found in _cuts(paths, Cutter(splitter, template), _processes(paths) if processes is None else processes):
        if isinstance(found, Problem):
            problems.append(found)
        else:
            yield found
    splitter.counter.keep()
    if problems:
        raise InvalidRecipe(problems)


def _cuts(paths: Sequence[Path], cutter: Cutter, processes: int) -> Iterator[Cut | Problem]:
    reopened = cutter.splitter.counter.reopened_from
    if processes < 2 or reopened is None:
        yield from map(cutter.cut, paths)
        return
    cutter.splitter.counter.keep()
    with _Workers(cutter, reopened, processes) as workers, ThreadPoolExecutor(processes) as threads:
        try:
            yield from threads.map(workers.cut, paths)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _processes(paths: Sequence[Path]) -> int:
    size = 0
    for path in paths:
        with suppress(OSError):
            size += path.stat().st_size
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, len(paths), size // _WORTH_A_PROCESS + 1)


def _cut_of(path: Path, characters: int, tokens: int, spans: Sequence[Span], prompts: Iterable[int]) -> Cut:
    starts, ends = array("q", (span.start for span in spans)), array("q", (span.end for span in spans))
    return Cut(path, characters, tokens, starts, ends, array("q", prompts))


def _empty(path: Path) -> Problem:
    return Problem(file=str(path), code="empty", message="only white space", suggestion="remove it")


class _Workers:
    """Processes that cut files, each at one at a time."""

    def __init__(self, cutter: Cutter, reopened: tuple[Path, Path], number: int) -> None:
        splitter = cutter.splitter
        settings = {
            "size": splitter.chunk_size,
            "overlap": splitter.chunk_overlap,
            "separators": tuple(splitter.separators),
            "balanced": splitter.balanced,
            "whole_sentences": splitter.whole_sentences,
        }
        self._order = pickle.dumps((reopened, settings, cutter.template))
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        self._all: list[subprocess.Popen[bytes]] = []
        self._number = number

    def __enter__(self) -> _Workers:
        # The interpreter is told where this package lies, and nothing else that may stand in the working directory.
        code = f"import sys; sys.path.append({str(_ROOT)!r}); from runners.text.files import work; work()"
        try:
            for _ in range(self._number):
                worker = subprocess.Popen(
                    [sys.executable, "-P", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
                )
                self._all.append(worker)
                _send(worker, self._order)
                self._idle.put(worker)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """A worker without further orders keeps what it counted, and ends."""
        for worker in self._all:
            assert worker.stdin
            assert worker.stdout
            with suppress(OSError):
                worker.stdin.close()
        for worker in self._all:
            worker.wait()
            assert worker.stdout
            worker.stdout.close()

    def cut(self, path: Path) -> Cut | Problem:
        worker = self._idle.get()
        try:
            _send(worker, pickle.dumps(path))
            assert worker.stdout
            found: Cut | Problem | str = pickle.load(worker.stdout)  # noqa: S301 - our own process
        except (EOFError, BrokenPipeError) as error:
            raise RuntimeError(f"a process that cuts texts ended with {worker.wait()}") from error
        finally:
            self._idle.put(worker)
        if isinstance(found, str):
            raise RuntimeError(f"cutting {path} failed in another process:\n{found}")
        return found


def _send(worker: subprocess.Popen[bytes], data: bytes) -> None:
    assert worker.stdin
    worker.stdin.write(data)
    worker.stdin.flush()


def work() -> None:
    """What such a process does: cut one file after the other, until no more are named."""
    import signal
    import traceback

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    (path, cache), settings, template = pickle.load(sys.stdin.buffer)  # noqa: S301
    counter = TokenCounter.from_path(path, cache=cache)
    splitter = Splitter(
        counter,
        settings["size"],
        settings["overlap"],
        settings["separators"],
        settings["balanced"],
        settings["whole_sentences"],
    )
    cutter = Cutter(splitter, template)
    with suppress(EOFError):
        while True:
            asked: Path = pickle.load(sys.stdin.buffer)  # noqa: S301
            try:
                found: Cut | Problem | str = cutter.cut(asked)
            except Exception:
                found = traceback.format_exc()
            sys.stdout.buffer.write(pickle.dumps(found))
            sys.stdout.buffer.flush()
    counter.keep()
