"""The workload's requests against what the engine accepts, and how many of them run at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from provisioners.contract import Finding
from runners.case import Memory
from runners.preflight.question import Question


def findings(question: Question, memory: Memory | None) -> Iterator[Finding]:
    """Whether the longest request is accepted, and whether as many run at once as are asked for."""
    limit = memory.max_model_len if memory else question.engine.context_tokens(question.recipe)
    if limit is not None:
        yield from _context(question, limit)
    if memory is not None:
        yield from _concurrency(question, memory)


def _context(question: Question, limit: int) -> Iterator[Finding]:
    longest, settings = question.estimate.longest_request_tokens, question.recipe.workload
    numbers = {"context_tokens": limit, "longest_request_tokens": longest}
    if longest <= limit:
        message = f"longest request {longest:,} of {limit:,} tokens"
        yield Finding(level="ok", code="context", message=message, numbers=numbers)
        return
    if settings.traffic is not None:
        yield _too_long_for_load(question, limit, numbers)
        return
    smaller = limit - question.estimate.tokens_around_chunk
    if smaller > max(settings.chunk_overlap, 1):
        suggestion = f"try --set workload.chunk_size={smaller}"
    else:
        suggestion = "raise the engine's context, or lower workload.max_tokens and workload.chunk_size"
    yield Finding(
        level="block",
        code="context",
        message=f"the longest request needs {longest:,} tokens; the engine's context holds {limit:,}",
        suggestion=suggestion,
        numbers=numbers,
        path="workload.chunk_size",
    )


def _too_long_for_load(question: Question, limit: int, numbers: Mapping[str, float]) -> Finding:
    """A load sends its prompts as they are: nothing can be cut smaller."""
    traffic, longest = question.recipe.workload.traffic, question.estimate.longest_request_tokens
    from_file = traffic is not None and traffic.prompts is not None
    return Finding(
        level="block",
        code="context",
        message=f"the longest prompt with its answer needs {longest:,} tokens; the engine's context holds {limit:,}",
        suggestion="take that prompt out, lower workload.max_tokens, or raise the engine's context"
        if from_file
        else "lower synthetic.input_tokens or output_tokens, or raise the engine's context",
        numbers=numbers,
        path="workload.traffic.prompts" if from_file else "workload.traffic.synthetic",
    )


def _concurrency(question: Question, memory: Memory) -> Iterator[Finding]:
    asked, longest = question.recipe.workload.at_once, min(memory.max_running, memory.slots)
    at_once = max(longest, min(memory.running_at_mean, memory.slots))
    if question.recipe.workload.traffic is not None:
        message = f"about {at_once} requests of this load run at once; more of them queue in the engine"
        yield Finding(level="ok", code="concurrency", message=message, numbers={"running_at_mean": at_once})
        return
    if asked is not None and 0 < at_once < asked:
        yield Finding(
            level="warn",
            code="concurrency",
            message=f"concurrency {asked} will queue: about {at_once} requests of the usual size run at once, "
            f"{longest} of the longest ({question.estimate.longest_request_tokens:,} tokens)",
            suggestion=f"try --set workload.concurrency={at_once}",
            numbers={
                "concurrency": asked,
                "running_at_mean": memory.running_at_mean,
                "max_running": memory.max_running,
                "slots": memory.slots,
            },
            path="workload.concurrency",
        )
