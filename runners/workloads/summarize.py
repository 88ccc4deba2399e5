"""Summarises documents: splits each, summarises the chunks, joins the summaries, and does the same with the join.

The semantics are those of the script that the first recipe grew out of: a text of fewer tokens than chunk_size is asked
for at once; a longer one is split, its summaries are joined with newlines, and the join is summarised in turn.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from recipes.errors import InvalidRecipe, Problem, WorkloadFailed
from recipes.inputs import expand_all
from recipes.prompts import PromptTemplate, load_prompt
from recipes.spec import Recipe
from runners.client import Answer, Endpoint, RequestFailed
from runners.forecast.work import Group, Joining, Work
from runners.records import RequestRecord
from runners.schedule.schedule import Place
from runners.text.splitter import SEPARATORS, Splitter
from runners.text.tokens import TokenCounter
from runners.workload import Estimate, Means, Workload


@dataclass(frozen=True)
class Document:
    """An input with its first level of chunks; a single chunk if it is short enough to be asked for at once."""

    id: str
    path: Path
    text: str
    tokens: int
    chunks: tuple[str, ...]


@dataclass(frozen=True)
class Prepared:
    recipe: Recipe
    template: PromptTemplate
    counter: TokenCounter
    splitter: Splitter
    documents: tuple[Document, ...]


class DocumentFailed(Exception):
    """A document that cannot be finished, and why."""


class Summarize(Workload):
    name = "summarize"

    def prepare(self, recipe: Recipe, counter: TokenCounter) -> Prepared:
        settings = recipe.workload
        splitter = Splitter(counter, settings.chunk_size, settings.chunk_overlap, SEPARATORS[settings.separators])
        paths = _expanded(settings.inputs)
        texts = _read_all(paths)
        documents = tuple(
            Document(name, path, text, tokens, tuple(_cut(text, tokens, splitter)))
            for name, path, text, tokens in zip(_names(paths), paths, texts, counter.count_all(texts), strict=True)
        )
        return Prepared(recipe, load_prompt(settings.prompt), counter, splitter, documents)

    def estimate(self, prepared: Prepared) -> Estimate:
        """Exact for the first level; above it, a text may be as long as a chunk, and answers are not known yet."""
        settings, counter = prepared.recipe.workload, prepared.counter
        prompts = [prepared.template.render(chunk) for d in prepared.documents for chunk in d.chunks]
        tokens = counter.count_all(prompts)
        template = counter.count(prepared.template.render(""))
        around = template + settings.max_tokens
        rises = any(len(document.chunks) > 1 for document in prepared.documents)
        longest = max(tokens) + settings.max_tokens
        work = Work(
            groups=_groups(prepared.documents, tokens),
            max_tokens=settings.max_tokens,
            joining=Joining(
                chunk_tokens=settings.chunk_size,
                overlap_tokens=settings.chunk_overlap,
                template_tokens=template,
                max_levels=settings.max_levels,
            ),
        )
        return Estimate(
            documents=len(prepared.documents),
            requests=len(prompts),
            prompt_tokens=sum(tokens),
            longest_request_tokens=max(longest, around + settings.chunk_size) if rises else longest,
            tokens_around_chunk=around,
            mean_request_tokens=round(sum(tokens) / len(tokens) + work.answers().likely),
            work=work,
            totals=work.bounds(),
        )

    async def drive(self, prepared: Prepared, means: Means) -> None:
        numbered = enumerate(prepared.documents)
        todo = [(i, document) for i, document in numbered if means.recorder.output_of(document.id) is None]
        means.recorder.expect(sum(len(document.chunks) for _, document in todo))
        runs = [_Run(prepared, i, document, means) for i, document in todo]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run.write()) for run in runs]
        failures = [failure for task in tasks if (failure := task.result())]
        if failures:
            raise WorkloadFailed(
                f"{len(failures)} of {len(tasks)} documents failed: {failures[0]}",
                advice="the answers so far are in answers.jsonl, every try in requests.jsonl",
            )


class _Run:
    """One document on its way from its chunks to its summary."""

    def __init__(self, prepared: Prepared, number: int, document: Document, means: Means) -> None:
        self._prepared, self._number, self._document, self._means = prepared, number, document, means
        self._client, self._recorder = means.client, means.recorder

    async def write(self) -> str | None:
        """Write the document's output file; returns why it failed, if it did."""
        started = time.monotonic()
        try:
            summary = await self._summary()
        except DocumentFailed as failure:
            return f"{self._document.id}: {failure}"
        slip = _buck_slip(self._prepared, self._document, self._means.endpoint, time.monotonic() - started)
        name = f"{self._document.path.stem}-analysis-{slip['model_local_identifier']}"
        path = await asyncio.to_thread(
            write_first_free, self._means.outputs, name, {"summary": summary, "buck_slip": slip}
        )
        self._recorder.document_done(self._document.id, path)
        return None

    async def _summary(self) -> str:
        counter, settings = self._prepared.counter, self._prepared.recipe.workload
        tokens, chunks = self._document.tokens, list(self._document.chunks)
        for level in range(1, settings.max_levels + 1):
            summaries = await self._ask_all(chunks, level)
            summaries = [summary for summary in summaries if summary]
            if not summaries:
                raise DocumentFailed(f"every answer of level {level} was empty")
            if tokens < settings.chunk_size:
                return summaries[0]
            joined = "\n".join(summaries)
            before, tokens = tokens, counter.count(joined)
            if tokens >= before:
                raise DocumentFailed(
                    f"its summaries do not shrink: {before:,} tokens became {tokens:,} at level {level}; "
                    "lower workload.max_tokens or raise workload.chunk_size"
                )
            chunks = _cut(joined, tokens, self._prepared.splitter)
            self._recorder.expect(len(chunks))
        raise DocumentFailed(f"not finished after {settings.max_levels} levels; raise workload.max_levels")

    async def _ask_all(self, chunks: list[str], level: int) -> list[str]:
        """The summaries of a level. The first failure ends the others: they would only cost."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._ask(chunk, level, i)) for i, chunk in enumerate(chunks)]
        except* DocumentFailed as failures:
            raise failures.exceptions[0] from None
        return [task.result() for task in tasks]

    async def _ask(self, text: str, level: int, index: int) -> str:
        prompt = self._prepared.template.render(text)
        place: dict[str, Any] = {
            "id": f"{self._document.id}/{level}/{index}",
            "document": self._document.id,
            "level": level,
            "index": index,
        }
        key = self._client.key(prompt)
        if earlier := self._recorder.answered(place["id"], key):
            return earlier
        try:
            async with self._means.schedule.turn(Place(self._number, -level, index)):
                answer = await self._client.complete(prompt)
        except RequestFailed as error:
            times: dict[str, Any] = {"tries": error.tries, "started_at": error.started_at, "e2e_s": error.e2e_s}
            self._recorder.record(RequestRecord(**place, **times, status="failed", error=error.message), None, key)
            raise DocumentFailed(_explained(error, place["id"])) from None
        summary = answer.text.strip()
        record = _record(answer, prompt, place, self._prepared.counter)
        self._recorder.record(record, summary, key)
        if record.status == "failed" and self._prepared.recipe.workload.on_empty == "fail":
            raise DocumentFailed(f"{place['id']}: {record.error}; workload.on_empty: skip would go on without it")
        return summary


def _cut(text: str, tokens: int, splitter: Splitter) -> list[str]:
    """The chunks of a text of so many tokens, or the text itself if it is short enough."""
    return [text] if tokens < splitter.chunk_size else splitter.split(text)


def _groups(documents: Sequence[Document], prompt_tokens: Sequence[int]) -> tuple[Group, ...]:
    """The documents by how many chunks they have; `prompt_tokens` are those of all chunks, in their order."""
    counted = iter(prompt_tokens)
    found: dict[int, tuple[int, int]] = {}
    for document in documents:
        chunks = len(document.chunks)
        number, tokens = found.get(chunks, (0, 0))
        found[chunks] = (number + 1, tokens + sum(islice(counted, chunks)))
    return tuple(Group(number, chunks, tokens) for chunks, (number, tokens) in sorted(found.items()))


def _expanded(patterns: tuple[str, ...]) -> tuple[Path, ...]:
    """The input files; they were there when the recipe was read, and may have gone since."""
    try:
        return expand_all(patterns)
    except ValueError as error:
        raise InvalidRecipe([Problem(file="workload.inputs", code="value", message=str(error))]) from None


def _read_all(paths: tuple[Path, ...]) -> list[str]:
    texts, problems = [], []
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            message = f"not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}"
            problems.append(Problem(file=str(path), code="encoding", message=message, suggestion="save it as UTF-8"))
            continue
        if not text.strip():
            problems.append(Problem(file=str(path), code="empty", message="only white space", suggestion="remove it"))
        texts.append(text)
    if problems:
        raise InvalidRecipe(problems)
    return texts


def _names(paths: tuple[Path, ...]) -> list[str]:
    """A short name for each: the file's own, with its folder where two are alike."""
    own = [path.name for path in paths]
    return [name if own.count(name) == 1 else str(path) for name, path in zip(own, paths, strict=True)]


