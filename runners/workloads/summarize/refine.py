"""The strategy `refine`: one summary, which each chunk of the document in turn refines.

Each request holds a chunk and the summary of everything before it, so that none can be sent before its predecessor has
ended: a document takes as many requests one after the other as it has chunks, and many documents are needed to keep an
engine busy. A template may say with {{ summary }} where that summary stands; else it goes before the chunk, with a
line between that tells the two apart.
"""

from __future__ import annotations

from runners.workloads.summarize.asking import Asker
from runners.workloads.summarize.documents import DocumentFailed
from runners.workloads.summarize.tree import Node


async def refine(asker: Asker) -> Node:
    """The document's summary. Raises DocumentFailed. Where an answer is empty, the summary before it stands."""
    chunks = asker.document.chunks
    asker.foresee(chunks, asker.document.prompt_tokens)
    latest: Node | None = None
    for index in range(chunks):
        node = await asker.refined(index, chunks - index, latest)
        latest = node if node.text else latest
    if latest is None:
        raise DocumentFailed("every answer was empty")
    return latest
