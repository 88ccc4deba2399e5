"""The tree of a document's summaries: which passage each covers, and of which others it was made.

In the output file it stands under `tree`:

    {"root": "3/0", "nodes": [{
        "id": "2/0",              level and number within it, as in the ids of requests.jsonl
        "level": 2, "index": 0,
        "source": {"start": 0, "end": 9120},   the passage that it covers: characters of the document, as
                                               open(path, encoding="utf-8").read()[start:end]
        "chunk": null,            the passage that its own request held, null where that held summaries alone
        "children": ["1/0", "1/1", "1/2"],     the summaries that its request held
        "text": "…",              the summary
        "tokens": 311,            of the summary, as chunk_size counts
        "truncated": false        whether max_tokens cut it off; null if an earlier client asked for it
    }, …]}

The root's text is the document's summary. From a sentence of it one goes to the children, finds the one that says the
same, and so on down to a passage. A summary's passage reaches from the first to the last that its children cover,
its own chunk included. Where neighbouring requests overlap, a summary is the child of both. One whose answer was empty
(`on_empty: skip`) has no text and is nobody's child.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class Passage:
    """A range of a text, in characters."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One request's answer, and where it stands."""

    level: int
    index: int
    source: Passage
    chunk: Passage | None
    children: tuple[Node, ...]
    text: str
    tokens: int
    truncated: bool | None

    @property
    def id(self) -> str:
        return f"{self.level}/{self.index}"

    def row(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "level": self.level,
            "index": self.index,
            "source": _row(self.source),
            "chunk": _row(self.chunk) if self.chunk else None,
            "children": [child.id for child in self.children],
            "text": self.text,
            "tokens": self.tokens,
            "truncated": self.truncated,
        }


@dataclass(frozen=True, slots=True)
class Tree:
    """All answers of a document."""

    root: Node
    nodes: Sequence[Node]

    def row(self) -> dict[str, Any]:
        ordered = sorted(self.nodes, key=lambda node: (node.level, node.index))
        return {"root": self.root.id, "nodes": [node.row() for node in ordered]}


def covering(nodes: Iterable[Node], chunk: Passage | None = None) -> Passage:
    """From the first to the last passage that these cover, a chunk of their reader's own included."""
    passages = [*(node.source for node in nodes), *([chunk] if chunk else ())]
    return Passage(min(passage.start for passage in passages), max(passage.end for passage in passages))


def _row(passage: Passage) -> dict[str, int]:
    return {"start": passage.start, "end": passage.end}