def _record(answer: Answer, prompt: str, place: dict[str, Any], counter: TokenCounter) -> RequestRecord:
    reported = answer.prompt_tokens is not None and answer.output_tokens is not None
    prompt_tokens = answer.prompt_tokens if answer.prompt_tokens is not None else counter.count(prompt)
    output_tokens = answer.output_tokens if answer.output_tokens is not None else counter.count(answer.text)
    streamed_s = None if answer.ttft_s is None else answer.e2e_s - answer.ttft_s
    empty = not answer.text.strip()
    return RequestRecord(
        **place,
        status="failed" if empty else "ok",
        error="empty answer" if empty else None,
        tries=answer.tries,
        started_at=answer.started_at,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        cached_tokens=answer.cached_tokens,
        tokens_from="engine" if reported else "client",
        ttft_s=answer.ttft_s,
        tpot_s=streamed_s / (output_tokens - 1) if streamed_s is not None and output_tokens > 1 else None,
        e2e_s=answer.e2e_s,
        finish_reason=answer.finish_reason,
    )


def _explained(error: RequestFailed, place: str) -> str:
    if error.kind == "context":
        return f"{place}: the chunk is longer than the engine's context; lower workload.chunk_size: {error.message}"
    tries = f" after {error.tries} tries" if error.tries > 1 else ""
    return f"{place}: {error.message}{tries}"


