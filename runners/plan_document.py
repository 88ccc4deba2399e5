"""plan.json: a plan as plain data, with the exact steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from provisioners.contract import Finding
from provisioners.masking import Mask
from recipes.errors import ExitCode, Refused
from recipes.load import LoadedRecipe
from recipes.spec import Recipe
from recipes.units import GIB, format_duration
from runners.modelfacts.clean import printable_in
from runners.models import ModelSource
from runners.plan import Plan
from runners.terminal.words import plural
from runners.travel import needed

SCHEMA_VERSION = 1
_OWN = ("command", "steps", "source", "variant")
"""What is run or read again as it stands: it is the user's own, and what a stranger named in it was checked before."""


def document_of(plan: Plan) -> dict[str, Any]:
    """Everything that people and programs want to see before a run begins."""
    return _shown(
        {
            **_head(plan.loaded),
            "verdict": plan.verdict,
            "exit_code": int(plan.exit_code),
            "forced": list(dict.fromkeys(finding.code for finding in plan.forced)),
            "findings": [_finding(finding, plan.loaded) for finding in plan.findings],
            "offers": [asdict(offer) for offer in plan.offers],
            "passed_over": [{"offer": asdict(one.offer), "reason": one.reason} for one in plan.passed_over],
            "model": model_document(plan.model),
            "engine": {
                "name": plan.engine.name,
                "title": plan.engine.known_as,
                "version": plan.engine_version,
            },
            "workload": {"name": plan.workload.name, **asdict(plan.estimate)},
            "memory": asdict(plan.memory) if plan.memory else None,
            "steps": list(steps_of(plan)),
            "forecast": plan.forecast.document() if plan.forecast else None,
            "limits": plan.recipe.limits.model_dump(mode="json", exclude_none=True),
            **({"stack": plan.mounted.document(plan.model.hub)} if plan.mounted else {}),
        },
        plan.mask,
    )


def refused_document(loaded: LoadedRecipe, refusal: Refused, env: Mapping[str, str]) -> dict[str, Any]:
    """The same for a recipe that was refused before there was a plan: its model could not be had."""
    recipe = loaded.recipe
    finding = Finding(
        level="block",
        code=refusal.code,
        message=refusal.message,
        suggestion=refusal.advice,
        path=_path(refusal, recipe),
    )
    return _shown(
        {
            **_head(loaded),
            "verdict": "refuse",
            "exit_code": int(ExitCode.REFUSED),
            "forced": [],
            "findings": [_finding(finding, loaded)],
            "offers": [],
            "passed_over": [],
            "model": {"identifier": recipe.model.identifier, "source": recipe.model.repo or recipe.model.identifier},
            "engine": {"name": recipe.engine.name, "title": recipe.engine.name, "version": recipe.engine.version},
            "workload": None,
            "memory": None,
            "steps": [],
            "forecast": None,
            "limits": recipe.limits.model_dump(mode="json", exclude_none=True),
        },
        Mask(env.get(name, "") for name in recipe.secrets),
    )


def _shown(document: dict[str, Any], mask: Mask) -> dict[str, Any]:
    """Without secrets, and without anything that a terminal would obey, wherever it came from."""
    shown: dict[str, Any] = _masked(document, mask)
    return {key: value if key in _OWN else printable_in(value) for key, value in shown.items()}


def _masked(data: Any, mask: Mask) -> Any:
    if isinstance(data, str):
        return mask(data)
    if isinstance(data, list | tuple):
        return [_masked(item, mask) for item in data]
    if isinstance(data, dict):
        return {key: _masked(item, mask) for key, item in data.items()}
    return data


def _head(loaded: LoadedRecipe) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "recipe": loaded.recipe.name,
        "command": loaded.command,
        "recipe_digest": loaded.digest,
        "variant": loaded.variant,
        "source": str(loaded.source),
    }


def _path(refusal: Refused, recipe: Recipe) -> str:
    """The field that it is about: of a model its revision, if that is what was not found."""
    revision = recipe.model.revision
    if refusal.path == "model":
        return "model.revision" if revision and revision in refusal.message else "model.repo"
    return refusal.path


