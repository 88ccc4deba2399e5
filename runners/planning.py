"""From a recipe to its plan: offers are asked for, the model is looked up, the inputs are read, and all is judged."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provisioners.contract import Finding, Offer, Provisioner
from provisioners.masking import Mask
from provisioners.phase_times import phase_times_of
from provisioners.preflight import recipe_findings
from provisioners.threads import in_thread
from recipes.errors import NoCredentials, NoMachine, Refused
from recipes.load import LoadedRecipe
from recipes.spec import Recipe, Resources
from runners import registry
from runners.engine import Engine
from runners.environments import environment_name
from runners.forecast.history import PastRun, past_run
from runners.forecast.month import MonthBudget, month_findings
from runners.ledger import Ledger
from runners.models import ModelSource, resolve_model
from runners.plan import NEVER_FORCED, NO_OFFER, PassedOver, Plan
from runners.preflight.judge import Judged, force, judge_offer
from runners.preflight.question import Question
from runners.preflight.solve import remedies
from runners.preflight.subject import needless_secrets, subject_findings
from runners.preflight.table import assumed_offers, known_offers
from runners.text.tokens import RoughCounter, TokenCounter
from runners.workload import Estimate, Workload
from stacks.values import NoEngine

if TYPE_CHECKING:
    from runners.stack_volumes import StackVolume

_Offers = tuple[list[Offer], NoMachine | None]


async def make_plan(
    loaded: LoadedRecipe,
    env: Mapping[str, str],
    *,
    leased: Offer | None = None,
    forced: Sequence[str] = (),
    budget: MonthBudget | None = None,
) -> Plan:
    """Ask for offers, look the model up, read the inputs, and judge. Changes nothing and costs nothing.

    No offers are asked for if one is `leased` already. With a `budget` the forecast is held against it. Blocks with a
    `forced` code are let pass as warnings. Raises Refused if the model cannot be had; every other block is a finding of
    the plan, whose verdict is then "refuse".
    """
    provisioner = registry.provisioner(loaded.recipe.resources.provisioner)
    loaded, mounted = await _with_stack_volume(loaded, provisioner, leased)
    recipe = loaded.recipe
    engine, workload = registry.engine(recipe.engine.name), registry.workload(recipe.workload.name)
    found = await _looked_up(recipe, engine, workload, _offers(provisioner, recipe.resources, leased))
    model = found.model
    question = await _question(recipe, engine, model, found.estimate, provisioner, mounted)
    # Without an offer the model is still judged on what the recipe asks for, as the table knows it.
    judged = [judge_offer(question, offer, forced) for offer in found.offers or assumed_offers(recipe.resources)]
    passed = [one for one in judged if one.passed]
    chosen = passed or judged
    findings = [
        *_no_offer(found.no_machine),
        *(mounted.findings(model.hub, found.offers) if mounted else ()),
        *subject_findings(recipe, engine, model, found.uncounted, billable=provisioner.billable),
        *(chosen[0].findings if chosen else ()),
        *recipe_findings(recipe, env, billable=provisioner.billable, needless=needless_secrets(model)),
        *_of_the_month(budget, chosen, recipe, provisioner),
    ]
    if judged and not passed and leased is None:
        findings = await _with_remedies(findings, question, judged[0], provisioner)
    findings = list(force(findings, [code for code in forced if code not in NEVER_FORCED]))
    return Plan(
        loaded=loaded,
        provisioner=provisioner,
        engine=engine,
        workload=workload,
        model=model,
        offers=tuple(one.offer for one in chosen) if found.offers else (),
        findings=(*findings, *_nothing_to_force(findings, forced)),
        prepared=found.prepared,
        estimate=found.estimate,
        passed_over=tuple(PassedOver(one.offer, _why(one)) for one in judged if passed and not one.passed),
        memory=chosen[0].memory if chosen else None,
        forecast=chosen[0].forecast if chosen else None,
        no_machine=found.no_machine,
        mounted=mounted,
        mask=Mask(env.get(name, "") for name in (*recipe.secrets, *provisioner.secrets)),
    )


@dataclass(frozen=True)
class _Found:
    """What is judged: the model, the work, and the machines that could do it."""

    model: ModelSource
    uncounted: Refused | None
    """Why tokens are only roughly counted."""
    prepared: Any
    estimate: Estimate
    offers: Sequence[Offer]
    no_machine: NoMachine | None


async def _looked_up(
    recipe: Recipe, engine: Engine, workload: Workload, offers: Coroutine[Any, Any, _Offers]
) -> _Found:
    """The model and the inputs, read while the offers are asked for."""
    asking = asyncio.ensure_future(offers)
    try:
        model = await _model(recipe, engine, asking)
        counter, uncounted = await in_thread(_counter, model)
        prepared = await in_thread(workload.prepare, recipe, counter)
        estimate = await in_thread(workload.estimate, prepared)
        await in_thread(counter.keep)
        return _Found(model, uncounted, prepared, estimate, *await asking)
    finally:
        asking.cancel()


async def _with_stack_volume(
    loaded: LoadedRecipe, provisioner: Provisioner, leased: Offer | None
) -> tuple[LoadedRecipe, StackVolume | None]:
    """The recipe with its stack's volume, if it has one; a machine that is leased has mounted it already."""
    if leased is not None or not any(volume.stack for volume in loaded.recipe.resources.volumes):
        return loaded, None
    from runners.stack_volumes import resolved  # few recipes have one

    return await resolved(loaded, provisioner, registry.site())


