"""What a run will do, decided before anything is rented: offers, findings, the exact steps, the verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provisioners.contract import Finding, Offer, Provisioner
from provisioners.masking import Mask
from recipes.errors import ExitCode, NoMachine
from recipes.load import LoadedRecipe
from recipes.spec import Recipe
from runners.case import Memory
from runners.engine import Engine, Installation, Launch, LaunchRequest
from runners.environments import environment_name
from runners.forecast.values import Forecast
from runners.identity import identity_of
from runners.models import ModelSource
from runners.terminal.words import plural
from runners.workload import Estimate, Workload

if TYPE_CHECKING:
    from runners.stack_volumes import StackVolume

NO_OFFER = "machine"
"""The code of the finding that there is nothing to rent: it alone ends with exit code 4."""


NEVER_FORCED = frozenset({NO_OFFER, "tokenizer"})
"""Without a machine, or without knowing what a token is, there is nothing to run."""


@dataclass(frozen=True)
class PassedOver:
    """An offer that is not tried, and why."""

    offer: Offer
    reason: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that the session needs, and everything that people want to see before it begins."""

    loaded: LoadedRecipe
    provisioner: Provisioner
    engine: Engine
    workload: Workload
    model: ModelSource
    offers: tuple[Offer, ...]
    """In the order in which they are tried; empty only if there is nothing to rent, which is a block."""
    findings: tuple[Finding, ...]
    prepared: Any
    """The workload's inputs, read and cut up."""
    estimate: Estimate
    passed_over: tuple[PassedOver, ...] = ()
    memory: Memory | None = None
    """On the first offer."""
    forecast: Forecast | None = None
    no_machine: NoMachine | None = None
    """Why there are no offers."""
    mounted: StackVolume | None = None
    """The volume of a stack that the recipe mounts."""
    mask: Mask = field(default_factory=Mask, repr=False)
    """For the values of its secrets, should anything repeat them."""

    @property
    def recipe(self) -> Recipe:
        return self.loaded.recipe

    @property
    def offer(self) -> Offer:
        return self.offers[0]

    @property
    def accelerated(self) -> bool:
        return self.recipe.resources.accelerators is not None

    @property
    def engine_version(self) -> str | None:
        return self.recipe.engine.version or self.engine.default_version

    @property
    def identity(self) -> str:
        """What an answer depends on besides its request."""
        return identity_of(self.model, self.engine, self.recipe.engine)

    @property
    def verdict(self) -> str:
        return "refuse" if any(f.level == "block" for f in self.findings) else "go"

    @property
    def forced(self) -> tuple[Finding, ...]:
        """What would have refused the run, and was let pass by its name."""
        return tuple(finding for finding in self.findings if finding.forced)

    @property
    def exit_code(self) -> ExitCode:
        """How a command ends that stops here."""
        blocks = {finding.code for finding in self.findings if finding.level == "block"}
        if not blocks:
            return ExitCode.DONE
        return ExitCode.NO_MACHINE if blocks == {NO_OFFER} else ExitCode.REFUSED

    @property
    def counted(self) -> str:
        """How much work it is, in a few words."""
        estimate = self.estimate
        requests = plural(estimate.requests, "request" if estimate.unit == "point" else "chunk")
        return f"{plural(estimate.documents, estimate.unit)}, {requests}, {estimate.prompt_tokens:,} prompt tokens"

    def installation(self) -> Installation | None:
        return self.engine.installation(self.engine_version or "", accelerated=self.accelerated)

    @property
    def environment(self) -> str | None:
        """The folder of the engine's environment on a machine; None if nothing is installed."""
        installation = self.installation()
        return environment_name(self.engine.name, self.engine_version, installation) if installation else None

    def launch(self, *, python: str, onhost: Path, model_path: str, port: str, key: str) -> Launch | None:
        return self.engine.launch(
            LaunchRequest(
                spec=self.recipe.engine,
                python=python,
                onhost=onhost,
                model_path=model_path,
                served_name=self.recipe.model.identifier,
                port=port,
                key=key,
                accelerated=self.accelerated,
                bind="0.0.0.0" if self.recipe.engine.expose else "127.0.0.1",  # noqa: S104 (asked for, and warned of)
            )
        )
