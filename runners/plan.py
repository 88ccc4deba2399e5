"""What a run will do, decided before anything is rented: offers, findings, the exact steps, the verdict."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from provisioners.contract import Finding, Offer, Provisioner
from provisioners.phase_times import phase_times_of
from provisioners.preflight import recipe_findings
from provisioners.threads import in_thread
from recipes.errors import ExitCode, NoCredentials, NoMachine, Refused
from recipes.load import LoadedRecipe
from recipes.spec import Recipe, Resources
from runners import registry
from runners.case import Memory
from runners.engine import Engine, Installation, Launch, LaunchRequest
from runners.environments import environment_name
from runners.forecast.history import PastRun, past_run
from runners.forecast.values import Forecast
from runners.ledger import Ledger
from runners.masking import Mask
from runners.models import ModelSource, resolve_model
from runners.preflight.judge import Judged, force, judge_offer
from runners.preflight.question import Question
from runners.preflight.solve import remedies
from runners.preflight.table import assumed_offers, known_offers
from runners.text.tokens import RoughCounter, TokenCounter
from runners.workload import Estimate, Workload

NO_OFFER = "machine"
"""The code of the finding that there is nothing to rent: it alone ends with exit code 4."""


_NEVER_FORCED = frozenset({NO_OFFER, "tokenizer"})
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


async def make_plan(
    loaded: LoadedRecipe, env: Mapping[str, str], *, leased: Offer | None = None, forced: Sequence[str] = ()
) -> Plan:
    """Ask for offers, look the model up, read the inputs, and judge. Changes nothing and costs nothing.

    No offers are asked for if one is `leased` already. Blocks with a `forced` code are let pass as warnings. Raises
    Refused if the model cannot be had; every other block is a finding of the plan, whose verdict is then "refuse".
    """
    recipe = loaded.recipe
    provisioner = registry.provisioner(recipe.resources.provisioner)
    engine, workload = registry.engine(recipe.engine.name), registry.workload(recipe.workload.name)
    asking = asyncio.ensure_future(_offers(provisioner, recipe.resources, leased))
    try:
        model = await _model(recipe, engine, asking)
        counter, uncounted = await in_thread(_counter, model)
        prepared = await in_thread(workload.prepare, recipe, counter)
        estimate = await in_thread(workload.estimate, prepared)
        offers, no_machine = await asking
    finally:
        asking.cancel()
    kept = _is_stored(model, recipe, provisioner)
    question = Question(
        recipe=recipe,
        engine=engine,
        model=model.facts,
        estimate=estimate,
        download_bytes=0 if kept else model.hub.bytes if model.hub else 0,
        downloads=kept is False,
        commit=model.hub.commit if model.hub else None,
        billable=provisioner.billable,
        phase_times=phase_times_of(provisioner),
        installed=_is_installed(recipe, engine, provisioner),
        history=await in_thread(_history, recipe, registry.site().home),
    )
    # Without an offer the model is still judged on what the recipe asks for, as the table knows it.
    judged = [judge_offer(question, offer, forced) for offer in offers or assumed_offers(recipe.resources)]
    passed = [one for one in judged if one.passed]
    chosen = passed or judged
    findings = [
        *_no_offer(no_machine),
        *_of_model(model, uncounted),
        *_token(model, recipe, billable=provisioner.billable),
        *_reserved_flags(recipe, engine),
        *(chosen[0].findings if chosen else ()),
        *recipe_findings(recipe, env, billable=provisioner.billable, needless=_needless_secrets(model)),
        *_nothing_to_force(judged, forced),
    ]
    if judged and not passed and leased is None:
        findings = await _with_remedies(findings, question, judged[0], provisioner)
    return Plan(
        loaded=loaded,
        provisioner=provisioner,
        engine=engine,
        workload=workload,
        model=model,
        offers=tuple(one.offer for one in chosen) if offers else (),
        findings=tuple(force(findings, [code for code in forced if code not in _NEVER_FORCED])),
        prepared=prepared,
        estimate=estimate,
        passed_over=tuple(PassedOver(one.offer, _why(one)) for one in judged if passed and not one.passed),
        memory=chosen[0].memory if chosen else None,
        forecast=chosen[0].forecast if chosen else None,
        no_machine=no_machine,
        mask=Mask(env.get(name, "") for name in (*recipe.secrets, *provisioner.secrets)),
    )


async def _offers(
    provisioner: Provisioner, resources: Resources, leased: Offer | None
) -> tuple[list[Offer], NoMachine | None]:
    if leased is not None:
        return [leased], None
    try:
        return await provisioner.offers(resources), None
    except NoMachine as error:
        return [], error


def _is_installed(recipe: Recipe, engine: Engine, provisioner: Provisioner) -> bool | None:
    """Whether nothing will have to be installed; None if only the machine knows."""
    version = recipe.engine.version or engine.default_version
    installation = engine.installation(version or "", accelerated=recipe.resources.accelerators is not None)
    if installation is None:
        return True
    return provisioner.installed(environment_name(engine.name, version, installation))


def _is_stored(model: ModelSource, recipe: Recipe, provisioner: Provisioner) -> bool | None:
    """Whether nothing has to be downloaded; None if only the machine knows."""
    if model.hub is None:
        return True
    if recipe.model.path is not None:
        return None
    return provisioner.stored(model.hub.repo, model.hub.commit)


def _history(recipe: Recipe, home: Path) -> list[PastRun]:
    """What earlier runs of this model and engine say; nothing is made where there were none."""
    if not (home / "ledger.db").is_file():
        return []
    results = Ledger(home).completed(model=recipe.model.identifier, engine=recipe.engine.name)
    return [run for result in results if (run := past_run(result))]


async def _model(
    recipe: Recipe, engine: Engine, asking: asyncio.Future[tuple[list[Offer], NoMachine | None]]
) -> ModelSource:
    """The model. Raises Refused; or NoCredentials where nothing could be rented for any model."""
    try:
        return await in_thread(resolve_model, recipe, engine)
    except Refused:
        _, no_machine = await asking
        if isinstance(no_machine, NoCredentials):
            raise no_machine from None
        raise


def _counter(model: ModelSource) -> tuple[TokenCounter, Refused | None]:
    """What counts tokens. Without a tokenizer a rough measure, so that everything else can still be planned."""
    try:
        return TokenCounter.from_path(model.counting_tokenizer()), None
    except Refused as refusal:
        return RoughCounter(), refusal


def _of_model(model: ModelSource, uncounted: Refused | None) -> Iterator[Finding]:
    """How sure it is what the model is."""
    if uncounted is not None:
        yield Finding(
            level="block",
            code="tokenizer",
            message=uncounted.message,
            suggestion=uncounted.advice,
            path="workload.tokenizer",
        )
    if model.hub is not None:
        said = "gated: yes · token: accepted" if model.hub.gated else "gated: no · token: not needed"
        yield Finding(level="ok", code="access", message=said, path="model.repo")
    for note in model.notes:
        if note.startswith("offline: "):
            yield Finding(level="warn", code="offline", message=note, path="model")
        else:
            yield Finding(level="warn", code="cache", message=note)
    if model.facts is not None:
        yield from (
            Finding(level="warn", code="assumption", message=one, path="model") for one in model.facts.assumptions
        )


def _token(model: ModelSource, recipe: Recipe, *, billable: bool) -> Iterator[Finding]:
    """A rented machine has no other token than the one that the recipe gives it."""
    if billable and model.hub is not None and model.hub.gated and "HF_TOKEN" not in recipe.secrets:
        yield Finding(
            level="block",
            code="secret",
            message=f"{model.hub.repo} is gated, and the machine would have no token to download it with",
            suggestion="write secrets: [HF_TOKEN], and export HF_TOKEN=…",
            path="secrets",
        )


def _needless_secrets(model: ModelSource) -> tuple[str, ...]:
    """Secrets that the recipe may name and nobody will ask for."""
    return ("HF_TOKEN",) if model.hub is None or not model.hub.gated else ()


def _no_offer(error: NoMachine | None) -> Iterator[Finding]:
    if error is not None:
        named = re.match(r"resources\.\w+", error.message)
        path = "" if isinstance(error, NoCredentials) else named[0] if named else "resources.accelerators"
        yield Finding(level="block", code=NO_OFFER, message=error.message, suggestion=error.advice, path=path)


def _reserved_flags(recipe: Recipe, engine: Engine) -> Iterator[Finding]:
    """A block for each flag that recipe sets itself: another value would leave the run waiting, or open to anybody."""
    for key in recipe.engine.args:
        if key.replace("-", "_") in engine.reserved:
            message = f"engine.args.{key} is set by recipe itself"
            suggestion = f"try --set engine.args.{key}=null"
            if recipe.engine.args[key] is not None:
                path = f"engine.args.{key}"
                yield Finding(level="block", code="reserved", message=message, suggestion=suggestion, path=path)


def _nothing_to_force(judged: Sequence[Judged], forced: Sequence[str]) -> Iterator[Finding]:
    found = {finding.code for one in judged for finding in one.findings if finding.forced}
    for code in forced:
        if code not in found:
            yield Finding(level="warn", code="force", message=f"--force {code}: no check of this name had to be forced")


def _why(judged: Judged) -> str:
    """Why an offer is not tried, in a few words."""
    block = next(finding for finding in judged.findings if finding.level == "block")
    return block.message


async def _with_remedies(
    findings: list[Finding], question: Question, refused: Judged, provisioner: Provisioner
) -> list[Finding]:
    """What would work, told with the first block of the offer."""
    try:
        catalogue = await provisioner.catalogue(cloud=question.recipe.resources.cloud)
    except NoMachine:
        catalogue = known_offers(provisioner.name)
    works = await in_thread(remedies, question, refused, catalogue)
    first = next(finding for finding in refused.findings if finding.level == "block")
    return [replace(finding, works=works) if finding is first else finding for finding in findings]
