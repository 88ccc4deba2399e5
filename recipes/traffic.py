"""How requests are sent when an engine is measured: from where they come, how they arrive, and when to stop."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from recipes.fields import Count, DurationS, Section, Text

_FASTEST_PER_S = 10_000.0
"""More requests per second than one client sends, whatever the machine."""


def _possible(value: float) -> float:
    if value > _FASTEST_PER_S:
        raise ValueError(
            f"{value:g} requests per second are more than one client sends; write at most {_FASTEST_PER_S:g}"
        )
    return value


Rate = Annotated[float, Field(gt=0, allow_inf_nan=False), AfterValidator(_possible)]


def _one_or_more(kind: Any) -> BeforeValidator:
    """One point is a sweep of one."""

    def listed(value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return (value,)
        return tuple(value) if isinstance(value, list) else value

    return BeforeValidator(listed, json_schema_input_type=kind | tuple[kind, ...])


def _rising(values: tuple[float, ...]) -> tuple[float, ...]:
    if list(values) != sorted(set(values)):
        raise ValueError("must rise from one to the next; saturation is looked for from below")
    return values


class Synthetic(Section):
    """Prompts made up of words, each of so many tokens, and answers of so many."""

    input_tokens: Count = 512
    """Of the prompt as the tokenizer counts it, with its special tokens; a chat template's own come on top."""
    output_tokens: Count = 128
    """Of the answer, which is kept from ending earlier where the engine knows `ignore_eos`."""
    input_stdev: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Standard deviation of the prompts' length in tokens."""
    output_stdev: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    shared_prefix_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens at the beginning that all prompts have in common; part of input_tokens."""

    @model_validator(mode="after")
    def _more_than_the_prefix(self) -> Self:
        if self.shared_prefix_tokens >= self.input_tokens:
            raise ValueError(
                f"shared_prefix_tokens {self.shared_prefix_tokens} must be fewer than input_tokens {self.input_tokens}"
            )
        return self


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

    @model_validator(mode="after")
    def _something_to_keep(self) -> Self:
        if self.ttft is None and self.tpot is None and self.itl is None and self.e2e is None:
            raise ValueError("nothing to keep to; write slo: {ttft: 500ms, tpot: 50ms}")
        return self


class Traffic(Section):
    """A load shape: closed loops (`concurrency`) or arrivals at a rate (`rate`), one after another if several."""

    prompts: Text | None = None
    """A file with one prompt per line, or JSONL (one object per line); synthetic prompts, if left out."""
    field: Text = "prompt"
    """Of a JSONL object: where its prompt is. `messages` and ShareGPT's `conversations` are understood as well."""
    synthetic: Synthetic = Synthetic()
    concurrency: Annotated[tuple[Count, ...], _one_or_more(Count), AfterValidator(_rising)] = ()
    """Closed loops: so many requests are under way at any moment."""
    rate: Annotated[tuple[Rate, ...], _one_or_more(Rate), AfterValidator(_rising)] = ()
    """Open loops: so many requests per second arrive, however many are under way."""
    arrivals: Literal["poisson", "gamma", "constant"] = "poisson"
    """Of open loops: how the gaps between arrivals are distributed; gamma has the shape `burstiness`."""
    burstiness: Annotated[float, Field(gt=0, le=1e3)] = 1.0
    """Shape of the gamma distribution: 1 is a Poisson process, below 1 comes in bursts, above 1 more evenly."""
    requests: Count | None = None
    """Of each point; if neither this nor `duration` is given, 100, or four for each of a closed loop's, if more."""
    duration: DurationS | None = None
    """Of each point; requests begun before its end are finished. With `requests`, whichever comes first."""
    warmup: Annotated[int, Field(ge=0, le=10_000)] = 2
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
        if self.duration is not None and self.duration <= 0:
            raise ValueError("duration must be more than nothing")
        return self

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        if self.burstiness != 1 and self.arrivals != "gamma":
            raise ValueError(f"burstiness shapes gamma arrivals, not {self.arrivals}; write arrivals: gamma")
        return self
