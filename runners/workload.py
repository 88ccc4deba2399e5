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
    unit: str = "document"
    """What one of its parts is called; of a load a point."""
    totals: Totals
    """Of the whole run: at least if every answer is one token, at most if every answer is as long as allowed."""


class Recorder(Protocol):
    """Takes what a workload yields; each call is on disk when it returns."""

    def answered(self, id: str, key: str) -> str | None:  # noqa: A002
        """The answer to the same request that an earlier client, or an unfinished run of the same recipe, has on disk.

        It is this run's own from now on, and not asked for again.
        """
        ...

    def output_of(self, document: str, key: str = "") -> Path | None:
        """The output of a document that an earlier client has written, or an unfinished run of the same recipe.

        `key` stands for everything that the output depends on; without one only this run's own outputs will do.
        """
        ...

    def record(self, record: RequestRecord, text: str | None, key: str) -> None:
        """A request has ended; `text` is its answer, if there is one, and `key` what it depends on."""
        ...

    def expect(self, requests: int) -> None:
        """So many further requests are known to come."""
        ...

    def document_done(self, document: str, output: Path, key: str = "") -> None:
        """A document's output is written; `key` as for `output_of`."""
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
    goes_on = True
    """Whether a run goes on from the answers of an unfinished one of the same recipe; not where it measures."""

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