def _of_the_month(
    budget: MonthBudget | None, chosen: Sequence[Judged], recipe: Recipe, provisioner: Provisioner
) -> Iterator[Finding]:
    if budget is not None and chosen:
        forecast = chosen[0].forecast
        usd = forecast.total_usd if forecast else None
        yield from month_findings(budget, usd, recipe.limits, billable=provisioner.billable)


async def _question(
    recipe: Recipe,
    engine: Engine,
    model: ModelSource,
    estimate: Estimate,
    provisioner: Provisioner,
    mounted: StackVolume | None,
) -> Question:
    """What is judged, with what this machine knows of the one that will do the work."""
    held = mounted is not None and mounted.held(model.hub) is not None
    kept = True if held else _is_stored(model, recipe, provisioner)
    return Question(
        recipe=recipe,
        engine=engine,
        model=model.facts,
        estimate=estimate,
        download_bytes=model.hub.bytes if model.hub and not kept else 0,
        downloads=kept is False,
        commit=model.hub.commit if model.hub else None,
        volume_free_gb=mounted.free_gb if mounted else None,
        volume_grows_by=mounted.grows_by if mounted else "",
        billable=provisioner.billable,
        phase_times=phase_times_of(provisioner),
        installed=_is_installed(recipe, engine, provisioner),
        history=await in_thread(_history, recipe, registry.site().home),
    )


async def _offers(provisioner: Provisioner, resources: Resources, leased: Offer | None) -> _Offers:
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


async def _model(recipe: Recipe, engine: Engine, asking: asyncio.Future[_Offers]) -> ModelSource:
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


def _no_offer(error: NoMachine | None) -> Iterator[Finding]:
    if error is not None:
        path = _field_of(error)
        yield Finding(level="block", code=NO_OFFER, message=error.message, suggestion=error.advice, path=path)


def _field_of(error: NoMachine) -> str:
    """What of the recipe one would change for an offer; "" if nothing of it."""
    if isinstance(error, NoCredentials):
        return ""
    if isinstance(error, NoEngine):
        return "resources.provisioner"
    named = re.match(r"resources\.\w+", error.message)
    return named[0] if named else "resources.accelerators"


def _nothing_to_force(findings: Sequence[Finding], forced: Sequence[str]) -> Iterator[Finding]:
    found = {finding.code for finding in findings if finding.forced}
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
