"""The answer in sentences: which is faster, which is cheaper, and whether that is more than noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from runners.comparing.bootstrap import Interval
from runners.comparing.caveats import same_work
from runners.comparing.differences import Difference, Pair, pair_of
from runners.comparing.groups import Estimate, Group
from runners.comparing.metrics import Metric
from runners.comparing.noise import ALPHA, method_for
from runners.comparing.ratios import times
from runners.terminal.words import exact_dollars, plural

_SPEED = "output_tokens_per_s"
_COSTS = {"usd_per_document": "per {unit}", "usd_per_million_tokens": "per million tokens"}
Topic = Literal["speed", "cost"]


def answer(groups: Sequence[Group], metrics: Sequence[Metric], pairs: Sequence[Pair]) -> tuple[str, ...]:
    """One or two sentences, and what would make them surer."""
    if not groups:
        return ()
    if len(groups) == 1:
        return (_of_one(groups[0], metrics),)
    told = list(_of_two(groups, pairs[0]) if len(groups) == 2 else _of_many(groups, metrics))
    return (*told, *_more_runs(groups))


def share(level: float) -> str:
    """95 %."""
    return f"{100 * level:.0f} %"


def _of_one(group: Group, metrics: Sequence[Metric]) -> str:
    by_key = {metric.key: metric for metric in metrics}
    parts = [
        f"{_figure(metric, found.median, group)}{_spread(metric, found)}"
        for key in (_SPEED, "usd_per_document")
        if (metric := by_key.get(key)) and (found := group.estimate(metric))
    ]
    how_many = plural(len(group.results), "run")
    return f"{how_many} of {group.label}: {', '.join(parts) or 'no figures'}."


def _spread(metric: Metric, found: Estimate) -> str:
    if found.interval is None:
        return ""
    low, high = (_plain(metric, bound) for bound in (found.interval.low, found.interval.high))
    return f" ({share(found.interval.level)}: {low}–{high})"


def _of_two(groups: Sequence[Group], pair: Pair) -> Iterator[str]:
    if speed := pair.of(_SPEED):
        yield _difference(groups, speed, "speed")
    if (cost := pair.of(_cost_key(groups))) and (cost.before.median or cost.after.median):
        yield _difference(groups, cost, "cost")
    elif cost is None:
        free = " and ".join(g.letter for g in groups if (g.newest.get("cost") or {}).get("total_usd") is None)
        if free:
            yield f"No price is known of {free}, so nothing is said of cost."


def _difference(groups: Sequence[Group], found: Difference, topic: Topic) -> str:
    """The better one is named first, so that the factor is what one gains."""
    first, second = groups[found.b], groups[found.a]
    ratio, bounds = found.ratio, found.interval
    figures = [found.after.median, found.before.median]
    decided = found.verdict not in ("within noise", "the same")
    if topic == "speed" and decided and ratio is not None and 0 < ratio < 1:
        first, second, ratio = second, first, 1 / ratio
        bounds = bounds.turned if bounds else None
        figures.reverse()
    one, other = _plain(found.metric, figures[0]), _figure(found.metric, figures[1], second)
    if not decided:
        beyond = "is the same" if found.verdict == "the same" else "does not differ by more than noise"
        within = _sure(bounds) if found.verdict == "within noise" else ""
        # Both by their letters, the first group first.
        one, other = _plain(found.metric, figures[1]), _figure(found.metric, figures[0], first)
        return f"The {topic} {beyond}: {second.letter} {one}, {first.letter} {other}{within}."
    sure = found.verdict == "more than noise"
    against = f"{one} against {other}"
    if ratio is None:
        return f"{first.letter} against {second.letter}: {against}."
    if topic == "speed":
        verb = "is" if sure else "was"
        return f"{first.letter} {verb} {times(ratio)} times as fast as {second.letter}{_sure(bounds)}: {against}."
    verb = "costs" if sure else "cost"
    return f"{first.letter} {verb} {times(ratio)} times as much as {second.letter}{_sure(bounds)}: {against}."


def _sure(bounds: Interval | None) -> str:
    return f" ({share(bounds.level)}: {times(bounds.low)}–{times(bounds.high)})" if bounds else ""


def _of_many(groups: Sequence[Group], metrics: Sequence[Metric]) -> Iterator[str]:
    by_key = {metric.key: metric for metric in metrics}
    for key, word in ((_SPEED, "fastest"), (_cost_key(groups), "cheapest")):
        metric = by_key.get(key)
        if metric is not None and (told := _best(groups, metric, word)):
            yield told


def _best(groups: Sequence[Group], metric: Metric, word: str) -> str:
    """Who is best, against the worst, and whether ahead of each other one by more than noise.

    To be ahead of all, each single difference must be more than noise: that all of them are by luck is less likely than
    that one of them is, so that no correction for their number is needed.
    """
    known = [(i, value) for i, group in enumerate(groups) if (value := group.median(metric)) is not None]
    if len(known) < 2 or not any(value for _, value in known):
        return ""
    known.sort(key=lambda each: each[1], reverse=metric.better == "higher")
    (best, figure), (worst, least) = known[0], known[-1]
    if figure == least:
        return ""
    factor = f", {times(figure / least)} times that of {groups[worst].letter}" if least else ""
    ahead = _ahead(groups, best, [i for i, _ in known[1:]], metric)
    return f"{_called(groups[best])} is the {word}: {_figure(metric, figure, groups[best])}{factor}{ahead}."


def _called(group: Group) -> str:
    variant = ", ".join(f"{path.rpartition('.')[2]} {_by_name(value)}" for path, value in group.variant.items())
    return f"{group.letter} ({variant})" if variant else group.letter


def _ahead(groups: Sequence[Group], best: int, others: Sequence[int], metric: Metric) -> str:
    if any(method_for(len(groups[best].results), len(groups[i].results)) is None for i in others):
        return ""
    near = [i for i in others if not _beats(groups, best, i, metric)]
    if not near:
        return "; ahead of every other by more than noise"
    letters = [groups[i].letter for i in near]
    return f"; not ahead of {_listed(letters)} by more than noise"


def _beats(groups: Sequence[Group], best: int, other: int, metric: Metric) -> bool:
    found = pair_of(groups, other, best, [metric]).of(metric.key)
    return found is not None and found.verdict == "more than noise"


def _listed(letters: Sequence[str]) -> str:
    if len(letters) > 4:
        return f"{', '.join(letters[:3])} and {len(letters) - 3} others"
    return " or ".join([", ".join(letters[:-1]), letters[-1]]) if len(letters) > 1 else letters[0]


def _cost_key(groups: Sequence[Group]) -> str:
    return "usd_per_document" if same_work(groups) else "usd_per_million_tokens"


def _more_runs(groups: Sequence[Group]) -> Iterator[str]:
    """Said once: too few repetitions to tell anything."""
    counts = [len(group.results) for group in groups]
    if all(method_for(counts[0], count) for count in counts[1:]):
        return
    few = f"{plural(min(counts), 'run')} of {groups[counts.index(min(counts))].letter}"
    each = "One run each cannot" if max(counts) == 1 else f"{few} cannot"
    yield f"{each} be told from noise: repeat them with recipe up … --repeat 5."


def _figure(metric: Metric, value: float, group: Group) -> str:
    """The figure with what it is of."""
    if metric.unit == "usd":
        unit = (group.newest.get("documents") or {}).get("unit") or "document"
        return f"{exact_dollars(value)} {_COSTS.get(metric.key, '').format(unit=unit)}".strip()
    return f"{_plain(metric, value)} {metric.name} tok/s" if metric.unit == "tok/s" else _plain(metric, value)


def _plain(metric: Metric, value: float) -> str:
    return exact_dollars(value) if metric.unit == "usd" else f"{value:,.0f}" if value >= 99.5 else f"{value:.3g}"


CONFIDENCE = share(1 - ALPHA)


def _by_name(value: Any) -> Any:
    """A section that has a name by that alone."""
    return value["name"] if isinstance(value, Mapping) and value.get("name") else value
