"""What every workload promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from recipes.spec import Recipe
from runners.client import Client, Endpoint
from runners.forecast.work import Totals, Work
from runners.records import RequestRecord
from runners.schedule.schedule import Schedule
from runners.text.tokens import TokenCounter


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a workload will ask for, as far as it is known before the first answer."""

    documents: int
    requests: int
    """Of the first level."""
    prompt_tokens: int
    """Of the first level, the template included."""
    longest_request_tokens: int
    """The longest prompt and its whole answer."""
    tokens_around_chunk: int
    """What a request needs besides its chunk: the template and the answer."""
    mean_request_tokens: int
    """A prompt of the first level and an answer, as long as nothing better is known of answers."""
    work: Work
    """All of it, level by level, for any length of the answers."""
    totals: Totals
    """Of the whole run: at least if every answer is one token, at most if every answer is as long as allowed."""


class Recorder(Protocol):
    """Takes what a workload yields; each call is on disk when it returns."""

    def answered(self, id: str, key: str) -> str | None:  # noqa: A002
        """The answer that an earlier client of this run has on disk for the same request; it is not asked for again."""
        ...

    def output_of(self, document: str) -> Path | None:
        """The output that an earlier client of this run has written."""
        ...

    def record(self, record: RequestRecord, text: str | None, key: str) -> None:
        """A request has ended; `text` is its answer, if there is one, and `key` what it depends on."""
        ...

    def expect(self, requests: int) -> None:
        """So many further requests are known to come."""
        ...

    def document_done(self, document: str, output: Path) -> None:
        """A document's output is written."""
        ...


@dataclass(frozen=True)
class Means:
    """What a workload works with."""

    client: Client
    schedule: Schedule
    endpoint: Endpoint
    outputs: Path
    recorder: Recorder


class Workload(ABC):
    """A plug-in; the module's PLUGIN is an instance."""

    name: str

    @abstractmethod
    def prepare(self, recipe: Recipe, counter: TokenCounter) -> Any:
        """Read the inputs and cut them up; nothing is sent. Raises InvalidRecipe for an input that cannot be used."""

    @abstractmethod
    def estimate(self, prepared: Any) -> Estimate:
        """What the prepared work will need."""

    @abstractmethod
    async def drive(self, prepared: Any, means: Means) -> None:
        """Do the work and write the outputs. Raises WorkloadFailed after everything that could be done is done."""

    def figures(self, prepared: Any, records: Sequence[RequestRecord]) -> Mapping[str, Any] | None:
        """What it has to say of itself in result.json, under `workload`; pure."""
        return None
