"""The summaries with their trees, and the passages of the documents that they were made of."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from markupsafe import escape

from runners.reporting.reading import Run, rows

MOST_DOCUMENTS = 2_000
ROOM_FOR_SUMMARIES, ROOM_FOR_TREES = 800_000, 1_600_000
"""Bytes of the page."""
_NODE, _DOCUMENT = 700, 500
"""Bytes of the page around a summary's text, and around a document."""
_LONGEST_SUMMARY, _LONGEST_PASSAGE = 20_000, 6_000
_LARGEST_INPUT = 1 << 24
"""Bytes; a larger file is not read again for its passages."""
_DEEPEST = 8
"""Levels that are indented."""
_SENTENCE = re.compile(r"(?<=[.!?…])\s+")
_WORD = re.compile(r"\w{4,}")
_ALIKE = 0.5
"""The share of a sentence's words that a passage's summary must have to be taken for its origin."""


@dataclass(frozen=True, kw_only=True)
class NodeView:
    """One summary of a tree."""

    id: str
    anchor: str
    level: int
    depth: int
    tokens: int | None
    truncated: bool
    start: int
    end: int
    children: Sequence[tuple[str, str]]
    """Ids and anchors of the summaries that it was made of."""
    text: str
    text_more: int
    """Characters that are left out."""
    passage: str | None
    passage_more: int


@dataclass(frozen=True, kw_only=True)
class DocumentView:
    name: str
    path: str
    output: str
    characters: int | None
    seconds: float | None
    summary: str
    summary_more: int
    sentences: Sequence[tuple[str, str]]
    """With the anchor of the part that says most nearly the same; empty if none does."""
    nodes: Sequence[NodeView] = ()
    levels: int = 0
    note: str = ""
    """Why there is no tree, or no passages."""


@dataclass
class Texts:
    documents: list[DocumentView] = field(default_factory=list)
    left_out: int = 0
    without_tree: int = 0
    """Of the documents that are shown."""


class _Room:
    """How many bytes of the page are left."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, text: str, most: int) -> tuple[str, int]:
        """As much of a text as there is room for, and how many characters that leaves out."""
        shown = text[: max(0, min(most, self.left))]
        self.left -= len(escape(shown).encode("utf-8", "replace"))
        return shown, len(text) - len(shown)


def texts_of(run: Run) -> Texts:
    """As many documents as the page has room for, in the order in which they were done."""
    outputs = _outputs(run)
    found = Texts()
    summaries, trees = _Room(ROOM_FOR_SUMMARIES), _Room(ROOM_FOR_TREES)
    for number, (name, path) in enumerate(outputs):
        if number >= MOST_DOCUMENTS or summaries.left <= 0:
            found.left_out = len(outputs) - number
            break
        view = _document(number, name, path, run, summaries, trees)
        found.documents.append(view)
        found.without_tree += not view.nodes
    return found


def _outputs(run: Run) -> list[tuple[str, Path]]:
    """Name and output file of each document."""
    folder = run.folder.outputs
    named = {
        row["output"]: str(row.get("document", row["output"]))
        for row in rows(run.folder.path / "documents.jsonl")
        if isinstance(row.get("output"), str) and Path(row["output"]).name == row["output"]
    }
    if not named:
        named = {path.name: path.name.split("-analysis-")[0] for path in sorted(folder.glob("*-analysis-*.json"))}
    return [(name, folder / output) for output, name in named.items()]


def _document(number: int, name: str, path: Path, run: Run, summaries: _Room, trees: _Room) -> DocumentView:
    data: Mapping[str, Any] = {}
    with suppress(OSError, ValueError):
        data = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    if not isinstance(data, dict) or not isinstance(data.get("summary"), str):
        return _bare(name, path, "its output file is not there any more, or cannot be read")
    slip: Mapping[str, Any] = data["buck_slip"] if isinstance(data.get("buck_slip"), dict) else {}
    summaries.left -= _DOCUMENT
    summary, more = summaries.take(data["summary"], _LONGEST_SUMMARY)
    source = str(slip.get("document", ""))
    nodes: list[NodeView] = []
    note = "the page has no room for its tree; it is in the output file" if trees.left <= 0 else ""
    if not note:
        text, note = _source_text(source, slip.get("length_of_sample_text_in_characters"), run)
        with suppress(KeyError, TypeError, ValueError, AttributeError):
            nodes = list(_nodes(number, data["tree"], text, trees))
    return DocumentView(
        name=name,
        path=source,
        output=path.name,
        characters=slip.get("length_of_sample_text_in_characters"),
        seconds=slip.get("summarize_duration_seconds"),
        summary=summary,
        summary_more=more,
        sentences=_sentences(summary, nodes),
        nodes=nodes,
        levels=max((node.level for node in nodes), default=0),
        note=note,
    )


def _bare(name: str, path: Path, note: str) -> DocumentView:
    return DocumentView(
        name=name,
        path="",
        output=path.name,
        characters=None,
        seconds=None,
        summary="",
        summary_more=0,
        sentences=(),
        note=note,
    )


def _source_text(path: str, characters: int | None, run: Run) -> tuple[str | None, str]:
    """The document's text if it is still what was summarized, else why it is not shown."""
    try:
        stat = Path(path).stat()
        if not path or not Path(path).is_file():
            return None, "the document is not on this machine: no passages"
        if stat.st_size > _LARGEST_INPUT:
            return None, "the document is too large to be read again: no passages"
        ended = run.result.get("ended_at")
        if ended and stat.st_mtime > datetime.fromisoformat(ended).timestamp():
            return None, "the document was changed after the run: no passages"
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None, "the document is not on this machine: no passages"
    if characters is not None and len(text) != characters:
        return None, "the document was changed after the run: no passages"
    return text, ""


