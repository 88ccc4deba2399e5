"""What a run will do, decided before anything is rented: offers, findings, the exact steps, the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from provisioners.contract import Finding, Offer, Provisioner
from provisioners.preflight import Requirements, judge
from provisioners.threads import in_thread
from recipes.load import LoadedRecipe
from recipes.spec import Limits, Recipe
from runners import registry
from runners.engine import Engine, Installation, Launch, LaunchRequest
from runners.models import ModelSource, resolve_model
from runners.text.tokens import TokenCounter
from runners.workload import Estimate, Workload

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that the session needs, and everything that people want to see before it begins."""

    loaded: LoadedRecipe
    provisioner: Provisioner
    engine: Engine
    workload: Workload
    model: ModelSource
    offers: tuple[Offer, ...]
    findings: tuple[Finding, ...]
    prepared: Any
    """The workload's inputs, read and cut up."""
    estimate: Estimate

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
    def verdict(self) -> str:
        return "refuse" if any(f.level == "block" for f in self.findings) else "go"

    def installation(self) -> Installation | None:
        return self.engine.installation(self.engine_version or "", accelerated=self.accelerated)

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

    def steps(self) -> list[dict[str, Any]]:
        """What will be done, phase by phase; commands as they will be run, with what is not known yet in braces."""
        found: list[dict[str, Any]] = []
        if installation := self.installation():
            found += [{"phase": "prepare", "argv": list(step.argv)} for step in installation.steps]
        if hub := self.model.hub:
            found.append({"phase": "prepare", "action": f"download {self.model.describe()}", "bytes": hub.bytes})
        folder = Path("{model}") if self.model.hub else None
        launch = self.launch(
            python="{env}/bin/python",
            onhost=Path("{onhost}"),
            model_path=self.model.loaded_from(folder),
            port="{port}",
            key="",
        )
        if launch:
            found.append(
                {"phase": "launch", "argv": list(launch.argv), "env": {k: v for k, v in launch.env.items() if v}}
            )
        ready = f"GET {self.engine.health_path} answers 200, and one token is generated"
        found.append({"phase": "launch", "action": ready})
        drive = f"{self.workload.name}: {self.estimate.documents} documents, {self.estimate.requests} requests at first"
        found.append({"phase": "drive", "action": drive})
        if self.recipe.collect:
            found.append({"phase": "collect", "action": f"bring back {', '.join(self.recipe.collect)}"})
        found.append({"phase": "release", "action": f"let go of the machine ({self.provisioner.name}), with proof"})
        return found

    def document(self) -> dict[str, Any]:
        """plan.json."""
        return {
            "schema_version": SCHEMA_VERSION,
            "recipe": self.recipe.name,
            "command": self.loaded.command,
            "recipe_digest": self.loaded.digest,
            "variant": self.loaded.variant,
            "source": str(self.loaded.source),
            "verdict": self.verdict,
            "findings": [asdict(f) for f in self.findings],
            "offers": [asdict(o) for o in self.offers],
            "model": {
                "identifier": self.model.identifier,
                "source": self.model.describe(),
                "bytes": self.model.hub.bytes if self.model.hub else None,
                "commit": self.model.hub.commit if self.model.hub else None,
            },
            "engine": {"name": self.engine.name, "version": self.engine_version},
            "workload": {"name": self.workload.name, **asdict(self.estimate)},
            "memory": None,
            "steps": self.steps(),
            "forecast": None,
        }


def _reserved_flags(recipe: Recipe, engine: Engine) -> Iterator[Finding]:
    """A block for each flag that recipe sets itself: another value would leave the run waiting, or open to anybody."""
    for key in recipe.engine.args:
        if key.replace("-", "_") in engine.reserved:
            message = f"engine.args.{key} is set by recipe itself"
            suggestion = f"try --set engine.args.{key}=null"
            if recipe.engine.args[key] is not None:
                yield Finding(level="block", code="reserved", message=message, suggestion=suggestion)


def _affordable(offers: list[Offer], limits: Limits) -> list[Offer]:
    """The offers at or below max_price; all of them if there is none, so that the refusal can name a price."""
    within = [o for o in offers if limits.max_price is None or (o.price_usd_per_h or 0) <= limits.max_price]
    return within or offers


async def make_plan(loaded: LoadedRecipe, env: Mapping[str, str], *, leased: Offer | None = None) -> Plan:
    """Ask for offers, look the model up, read the inputs, and judge. Changes nothing and costs nothing.

    No offers are asked for if one is `leased` already. Raises Refused or NoMachine if there is nothing to judge; a plan
    with blocks is returned, with the verdict "refuse".
    """
    recipe = loaded.recipe
    provisioner = registry.provisioner(recipe.resources.provisioner)
    engine, workload = registry.engine(recipe.engine.name), registry.workload(recipe.workload.name)
    offers = [leased] if leased else _affordable(await provisioner.offers(recipe.resources), recipe.limits)
    model = await in_thread(resolve_model, recipe, engine)
    counter = await in_thread(TokenCounter.from_path, model.tokenizer)
    prepared = await in_thread(workload.prepare, recipe, counter)
    estimate = await in_thread(workload.estimate, prepared)
    spec = recipe.engine
    needs = Requirements(
        accelerators=spec.tensor_parallel_size * spec.pipeline_parallel_size * spec.data_parallel_size,
        context_tokens=engine.context_tokens(recipe),
        longest_request_tokens=estimate.longest_request_tokens,
        tokens_around_chunk=estimate.tokens_around_chunk,
    )
    findings = judge(recipe, offers, needs, env, billable=provisioner.billable)
    return Plan(
        loaded=loaded,
        provisioner=provisioner,
        engine=engine,
        workload=workload,
        model=model,
        offers=tuple(offers),
        findings=(*_reserved_flags(recipe, engine), *findings),
        prepared=prepared,
        estimate=estimate,
    )
