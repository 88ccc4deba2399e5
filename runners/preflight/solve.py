"""What would work: changes to a refused recipe, each judged like a recipe before it is suggested. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, islice

from pydantic import JsonValue, ValidationError

from provisioners.contract import Offer, Remedy
from runners.preflight.judge import Judged, judge_offer
from runners.preflight.question import Question

_MACHINES, _FLAGS = 3, 3
"""How many suggestions of each kind fit a screen."""
_TRIED = 8
"""Changes of one kind."""
_ROUND_TO = 16
"""Tokens: suggested context lengths are multiples of a cache block."""


def remedies(question: Question, refused: Judged, catalogue: Sequence[Offer]) -> tuple[Remedy, ...]:
    """Changes with which the recipe would pass, the best first: one flag, another machine, two flags, higher limits.

    `catalogue` is the hardware that could be asked for instead, one offer for each kind and count; only what has a
    name that a recipe can write is suggested.
    """
    kinds = [list(islice(changes, _TRIED)) for changes in _flag_changes(question, refused)]
    one = _first_of_each(question, refused.offer, kinds)
    machines = list(islice(_of_machines(question, catalogue), _MACHINES))
    together = ([(*one, *other) for one in some for other in others] for some, others in combinations(kinds, 2))
    two = [] if one else _first_of_each(question, refused.offer, together)
    found = (*one, *machines, *two)
    return found or tuple(_passing(question, refused.offer, _higher_limits(refused)))


def _first_of_each(question: Question, offer: Offer, kinds: Iterable[Iterable[tuple[str, ...]]]) -> list[Remedy]:
    """Of each kind of change the first that passes; of the first few kinds that have one."""
    passing = (remedy for changes in kinds for remedy in islice(_passing(question, offer, changes), 1))
    return list(islice(passing, _FLAGS))


def _of_machines(question: Question, catalogue: Sequence[Offer]) -> Iterator[Remedy]:
    """The cheapest count of each kind of accelerator that passes, the cheapest first."""
    kinds: set[str] = set()
    for offer in sorted(catalogue, key=_by_price):
        if offer.accelerator is None or offer.id in kinds or offer.stock == "none":
            continue
        for remedy in _passing(question, offer, [_machine_change(question, offer)]):
            kinds.add(offer.id)
            yield remedy


def _by_price(offer: Offer) -> tuple[float, float]:
    """The cheapest first; without prices the smallest."""
    price = float("inf") if offer.price_usd_per_h is None else offer.price_usd_per_h
    return price, offer.count * (offer.memory_gib or 0.0)


def _passing(question: Question, offer: Offer, changes: Iterable[tuple[str, ...]]) -> Iterator[Remedy]:
    """Those of the changes with which the offer passes every check."""
    for overrides in changes:
        try:
            changed = question.changed(overrides)
        except ValidationError:
            continue
        judged = judge_offer(changed, offer)
        if judged.passed:
            yield Remedy(text=_told(changed, judged), overrides=overrides, price_usd_per_h=offer.price_usd_per_h)


def _higher_limits(refused: Judged) -> Iterator[tuple[str, ...]]:
    """What the run costs and takes, as limits: for whoever wants it all the same."""
    for finding in refused.findings:
        numbers = finding.numbers
        if finding.level != "block":
            continue
        if finding.code == "price":
            yield (f"limits.max_price={numbers['price_usd_per_h']}",)
        elif finding.code == "budget" and "high_usd" in numbers:
            yield (f"limits.max_cost={math.ceil(float(numbers['high_usd']) * 100) / 100}",)


def _machine_change(question: Question, offer: Offer) -> tuple[str, ...]:
    spec = question.recipe.engine
    changes = [f"resources.accelerators={written(offer)}:{offer.count}"]
    if question.recipe.resources.any_of:
        changes.append("resources.any_of=[]")
    if question.engine.splits_tensors:
        tensor = max(1, offer.count // (spec.pipeline_parallel_size * spec.data_parallel_size))
        if tensor != spec.tensor_parallel_size:
            changes.append(f"engine.tensor_parallel_size={tensor}")
    return tuple(changes)


def _flag_changes(question: Question, refused: Judged) -> Iterator[Iterable[tuple[str, ...]]]:
    """Changes that need no other machine, the mildest first; of each kind the first that passes is enough."""
    spec, engine, count = question.recipe.engine, question.engine, max(1, refused.offer.count)
    if engine.splits_tensors:
        share = spec.pipeline_parallel_size * spec.data_parallel_size
        sizes = [size for size in range(count // share, 0, -1) if size != spec.tensor_parallel_size]
        yield [(f"engine.tensor_parallel_size={size}",) for size in sizes]
    lengths = list(_shorter_contexts(question, refused))
    yield [(change,) for change in lengths]
    yield _smaller_chunks(question, refused)
    yield _shorter_answers(question, refused)
    yield _without_flags(refused)
    yield _larger_disks(question, refused)
    for change in engine.changes:
        yield [change, *((*change, length) for length in lengths)]
    for args in engine.quantizations(question.version).values():
        changes = tuple(f"engine.args.{key}={_as_set(value)}" for key, value in args.items())
        yield [changes, *((*changes, change) for change in lengths)]


def _as_set(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _shorter_contexts(question: Question, refused: Judged) -> Iterator[str]:
    """The longest context that fits, and one that is just enough for the workload."""
    flag, memory = question.engine.context_flag, refused.memory
    if flag is None:
        return
    longest = question.estimate.longest_request_tokens
    just_enough = -(-longest // _ROUND_TO) * _ROUND_TO
    if memory is not None and memory.longest_that_fits >= just_enough:
        yield f"engine.args.{flag}={memory.longest_that_fits // _ROUND_TO * _ROUND_TO}"
    yield f"engine.args.{flag}={just_enough}"


def _smaller_chunks(question: Question, refused: Judged) -> Iterator[tuple[str, ...]]:
    if refused.memory is None:
        return
    limit = refused.memory.max_model_len
    smaller = limit - question.estimate.tokens_around_chunk
    if question.recipe.workload.chunk_overlap < smaller < question.recipe.workload.chunk_size:
        yield (f"workload.chunk_size={smaller}",)


def _shorter_answers(question: Question, refused: Judged) -> Iterator[tuple[str, ...]]:
    if refused.memory is None:
        return
    settings = question.recipe.workload
    left = refused.memory.max_model_len - (question.estimate.longest_request_tokens - settings.max_tokens)
    if 0 < left < settings.max_tokens:
        yield (f"workload.max_tokens={left}",)


def _without_flags(refused: Judged) -> Iterator[tuple[str, ...]]:
    """Without the flags that are refused."""
    paths = [f.path for f in refused.findings if f.level == "block" and f.path.startswith("engine.args.")]
    if paths:
        yield tuple(f"{path}=null" for path in dict.fromkeys(paths))


def _larger_disks(question: Question, refused: Judged) -> Iterator[tuple[str, ...]]:
    for finding in refused.findings:
        if finding.level == "block" and finding.code in ("disk", "volume"):
            size = f"{int(float(finding.numbers['needed_gb']) * 1.1 // 10 + 1) * 10}GB"
            if finding.code == "disk":
                yield (f"resources.disk_size={size}",)
                continue
            first, *others = question.recipe.resolved()["resources"]["volumes"]
            yield (f"resources.volumes={json.dumps([{**first, 'size': size}, *others])}",)


def written(offer: Offer) -> str:
    """An accelerator's name as a recipe writes it, without spaces that a shell would split."""
    return "-".join((offer.accelerator or "").split())


def _told(question: Question, judged: Judged) -> str:
    """The change in a few words, with what it leaves for the cache."""
    offer, spec, memory = judged.offer, question.recipe.engine, judged.memory
    what = f"{offer.count} × {offer.accelerator}" if offer.accelerator else offer.id
    words = []
    if question.engine.splits_tensors and offer.count:
        words.append(f"tensor parallel {spec.tensor_parallel_size}")
    if memory is not None:
        words.append(
            f"{memory.kv_gib_per_gpu:.1f} GiB KV per GPU" if offer.count else f"{memory.kv_tokens:,} KV tokens"
        )
    return f"{what} ({'; '.join(words)})" if words else what
