"""Summarises documents: splits each, summarises the chunks, and makes one summary of theirs.

By default with the semantics of the script that the first recipe grew out of: a text of fewer tokens than chunk_size is
asked for at once; a longer one is split, its summaries are joined with newlines, and the join is summarised in turn.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from recipes.errors import InvalidRecipe, Problem, WorkloadFailed
from recipes.prompts import load_prompt
from recipes.spec import Recipe, digest_of
from runners.records import EMPTY, RequestRecord
from runners.text.tokens import TokenCounter
from runners.workload import Estimate, Means, Workload
from runners.workloads.summarize.asking import Asker
from runners.workloads.summarize.documents import Document, DocumentFailed, read_all
from runners.workloads.summarize.estimate import estimate_of, work_of
from runners.workloads.summarize.foresight import Foresight, Outlook
from runners.workloads.summarize.merging import hierarchical, levels_of_pairs, pairwise
from runners.workloads.summarize.outputs import Outputs, buck_slip, output_name
from runners.workloads.summarize.prepared import Prepared, splitter_of
from runners.workloads.summarize.recursive import recursive
from runners.workloads.summarize.refine import refine
from runners.workloads.summarize.tree import Node, Tree

_WRITERS = 16
"""Threads; a disk puts what several of them write on its plates at once."""

_MOST_UNWRITTEN = 256
"""Documents that wait to be written, while others are still begun."""

Strategy = Callable[[Asker], Awaitable[Node]]
STRATEGIES: Mapping[str, Strategy] = {
    "recursive": recursive,
    "hierarchical": hierarchical,
    "pairwise": pairwise,
    "refine": refine,
}


class Summarize(Workload):
    name = "summarize"

    def prepare(self, recipe: Recipe, counter: TokenCounter) -> Prepared:
        settings = recipe.workload
        template = load_prompt(settings.prompt)
        splitter = splitter_of(settings, template, counter)
        documents = read_all(settings.inputs, splitter, template, whole_below=settings.chunk_size)
        if settings.strategy == "pairwise":
            _refuse_too_many_levels(documents, settings.max_levels)
        return Prepared(recipe, template, splitter, documents, counter.count(template.render("")))

    def estimate(self, prepared: Prepared) -> Estimate:
        """Exact for the first level; above it, a text may be as long as a chunk, and answers are not known yet."""
        return estimate_of(prepared)

    async def drive(self, prepared: Prepared, means: Means) -> None:
        drive = _Drive(prepared, means)
        failures = await drive.run()
        prepared.splitter.counter.keep()
        if failures:
            raise WorkloadFailed(
                f"{len(failures)} of {drive.begun} documents failed: {failures[0]}",
                advice="the answers so far are in answers.jsonl, every try in requests.jsonl",
            )

    def figures(self, prepared: Prepared, records: Sequence[RequestRecord]) -> Mapping[str, Any] | None:
        """The strategy, of which texts, and how far it had to go."""
        return {
            "kind": self.name,
            "strategy": prepared.recipe.workload.strategy,
            "inputs_digest": digest_of(sorted(document.digest.hex() for document in prepared.documents)),
            "prompt_digest": digest_of(prepared.template.text),
            "chunks": sum(document.chunks for document in prepared.documents),
            "levels": max((record.level for record in records), default=0),
            "empty": sum(record.error == EMPTY for record in records),
        }


class _Drive:
    """The documents, begun one after the other as the engine has room for them."""

    def __init__(self, prepared: Prepared, means: Means) -> None:
        self._prepared, self._means = prepared, means
        self._foresight = Foresight(work_of(prepared))
        self._settings_key = means.client.key(_settings_key(prepared))
        # Of their own: texts that are to be read must not wait behind a slow disk's writes.
        self._writers = ThreadPoolExecutor(_WRITERS, "outputs")
        self._unwritten = asyncio.Semaphore(_MOST_UNWRITTEN)
        self.begun = 0

    async def run(self) -> list[str]:
        """Write all outputs that can be written; returns why the others failed."""
        todo, done = [], []
        for document in self._prepared.documents:
            output = self._means.recorder.output_of(document.id, self._key(document))
            if output is None:
                todo.append(document)
            else:
                done.append(output)
        self._outputs = Outputs(self._means.outputs, done)
        self._means.recorder.expect(sum(map(self._requests, todo)))
        todo.sort(key=lambda document: document.rank)
        outlooks = deque(
            Outlook(self._means.schedule, document.rank, self._foresight.first(document)) for document in todo
        )
        failures: list[str] = []
        with self._writers:
            await self._write_all(todo, outlooks, failures)
        return failures

    async def _write_all(self, todo: Sequence[Document], outlooks: deque[Outlook], failures: list[str]) -> None:
        async with asyncio.TaskGroup() as group:
            for document in todo:
                async with self._unwritten:  # where the disk is slower than the engine, nothing piles up
                    await self._means.schedule.room(document.rank)
                self.begun += 1
                group.create_task(self._write(document, outlooks.popleft(), failures))

    def _requests(self, document: Document) -> int:
        """Those that are known before the first answer."""
        return 2 * document.chunks - 1 if self._prepared.recipe.workload.strategy == "pairwise" else document.chunks

    def _key(self, document: Document) -> str:
        """Stands for everything that a document's output depends on."""
        return digest_of([self._settings_key, document.digest.hex(), *document.starts, *document.ends])

    async def _write(self, document: Document, outlook: Outlook, failures: list[str]) -> None:
        """Write the document's output file, or say why there is none."""
        started = time.monotonic()
        try:
            tree = await self._tree(document, outlook)
        except DocumentFailed as failure:
            failures.append(f"{document.id}: {failure}")
            return
        finally:
            outlook.becomes({})
        prepared = self._prepared
        template = (prepared.template.text, prepared.template.filename)
        seconds = time.monotonic() - started
        slip = buck_slip(prepared.recipe, template, prepared.splitter, document, self._means.endpoint, seconds)
        name = output_name(Path(document.path).stem, slip["model_local_identifier"])
        data = {"summary": tree.root.text, "buck_slip": slip, "tree": tree.row()}
        async with self._unwritten:
            path = await asyncio.get_running_loop().run_in_executor(self._writers, self._outputs.write, name, data)
        self._means.recorder.document_done(document.id, path, self._key(document))

    async def _tree(self, document: Document, outlook: Outlook) -> Tree:
        read = await asyncio.to_thread(document.read)
        asker = Asker(self._prepared, document, read, self._means, self._foresight, outlook)
        root = await STRATEGIES[self._prepared.recipe.workload.strategy](asker)
        return Tree(root, asker.nodes)


def _settings_key(prepared: Prepared) -> str:
    """What besides the request's own settings decides what is asked, and what becomes of the answers."""
    settings = prepared.recipe.workload
    names = {"chunk_size", "chunk_overlap", "separators", "balanced", "whole_sentences", "strategy", "on_empty"}
    return digest_of([prepared.template.text, settings.model_dump(mode="json", include=names)])


def _refuse_too_many_levels(documents: Sequence[Document], most: int) -> None:
    """Raises InvalidRecipe: how often summaries are merged two by two is known before the first is asked for."""
    longest = max(documents, key=lambda document: document.chunks)
    levels = levels_of_pairs(longest.chunks)
    if levels > most:
        message = f"{longest.chunks:,} chunks take {levels} levels two by two; workload.max_levels is {most}"
        advice = f"write workload.max_levels: {levels}"
        raise InvalidRecipe([Problem(file=longest.path, code="value", message=message, suggestion=advice)])


PLUGIN = Summarize()
