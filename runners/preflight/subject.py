"""What is found of a recipe's model and flags on every machine."""

from __future__ import annotations

from collections.abc import Iterator

from provisioners.contract import Finding
from recipes.errors import Refused
from recipes.spec import Recipe
from runners.engine import Engine
from runners.models import ModelSource


def subject_findings(
    recipe: Recipe, engine: Engine, model: ModelSource, uncounted: Refused | None, *, billable: bool
) -> Iterator[Finding]:
    """`uncounted` says why nothing can be counted in the model's own tokens."""
    yield from _of_model(model, uncounted)
    yield from _token(model, recipe, billable=billable)
    yield from _reserved_flags(recipe, engine)


def needless_secrets(model: ModelSource) -> tuple[str, ...]:
    """Secrets that the recipe may name and nobody will ask for."""
    return ("HF_TOKEN",) if model.hub is None or not model.hub.gated else ()


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


def _reserved_flags(recipe: Recipe, engine: Engine) -> Iterator[Finding]:
    """A block for each flag that recipe sets itself: another value would leave the run waiting, or open to anybody."""
    for key in recipe.engine.args:
        if key.replace("-", "_") in engine.reserved:
            message = f"engine.args.{key} is set by recipe itself"
            suggestion = f"try --set engine.args.{key}=null"
            if recipe.engine.args[key] is not None:
                path = f"engine.args.{key}"
                yield Finding(level="block", code="reserved", message=message, suggestion=suggestion, path=path)
