"""How much work the documents are: exact for the first level, bounds for those that follow from its answers."""

from __future__ import annotations

from collections.abc import Iterable

from recipes.spec import Workload as Settings
from runners.forecast.work import Group, Joining, Merging, Refining, Work
from runners.workload import Estimate
from runners.workloads.summarize.documents import Document
from runners.workloads.summarize.prepared import Prepared, joint_tokens


def estimate_of(prepared: Prepared) -> Estimate:
    settings, documents = prepared.recipe.workload, prepared.documents
    work = work_of(prepared)
    requests = sum(document.chunks for document in documents)
    prompt_tokens = sum(document.prompt_tokens for document in documents)
    answer = work.answers().likely
    further = (requests - len(documents)) / requests if isinstance(work.joining, Refining) else 0.0
    return Estimate(
        documents=len(documents),
        requests=requests,
        prompt_tokens=prompt_tokens,
        longest_request_tokens=_longest_prompt(prepared, work) + settings.max_tokens,
        tokens_around_chunk=prepared.template_tokens + settings.max_tokens,
        mean_request_tokens=round(prompt_tokens / requests + (1 + further) * answer),
        work=work,
        totals=work.bounds(),
    )


def work_of(prepared: Prepared) -> Work:
    """All levels, for any length of the answers."""
    settings = prepared.recipe.workload
    return Work(
        groups=_groups(prepared.documents), max_tokens=settings.max_tokens, joining=_joining(settings, prepared)
    )


def _joining(settings: Settings, prepared: Prepared) -> Joining | Merging | Refining:
    counter = prepared.splitter.counter
    # A space at the template's end is one with the word that follows it.
    template = counter.count(prepared.template.render("x")) - counter.count("x") + counter.count("")
    match settings.strategy:
        case "recursive":
            return Joining(
                chunk_tokens=settings.chunk_size,
                overlap_tokens=settings.chunk_overlap,
                template_tokens=template,
                max_levels=settings.max_levels,
            )
        case "refine":
            return Refining(joint_tokens=joint_tokens(prepared.template, counter))
        case strategy:
            return Merging(
                chunk_tokens=settings.chunk_size,
                template_tokens=template,
                max_levels=settings.max_levels,
                most=2 if strategy == "pairwise" else None,
            )


def _longest_prompt(prepared: Prepared, work: Work) -> int:
    """Exact for the first level; above it, answers are as long as they may be."""
    settings, documents = prepared.recipe.workload, prepared.documents
    longest = max(document.longest_prompt_tokens for document in documents)
    long = [document for document in documents if document.chunks > 1]
    if not long:
        return longest
    match work.joining:
        case Refining(joint_tokens=joint):
            refined = max(document.longest_prompt_tokens for document in long) + joint + settings.max_tokens
            return max(longest, refined)
        case Merging(most=most):
            two = 2 * (settings.max_tokens + 1)  # with the newline after each, or the special tokens of the prompt
            above = two if most == 2 else max(two, settings.chunk_size)
            return max(longest, prepared.template_tokens + above)
        case _:
            return max(longest, prepared.template_tokens + settings.chunk_size)


def _groups(documents: Iterable[Document]) -> tuple[Group, ...]:
    """The documents by how many chunks they have."""
    found: dict[int, tuple[int, int]] = {}
    for document in documents:
        number, tokens = found.get(document.chunks, (0, 0))
        found[document.chunks] = (number + 1, tokens + document.prompt_tokens)
    return tuple(Group(number, chunks, tokens) for chunks, (number, tokens) in sorted(found.items()))
