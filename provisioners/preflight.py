"""What must be true before anything is created: findings, and the clearance that they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from provisioners.contract import Clearance, Finding, Offer
from recipes.errors import Refused
from recipes.spec import Recipe


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """What an engine and a workload need, stated by them and judged here."""

    accelerators: int = 1
    """How many the parallel sizes multiply to."""
    context_tokens: int | None = None
    """The longest request that the engine would accept, as far as the recipe says it."""
    longest_request_tokens: int | None = None
    """The workload's longest request: prompt and answer."""
    tokens_around_chunk: int = 0
    """What a request needs besides its chunk: the template and the answer."""


def judge(
    recipe: Recipe, offers: Iterable[Offer], needs: Requirements, env: Mapping[str, str], *, billable: bool = True
) -> list[Finding]:
    """Every finding about this recipe, in the order in which people read them."""
    offer = next(iter(offers), None)
    findings = [*_parallelism(offer, needs), *_context(recipe, needs), *_secrets(recipe, env)]
    return [*findings, *_limits(recipe, billable), *_exposed(recipe), *_price(recipe, offer)]


def clear(findings: Iterable[Finding]) -> Clearance:
    """The clearance that the findings make. Raises Refused with the first block."""
    found = tuple(findings)
    for finding in found:
        if finding.level == "block":
            raise Refused(finding.message, advice=finding.suggestion)
    return Clearance(found)


def _parallelism(offer: Offer | None, needs: Requirements) -> Iterable[Finding]:
    have = offer.count if offer else 0
    if have and needs.accelerators > have:
        yield Finding(
            level="block",
            code="parallelism",
            message=f"the parallel sizes need {needs.accelerators} accelerators; the machine has {have}",
            suggestion=f"try --set engine.tensor_parallel_size={have}",
            numbers={"needed": needs.accelerators, "available": have},
        )


def _context(recipe: Recipe, needs: Requirements) -> Iterable[Finding]:
    limit, longest = needs.context_tokens, needs.longest_request_tokens
    if limit is None or longest is None:
        return
    numbers = {"context_tokens": limit, "longest_request_tokens": longest}
    if longest <= limit:
        yield Finding(
            level="ok",
            code="context",
            message=f"longest request {longest:,} of {limit:,} tokens",
            numbers=numbers,
        )
        return
    smaller = limit - needs.tokens_around_chunk
    if smaller > recipe.workload.chunk_overlap:
        suggestion = f"try --set workload.chunk_size={smaller}"
    else:
        suggestion = "raise the engine's context, or lower workload.max_tokens and workload.chunk_size"
    yield Finding(
        level="block",
        code="context",
        message=f"the longest request needs {longest:,} tokens; the engine's context holds {limit:,}",
        suggestion=suggestion,
        numbers=numbers,
    )


def _secrets(recipe: Recipe, env: Mapping[str, str]) -> Iterable[Finding]:
    for name in recipe.secrets:
        if not env.get(name):
            # A token that the Hub may never ask for is no reason to refuse.
            yield Finding(
                level="warn" if name == "HF_TOKEN" else "block",
                code="secret",
                message=f"secret {name} is not in the environment",
                suggestion=f"export {name}=…",
            )


def _limits(recipe: Recipe, billable: bool) -> Iterable[Finding]:
    limits = recipe.limits
    if limits.idle_duration and not billable:
        message = "limits.idle_duration has no effect: this machine is not rented"
        yield Finding(level="warn", code="idle", message=message)
    if billable and limits.max_duration is None and limits.max_cost is None:
        yield Finding(
            level="warn",
            code="unlimited",
            message="neither limits.max_duration nor limits.max_cost is set; the machine lets itself go after a day",
            suggestion="write limits: {max_cost: 10, max_duration: 3h}",
        )


def _exposed(recipe: Recipe) -> Iterable[Finding]:
    if recipe.engine.expose:
        yield Finding(
            level="warn",
            code="exposed",
            message="engine.expose opens the engine's port to the internet; only its random key protects it",
            suggestion="leave it out: the client reaches the engine through its own tunnel",
        )


def _price(recipe: Recipe, offer: Offer | None) -> Iterable[Finding]:
    if offer is None:
        return
    price, limit = offer.price_usd_per_h, recipe.limits.max_price
    if price and recipe.limits.max_cost == 0:
        yield Finding(
            level="block",
            code="budget",
            message=f"limits.max_cost $0 pays for nothing at ${price:.2f}/h",
            suggestion="raise limits.max_cost",
            numbers={"price_usd_per_h": price, "max_cost_usd": 0},
        )
    if price is not None and limit is not None and price > limit:
        yield Finding(
            level="block",
            code="price",
            message=f"${price:.2f}/h is above limits.max_price ${limit:.2f}/h",
            suggestion=f"try --set limits.max_price={price:g}",
            numbers={"price_usd_per_h": price, "max_price_usd_per_h": limit},
        )
