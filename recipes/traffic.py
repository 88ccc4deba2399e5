"""How requests are sent when an engine is measured: from where they come, how they arrive, and when to stop."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from recipes.fields import Count, DurationS, Section, Text

Rate = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]


def _rising(values: tuple[float, ...]) -> tuple[float, ...]:
    if list(values) != sorted(set(values)):
        raise ValueError("must rise from one to the next; saturation is looked for from below")
    return values


class Synthetic(Section):
    """Prompts made up of words, each of so many tokens, and answers of so many."""

    input_tokens: Count = 512
    output_tokens: Count = 128
    input_stdev: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of the prompts' length in tokens."""
    output_stdev: Annotated[float, Field(ge=0)] = 0.0
    shared_prefix_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens at the beginning that all prompts have in common."""


class Objective(Section):
    """What a request must keep to for its answer to count as goodput; what is left out does not matter."""

    ttft: DurationS | None = None
    """Time to first token."""
    tpot: DurationS | None = None
    """Mean time per output token after the first."""
    itl: DurationS | None = None
    """The 99th percentile of a request's own inter-token latencies."""
    e2e: DurationS | None = None
    """From sending to the last token."""


class Traffic(Section):
    """A load shape: closed loops (`concurrency`) or arrivals at a rate (`rate`), one after another if several."""

    prompts: Text | None = None
    """A file with one prompt per line, or JSONL (one object per line); synthetic prompts, if left out."""
    field: Text = "prompt"
    """Of a JSONL object: where its prompt is. `messages` and ShareGPT's `conversations` are understood as well."""
    synthetic: Synthetic = Synthetic()
    concurrency: Annotated[tuple[Count, ...], AfterValidator(_rising)] = ()
    """Closed loops: so many requests are under way at any moment."""
    rate: Annotated[tuple[Rate, ...], AfterValidator(_rising)] = ()
    """Open loops: so many requests per second arrive, however many are under way."""
    burstiness: Annotated[float, Field(gt=0, le=1e3)] = 1.0
    """Shape of the gamma distribution of the gaps between arrivals: 1 is a Poisson process, below 1 comes in bursts."""
    requests: Count | None = None
    """Of each point; 100, if neither this nor `duration` is given."""
    duration: DurationS | None = None
    """Of each point; requests begun before its end are finished."""
    warmup: Annotated[int, Field(ge=0)] = 2
    """Requests before the first point, which count nowhere."""
    slo: Objective | None = None
    """What counts as goodput."""
    stop_at_saturation: bool = False
    """Skip the points after the one at which the engine no longer keeps up."""
    seed: int = 0
    """Of arrivals, lengths and synthetic words."""

    @model_validator(mode="after")
    def _one_loop(self) -> Self:
        if bool(self.concurrency) == bool(self.rate):
            raise ValueError("write either concurrency: [1, 8, 64] (closed loops) or rate: [1, 2, 4] (arrivals per s)")
        return self
