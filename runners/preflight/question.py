"""A recipe with everything that is known of it before a machine is, and how it looks with a change."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from provisioners.accelerators import Machine
from provisioners.contract import Offer
from provisioners.phase_times import PhaseTimes
from recipes.spec import Recipe
from runners.case import Case, Demand, Memory
from runners.engine import Engine
from runners.forecast.forecast import Situation
from runners.forecast.history import PastRun
from runners.pace import EnginePace
from runners.workload import Estimate

if TYPE_CHECKING:
    from runners.modelfacts.facts import ModelFacts


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is judged for each offer."""

    recipe: Recipe
    engine: Engine
    model: ModelFacts | None
    """None if the engine runs elsewhere."""
    estimate: Estimate
    download_bytes: int = 0
    """From the Hub, as far as it is known not to be on the machine."""
    downloads: bool = False
    """Whether it is known that so much is downloaded: a disk of one's own may hold the files already."""
    commit: str | None = None
    volume_free_gb: float | None = None
    """What there is room for on a volume that outlives the machine, in 10⁹ bytes; None if there is none, or unknown."""
    volume_grows_by: str = ""
    """The command that makes that volume larger."""
    billable: bool = False
    phase_times: PhaseTimes = field(default_factory=PhaseTimes)
    """The provisioner's."""
    installed: bool | None = None
    """Whether the machine has the engine; None if nobody knows."""
    history: Sequence[PastRun] = ()
    """Completed runs of this model, the newest first."""

    @property
    def version(self) -> str:
        return self.recipe.engine.version or self.engine.default_version or ""

    def case(self, machine: Machine) -> Case | None:
        """What the engine is asked; None where nothing is launched."""
        if self.model is None:
            return None
        demand = Demand(
            longest_request_tokens=self.estimate.longest_request_tokens,
            mean_request_tokens=self._mean_held_tokens(),
            concurrency=self.recipe.workload.at_once,
        )
        return Case(spec=self.recipe.engine, version=self.version, model=self.model, machine=machine, demand=demand)

    def engine_gb(self, offer: Offer) -> float:
        """What the engine's environment takes on the disk, in 10⁹ bytes; 0 if nobody knows."""
        return self.engine.install_gb(self.version, accelerated=offer.count > 0) or 0.0

    def situation(self, offer: Offer, machine: Machine, memory: Memory | None) -> Situation:
        """What the forecast depends on."""
        case = self.case(machine)
        return Situation(
            recipe=self.recipe,
            engine=self.engine.name,
            version=self.version or None,
            offer=offer,
            machine=machine,
            work=self.estimate.work,
            pace=self.engine.pace(case, memory) if case else EnginePace(),
            phase_times=self.phase_times,
            model=self.model,
            memory=memory,
            commit=self.commit,
            download_bytes=self.download_bytes,
            install_bytes=round(self.engine_gb(offer) * 1e9),
            installed=self.installed,
            billable=self.billable,
            history=self.history,
        )

    def _mean_held_tokens(self) -> int:
        """A running request has its prompt and, on average, half of its answer in the cache."""
        prompt = self.estimate.prompt_tokens / max(1, self.estimate.requests)
        return round((prompt + self.estimate.mean_request_tokens) / 2)

    def changed(self, overrides: Iterable[str]) -> Question:
        """The same with changes as for --set, whose values are JSON. Raises ValueError if they make no valid recipe.

        A smaller chunk_size makes the longest request shorter, by the bound that holds for every text.
        """
        data = self.recipe.resolved()
        for override in overrides:
            path, _, value = override.partition("=")
            _assign(data, path.split("."), _parsed(value))
        recipe = Recipe.model_validate_json(json.dumps(data))
        bound = recipe.workload.chunk_size + self.estimate.tokens_around_chunk
        around = recipe.workload.max_tokens - self.recipe.workload.max_tokens
        longest = min(self.estimate.longest_request_tokens + around, bound + around)
        return replace(self, recipe=recipe, estimate=replace(self.estimate, longest_request_tokens=longest))


def _assign(data: dict[str, Any], path: list[str], value: Any) -> None:
    for step in path[:-1]:
        data = data.setdefault(step, {})
    data[path[-1]] = value


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value
