"""The strategy `recursive`, the reference's own: all summaries are joined with newlines, and the join is summarised in
turn, cut like a text if it is too long for one request.

Each level of a document waits for the one before it, because its semantics ask for that: where the join is cut depends
on the whole of it (it is cut at the first separator that occurs anywhere in it, and not at all if it is shorter than
chunk_size), and a join that is no shorter than what it was made of ends the document before any of it is asked for.
Other documents go on meanwhile.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from runners.workloads.summarize.asking import Asker
from runners.workloads.summarize.documents import DocumentFailed
from runners.workloads.summarize.tree import Node


async def recursive(asker: Asker) -> Node:
    """The document's summary. Raises DocumentFailed."""
    document, settings = asker.document, asker.settings
    tokens, level = document.tokens, 1
    height = asker.foresee(document.chunks, document.prompt_tokens)
    nodes = await asker.all(document.chunks, lambda i, begun: asker.chunk(i, height, begun))
    while tokens >= settings.chunk_size:
        nodes = _said(nodes, level)
        joined = "\n".join(node.text for node in nodes)
        before, tokens = tokens, await asker.count(joined)
        if tokens >= before:
            raise DocumentFailed(
                f"its summaries do not shrink: {before:,} tokens became {tokens:,} at level {level}; "
                "lower workload.max_tokens or raise workload.chunk_size"
            )
        if level == settings.max_levels:
            raise DocumentFailed(f"not finished after {settings.max_levels} levels; raise workload.max_levels")
        level += 1
        nodes = await _above(asker, level, nodes, joined, tokens)
    return _said(nodes, level)[0]


async def _above(asker: Asker, level: int, children: Sequence[Node], joined: str, tokens: int) -> list[Node]:
    """The summaries of a join of so many tokens."""
    is_last = tokens < asker.settings.chunk_size
    spans = [(0, len(joined))] if is_last else await asker.cut(joined)
    asker.expect(len(spans))
    prompt_tokens = tokens + len(spans) * asker.prepared.template_tokens
    height = asker.foresee(len(spans), prompt_tokens, at_least=1 if is_last else 2)
    of = list(_overlapped(children, spans))
    return await asker.all(
        len(spans),
        lambda i, begun: asker.ask((level, i), height, joined[spans[i][0] : spans[i][1]], of[i], begun=begun),
    )


def _said(nodes: Sequence[Node], level: int) -> list[Node]:
    """Those whose answer was not empty. Raises DocumentFailed if there is none."""
    said = [node for node in nodes if node.text]
    if not said:
        raise DocumentFailed(f"every answer of level {level} was empty")
    return said


def _overlapped(nodes: Sequence[Node], spans: Sequence[tuple[int, int]]) -> Iterator[tuple[Node, ...]]:
    """The summaries that have a part in each span of their join."""
    starts = [0, *accumulate(len(node.text) + 1 for node in nodes)][:-1]
    ends = [start + len(node.text) for start, node in zip(starts, nodes, strict=True)]
    for start, end in spans:
        yield tuple(nodes[bisect_right(ends, start) : bisect_left(starts, end)])
