"""Which accelerators, and how many, serve a model: every one judged as a plan would, without a workload. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import JsonValue

from provisioners.contract import Finding, Offer
from recipes.errors import UsageError
from recipes.spec import Engine as EngineSpec
from runners.case import Assessment, Case
from runners.engine import Engine
from runners.modelfacts.facts import ModelFacts
from runners.preflight.assessing import assessed
from runners.preflight.judge import machine_of
from runners.preflight.solve import written

Verdict = Literal["fits", "queues", "shorter", "no"]

_ROUND_TO = 16
"""Tokens: a shorter context is a multiple of a cache block."""
_LEAST_CONTEXT = 256
"""Tokens: what holds less serves nobody."""
_SHORTER_HELPS = frozenset({"kv-cache", "max-model-len", "ram", "weights"})
_OF_THE_MODEL = frozenset({"assumption", "architecture"})
"""Warnings that are the same on every machine, and told once."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What shall be served, and how."""

    engine: Engine
    version: str
    model: ModelFacts
    args: Mapping[str, JsonValue] = field(default_factory=dict)
    """engine.args, quantization among them."""
    context: int | None = None
    """Tokens of the longest request; the model's own length, if left out."""
    concurrency: int = 1
    """Requests of this length at once."""

    def spec(self, tensor: int, pipeline: int, context: int | None) -> EngineSpec:
        args = dict(self.args)
        if context is not None and self.engine.context_flag:
            args[self.engine.context_flag] = context
        return EngineSpec(
            name=self.engine.name,
            version=self.version or None,
            tensor_parallel_size=tensor,
            pipeline_parallel_size=pipeline,
            args=args,
        )


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One accelerator and count, and what it would hold."""

    verdict: Verdict
    """queues: fewer requests at once than asked for; shorter: only with a shorter context."""
    reason: str = ""
    offer: Offer
    accelerator: str
    """As a recipe writes it."""
    tensor_parallel_size: int
    pipeline_parallel_size: int
    usable_gib_per_gpu: float
    weights_gib_per_gpu: float | None = None
    kv_gib_per_gpu: float | None = None
    kv_tokens: int | None = None
    context: int | None = None
    """The longest request that is accepted so."""
    longest_context: int | None = None
    """The longest request that the cache would hold."""
    at_once: int | None = None
    """Requests of `context` tokens."""
    overrides: tuple[str, ...] = ()
    """What a recipe has to set for it, as for --set."""
    warnings: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """A row of `recipe fit --json`: the offer's own fields beside what follows."""
        offer = self.offer
        said = {name: value for name, value in asdict(self).items() if name != "offer"}
        bought = {
            name: getattr(offer, name) for name in ("count", "price_usd_per_h", "stock", "cloud", "provider", "id")
        }
        return {**bought, **said}


def fits(wish: Wish, offers: Iterable[Offer]) -> list[Fit]:
    """Every offer judged, the cheapest first; without prices the one with the least memory first.

    Of several offers of the same accelerators, as in two clouds, the cheapest that is in stock is kept. More of them
    are left out where they hold no more than fewer do.
    """
    found = [_judged(wish, offer) for offer in _one_of_each(offers)]
    return sorted((fit for fit in found if not any(_as_good(fewer, fit) for fewer in found)), key=_order)


def quantization_args(engine: Engine, version: str, name: str | None) -> dict[str, JsonValue]:
    """The engine.args that ask for a quantization: what the release has under this name or value, or what it makes
    smallest under a name that begins with this word; else the flag's own value.
    """
    if name is None:
        return {}
    named = engine.quantizations(version)
    for label, args in named.items():
        if name.casefold() in (label.casefold(), *(str(value).casefold() for value in args.values())):
            return dict(args)
    for label, args in reversed(list(named.items())):
        if label.split()[0].casefold() == name.casefold():
            return dict(args)
    if engine.model_form == "gguf":
        raise UsageError(
            f"--quantization {name}: {engine.name} does not quantize while loading",
            advice="name a repository or file that is quantized already",
        )
    return {"quantization": name}


def model_warnings(wish: Wish, offers: Sequence[Offer]) -> tuple[str, ...]:
    """What had to be assumed of the model, whatever the machine."""
    said = list(wish.model.assumptions)
    for offer in offers[:1]:
        found = _assessed(wish, offer, 1, 1, wish.context).findings
        said += [f.message for f in found if f.level == "warn" and f.code in _OF_THE_MODEL]
    return tuple(dict.fromkeys(said))


def _as_good(fewer: Fit, fit: Fit) -> bool:
    """Whether the same accelerators, but fewer of them, serve as well."""
    same = fewer.offer.id == fit.offer.id and fewer.offer.count < fit.offer.count
    return same and "no" not in (fewer.verdict, fit.verdict) and (fewer.kv_tokens or 0) >= (fit.kv_tokens or 0)


def _one_of_each(offers: Iterable[Offer]) -> list[Offer]:
    kept: dict[tuple[str, int], Offer] = {}
    for offer in offers:
        key = (offer.id, offer.count)
        if offer.count and (key not in kept or _bought_before(offer) < _bought_before(kept[key])):
            kept[key] = offer
    return list(kept.values())


def _bought_before(offer: Offer) -> tuple[bool, float]:
    return offer.stock == "none", _price(offer)


