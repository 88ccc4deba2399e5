"""What must be true before anything is created, whatever the engine: money, secrets, limits; and the clearance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from provisioners.contract import Clearance, Finding, Offer
from recipes.errors import Refused
from recipes.spec import Recipe

_TELLING = 8
"""A shorter secret is found in words by accident."""


def recipe_findings(
    recipe: Recipe, env: Mapping[str, str], *, billable: bool = True, needless: Sequence[str] = ()
) -> Iterator[Finding]:
    """What holds of the recipe on every offer. `needless` are secrets that it may name, and nobody will ask for."""
    yield from _secrets(recipe, env, needless)
    yield from _written_out(recipe, env)
    yield from _limits(recipe, billable)
    yield from _exposed(recipe)


def clear(findings: Iterable[Finding]) -> Clearance:
    """The clearance that the findings make. Raises Refused with the first block."""
    found = tuple(findings)
    for finding in found:
        if finding.level == "block":
            raise Refused(finding.message, advice=finding.suggestion)
    return Clearance(found)


def _secrets(recipe: Recipe, env: Mapping[str, str], needless: Sequence[str]) -> Iterator[Finding]:
    for name in recipe.secrets:
        if not env.get(name) and name not in needless:
            yield Finding(
                level="block",
                code="secret",
                message=f"secret {name} is not in the environment",
                suggestion=f"export {name}=…",
                path="secrets",
            )


def _written_out(recipe: Recipe, env: Mapping[str, str]) -> Iterator[Finding]:
    """A secret's value in the recipe would stand in process lists, files and logs."""
    values = {name: value for name in recipe.secrets if len(value := env.get(name, "")) >= _TELLING}
    for path, text in _texts(recipe.resolved()):
        for name, value in values.items():
            if value in text:
                yield Finding(
                    level="block",
                    code="secret",
                    message=f"{path} holds the value of secret {name}, which would stand in files and process lists",
                    suggestion="leave it out; secrets travel in the environment",
                    path=path,
                )


def _texts(data: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text in plain data, with its dotted path."""
    if isinstance(data, str):
        yield path, data
    elif isinstance(data, list):
        for item in data:
            yield from _texts(item, path)
    elif isinstance(data, dict):
        for key, item in data.items():
            yield from _texts(item, f"{path}.{key}" if path else str(key))


def _limits(recipe: Recipe, billable: bool) -> Iterator[Finding]:
    limits = recipe.limits
    if limits.idle_duration and not billable:
        message = "limits.idle_duration has no effect: this machine is not rented"
        yield Finding(level="warn", code="idle", message=message, path="limits.idle_duration")
    if billable and limits.max_duration is None and limits.max_cost is None:
        yield Finding(
            level="warn",
            code="unlimited",
            message="neither limits.max_duration nor limits.max_cost is set; the machine lets itself go after a day",
            suggestion="write limits: {max_cost: 10, max_duration: 3h}",
            path="limits",
        )


def _exposed(recipe: Recipe) -> Iterator[Finding]:
    if recipe.engine.expose:
        yield Finding(
            level="warn",
            code="exposed",
            message="engine.expose opens the engine's port to the internet; only its random key protects it",
            suggestion="leave it out: the client reaches the engine through its own tunnel",
            path="engine.expose",
        )


def price_findings(recipe: Recipe, offer: Offer) -> Iterator[Finding]:
    """What an offer costs by the hour against what the recipe allows."""
    price, limit = offer.price_usd_per_h, recipe.limits.max_price
    if price and recipe.limits.max_cost == 0:
        yield Finding(
            level="block",
            code="budget",
            message=f"limits.max_cost $0 pays for nothing at ${price:.2f}/h",
            suggestion="raise limits.max_cost",
            numbers={"price_usd_per_h": price, "max_cost_usd": 0},
            path="limits.max_cost",
        )
    if price is not None and limit is not None and price > limit:
        yield Finding(
            level="block",
            code="price",
            message=f"${price:.2f}/h is above limits.max_price ${limit:.2f}/h",
            suggestion=f"try --set limits.max_price={price:g}",
            numbers={"price_usd_per_h": price, "max_price_usd_per_h": limit},
            path="limits.max_price",
        )