def _nodes(number: int, tree: Mapping[str, Any], text: str | None, room: _Room) -> list[NodeView]:
    """From the root down, each summary once, before those that it was made of."""
    by_id = {str(row["id"]): row for row in tree["nodes"]}
    views: list[NodeView] = []
    seen: set[str] = set()
    waiting = [(str(tree["root"]), 0)]
    while waiting and room.left > 0:
        name, depth = waiting.pop()
        if name in seen or name not in by_id:
            continue
        seen.add(name)
        row = by_id[name]
        children = [str(child) for child in row["children"]]
        waiting += [(child, min(depth + 1, _DEEPEST)) for child in reversed(children)]
        views.append(_node(number, row, depth, children, text, room))
    return views


def _node(
    number: int, row: Mapping[str, Any], depth: int, children: Sequence[str], text: str | None, room: _Room
) -> NodeView:
    room.left -= _NODE
    summary, text_more = room.take(str(row["text"]), _LONGEST_SUMMARY)
    passage, passage_more = None, 0
    if text is not None and row["chunk"]:
        start, end = int(row["chunk"]["start"]), int(row["chunk"]["end"])
        passage, passage_more = room.take(text[start:end], _LONGEST_PASSAGE)
    return NodeView(
        id=str(row["id"]),
        anchor=_anchor(number, str(row["id"])),
        level=int(row["level"]),
        depth=depth,
        tokens=row.get("tokens"),
        truncated=bool(row.get("truncated")),
        start=int((row["chunk"] or row["source"])["start"]),
        end=int((row["chunk"] or row["source"])["end"]),
        children=[(child, _anchor(number, child)) for child in children],
        text=summary,
        text_more=text_more,
        passage=passage,
        passage_more=passage_more,
    )


def _anchor(number: int, node: str) -> str:
    return f"d{number}-{re.sub(r'[^0-9A-Za-z]', '-', node)}"


def _sentences(summary: str, nodes: Sequence[NodeView]) -> list[tuple[str, str]]:
    """Each sentence with the part that it most likely comes from: down the tree by the words that they share."""
    by_anchor = {node.anchor: node for node in nodes}
    words = {node.anchor: set(_WORD.findall(node.text.casefold())) for node in nodes}
    found = []
    for sentence in _SENTENCE.split(summary):
        wanted = set(_WORD.findall(sentence.casefold()))
        found.append((sentence, _origin(wanted, nodes[0], by_anchor, words) if nodes and wanted else ""))
    return found


def _origin(wanted: set[str], root: NodeView, by_anchor: Mapping[str, NodeView], words: Mapping[str, set[str]]) -> str:
    node, seen = root, {root.anchor}
    while True:
        known = [anchor for _, anchor in node.children if anchor in by_anchor and anchor not in seen]
        best = max(known, key=lambda anchor: len(wanted & words[anchor]), default=None)
        if best is None or len(wanted & words[best]) < _ALIKE * len(wanted):
            break
        node = by_anchor[best]
        seen.add(best)
    alike = len(wanted & words[node.anchor]) >= _ALIKE * len(wanted)
    return node.anchor if alike else ""