def _price(offer: Offer) -> float:
    return float("inf") if offer.price_usd_per_h is None else offer.price_usd_per_h


def _order(fit: Fit) -> tuple[float, float, int, str]:
    return _price(fit.offer), fit.usable_gib_per_gpu * fit.offer.count, fit.offer.count, fit.accelerator


def _judged(wish: Wish, offer: Offer) -> Fit:
    """The first way to spread the model that fits; else one that nearly does; else why the first does not."""
    found: list[Fit] = []
    for tensor, pipeline in _spreads(wish.engine, offer.count):
        fit = _spread_so(wish, offer, tensor, pipeline)
        if fit.verdict == "fits":
            return fit
        found.append(fit)
    rank: list[Verdict] = ["queues", "shorter", "no"]
    return min(found, key=lambda fit: rank.index(fit.verdict))


def _spreads(engine: Engine, count: int) -> Iterator[tuple[int, int]]:
    """Tensor and pipeline parallel sizes that use every accelerator, the widest tensor parallelism first."""
    if not engine.splits_tensors:
        yield 1, 1
        return
    yield from ((tensor, count // tensor) for tensor in range(count, 0, -1) if count % tensor == 0)


def _spread_so(wish: Wish, offer: Offer, tensor: int, pipeline: int) -> Fit:
    said = _assessed(wish, offer, tensor, pipeline, wish.context)
    blocks = [finding for finding in said.findings if finding.level == "block"]
    if not blocks:
        return _served(wish, offer, tensor, pipeline, said)
    longest = said.memory.longest_that_fits // _ROUND_TO * _ROUND_TO if said.memory else 0
    if longest >= _LEAST_CONTEXT and all(block.code in _SHORTER_HELPS for block in blocks):
        again = _assessed(wish, offer, tensor, pipeline, longest)
        if not any(finding.level == "block" for finding in again.findings):
            return _served(wish, offer, tensor, pipeline, again, shortened=longest)
    return _fit(wish, offer, tensor, pipeline, said, verdict="no", reason=blocks[0].message)


def _assessed(wish: Wish, offer: Offer, tensor: int, pipeline: int, context: int | None) -> Assessment:
    machine = machine_of(offer)
    spec = wish.spec(tensor, pipeline, context)
    return assessed(wish.engine, Case(spec=spec, version=wish.version, model=wish.model, machine=machine))


def _served(
    wish: Wish, offer: Offer, tensor: int, pipeline: int, said: Assessment, *, shortened: int | None = None
) -> Fit:
    at_once = min(said.memory.max_running, said.memory.slots) if said.memory else None
    if at_once == 0:
        reason = next(_warnings(said.findings), "the cache may not hold a single request")
        return _fit(wish, offer, tensor, pipeline, said, verdict="no", reason=reason)
    if shortened is not None:
        reason = f"only {shortened:,} tokens of context"
        return _fit(wish, offer, tensor, pipeline, said, verdict="shorter", reason=reason, context=shortened)
    if at_once is not None and at_once < wish.concurrency:
        reason = f"{at_once:,} of {wish.concurrency:,} requests at once"
        return _fit(wish, offer, tensor, pipeline, said, verdict="queues", reason=reason, context=wish.context)
    return _fit(wish, offer, tensor, pipeline, said, verdict="fits", context=wish.context)


def _fit(
    wish: Wish,
    offer: Offer,
    tensor: int,
    pipeline: int,
    said: Assessment,
    *,
    verdict: Verdict,
    reason: str = "",
    context: int | None = None,
) -> Fit:
    memory, accelerator = said.memory, machine_of(offer).accelerator
    return Fit(
        verdict=verdict,
        reason=reason,
        offer=offer,
        accelerator=written(offer),
        tensor_parallel_size=tensor,
        pipeline_parallel_size=pipeline,
        usable_gib_per_gpu=accelerator.usable_gib if accelerator else 0.0,
        weights_gib_per_gpu=memory.weights_gib_per_gpu if memory else None,
        kv_gib_per_gpu=memory.kv_gib_per_gpu if memory else None,
        kv_tokens=memory.kv_tokens if memory else None,
        context=memory.max_model_len if memory else context,
        longest_context=memory.longest_that_fits if memory else None,
        at_once=min(memory.max_running, memory.slots) if memory else None,
        overrides=_overrides(wish, offer, tensor, pipeline, context),
        warnings=tuple(_warnings(said.findings)),
    )


def _warnings(findings: Iterable[Finding]) -> Iterator[str]:
    for finding in findings:
        if finding.level == "warn" and finding.code not in _OF_THE_MODEL:
            yield finding.message


def _overrides(wish: Wish, offer: Offer, tensor: int, pipeline: int, context: int | None) -> tuple[str, ...]:
    found = [f"resources.accelerators={written(offer)}:{offer.count}"]
    found += [f"engine.args.{name}={_as_set(value)}" for name, value in wish.args.items()]
    if wish.engine.splits_tensors:
        found.append(f"engine.tensor_parallel_size={tensor}")
    if pipeline > 1:
        found.append(f"engine.pipeline_parallel_size={pipeline}")
    if context is not None and wish.engine.context_flag:
        found.append(f"engine.args.{wish.engine.context_flag}={context}")
    return tuple(found)


def _as_set(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value)