def _buck_slip(prepared: Prepared, document: Document, endpoint: Endpoint, seconds: float) -> dict[str, Any]:
    """The settings that made the summary, under the names that the reference's readers know; without the key."""
    settings, model = prepared.recipe.workload, prepared.recipe.model.identifier
    return {
        "httpx_max_connections": settings.at_once,
        "httpx_max_keepalive_connections": settings.at_once,
        "use_fast": True,
        "use_batched_tokenization": settings.separators == "paragraphs",
        "chunk_size": settings.chunk_size,
        "chunk_overlap": settings.chunk_overlap,
        "api_url": endpoint.api_url,
        "model_identifier": model,
        "max_tokens": settings.max_tokens,
        "temperature": settings.temperature,
        "model_local_identifier": model.replace("/", "_"),
        "prompt_template": prepared.template.text,
        "prompt_template_filename": prepared.template.filename,
        "tokenizer": prepared.counter.name,
        "text_splitter": f"recipe, recursive, separators {list(prepared.splitter.separators)}",
        "api_client": f"recipe, /v1/{'chat/completions' if settings.api == 'chat' else 'completions'}",
        "document": str(document.path),
        "length_of_sample_text_in_characters": len(document.text),
        "summarize_duration_seconds": round(seconds, 3),
    }


def write_first_free(folder: Path, name: str, data: Any) -> Path:
    """Write JSON to `name-NNNN.json` with the first number that is free; whole or not at all, never over another."""
    part = folder / f".{name}-{secrets.token_hex(4)}.part"
    try:
        with part.open("x", encoding="utf-8") as file:
            json.dump(data, file, ensure_ascii=False, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        for number in range(10_000):
            path = folder / f"{name}-{number:04d}.json"
            try:
                path.hardlink_to(part)
            except FileExistsError:
                if _same_summary(path, data):
                    return path  # written by a client of this run that died before it could say so
                continue
            return path
    finally:
        part.unlink(missing_ok=True)
    raise WorkloadFailed(f"{folder} holds 10,000 outputs of {name}", advice="use another RECIPE_HOME")


def _same_summary(path: Path, data: Any) -> bool:
    """Whether the file holds the same summary of the same document."""
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        return bool(
            there["summary"] == data["summary"] and there["buck_slip"]["document"] == data["buck_slip"]["document"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


PLUGIN = Summarize()