def _finding(finding: Finding, loaded: LoadedRecipe) -> dict[str, Any]:
    return {**asdict(finding), "place": _place(finding.path, loaded)}


def _place(path: str, loaded: LoadedRecipe) -> str:
    """Where the field, or what is nearest above it, is written; empty if nowhere."""
    while path:
        if path in loaded.places:
            return loaded.places[path]
        path = path.rpartition(".")[0]
    return ""


def model_document(source: ModelSource) -> dict[str, Any]:
    """A model with its facts, as far as anybody can look at it."""
    facts = source.facts
    said: dict[str, Any] = {
        "identifier": source.identifier,
        "source": source.describe(),
        "bytes": source.hub.bytes if source.hub else None,
        "commit": source.hub.commit if source.hub else None,
    }
    if facts is None:
        return said
    return {
        **said,
        "architecture": facts.architecture,
        "parameters": facts.parameters,
        "weights_gib": round(facts.weight_bytes / GIB, 3),
        "weights_from": facts.weights_from,
        "max_positions": facts.max_positions,
        "dtype": facts.dtype,
        "quantization": facts.quantization.method if facts.quantization else None,
        "layers": facts.layer_count,
        "hidden_size": facts.hidden_size,
        "heads": facts.heads,
        "kv_heads": facts.kv_heads,
        "vocab_size": facts.vocab_size,
        "assumptions": list(facts.assumptions),
    }


def _alone(plan: Plan) -> str:
    """What becomes of a driver whose client has gone."""
    if plan.provisioner.name == "local":
        return "which ends with its client"
    idle_s = plan.recipe.limits.idle_duration
    idle = "10 minutes" if idle_s is None else format_duration(idle_s)
    return f"which goes on without a client; its results then wait for one for {idle} (limits.idle_duration)"


def steps_of(plan: Plan) -> Iterator[dict[str, Any]]:
    """What will be done, phase by phase; commands as they will be run, with what is not known yet in braces."""
    if installation := plan.installation():
        yield from ({"phase": "prepare", "argv": list(step.argv)} for step in installation.steps)
    if hub := plan.model.hub:
        held = plan.mounted.held(hub) if plan.mounted else None
        found = f"find {plan.model.describe()} on stack {plan.mounted.ref}" if plan.mounted and held else ""
        action = found or f"download {plan.model.describe()}"
        yield {"phase": "prepare", "action": action, "bytes": 0 if found else hub.bytes}
    on_host = plan.recipe.workload.where == "host"
    if on_host:
        action = "make the driver's environment, if the machine's Python is not enough; bring driver and inputs"
        yield {"phase": "prepare", "action": action, "packages": [f"{n}=={v}" for n, v in sorted(needed().items())]}
    folder = Path("{model}") if plan.model.hub else None
    launch = plan.launch(
        python="{env}/bin/python",
        onhost=Path("{onhost}"),
        model_path=plan.model.loaded_from(folder),
        port="{port}",
        key="",
    )
    if launch:
        yield {"phase": "launch", "argv": list(launch.argv), "env": {k: v for k, v in launch.env.items() if v}}
    if on_host:
        argv = ["{driver}/bin/python", "{driver.zip}", "{work}/drive.json"]
        yield {"phase": "launch", "argv": argv, "env": {}}
    page = plan.engine.health_page(plan.engine_version or "")
    yield {"phase": "launch", "action": f"GET {page} answers 200, and one token is generated"}
    work = plan.estimate
    drive = f"{plan.workload.name}: {plural(work.documents, work.unit)}, {plural(work.requests, 'request')}"
    drive += "" if work.unit == "point" else " at first"
    drive += f", by a driver on the machine, {_alone(plan)}" if on_host else ""
    yield {"phase": "drive", "action": drive}
    if plan.recipe.collect:
        yield {"phase": "collect", "action": f"bring back {', '.join(plan.recipe.collect)}"}
    yield {"phase": "release", "action": f"let go of the machine ({plan.provisioner.name}), with proof"}
