"""Whether the peaks of throughput that requests, metrics and log saw agree, and else why not. Pure functions.

Peaks agree if they are equal but for a tenth. Where they are not, the requests are counted over the stretches of time
that the other source has, moved by a sampling interval at most; and in the other ways in which an engine may count.
What gives the other's figure is the reason.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from heapq import nlargest
from itertools import pairwise
from statistics import median
from typing import Any

from recipes.values import dataclass
from runners.engine import EngineSample, LogSample
from runners.measurement import Kind, Timed, request_rates
from runners.records import RequestRecord as Record

INTERVAL_S = 1.0
"""The engine's page is read so often."""
NEAR = 0.1
"""Rates that differ by less than this share agree."""
_FEW_TOKENS = 2.0
_SHIFTS = tuple(INTERVAL_S * step / 10 for step in range(-10, 11))
_FAR_S = 1.6 * INTERVAL_S

_CANDIDATES = 100
_Look = tuple[float, float]
"""When, in seconds since the epoch, and how much had been counted."""
_Pair = tuple[_Look, _Look]
Count = Callable[[float, float], float]
"""Tokens between two moments, in seconds since the epoch."""


@dataclass(frozen=True)
class _Peak:
    begin: float
    seconds: float
    rate: float


def peaks_note(
    records: Sequence[Record],
    metrics: Sequence[Timed[EngineSample]],
    log: Sequence[Timed[LogSample]],
    peak_at: Sequence[Mapping[str, Any]],
) -> list[str]:
    """A sentence for each peak that differs from the requests' by more than a sampling interval explains.

    `peak_at` is that of the result. Empty if all agree.
    """
    answered = [r for r in records if r.prompt_tokens or r.status == "ok"]
    rates = request_rates(answered)
    if rates is None:
        return []
    notes: list[str] = []
    kinds: tuple[Kind, Kind] = ("prompt", "output")
    for kind in kinds:
        found = {peak["source"]: peak for peak in peak_at if peak["kind"] == kind}
        if "requests" not in found:
            continue
        own = _Peak(_seconds(found["requests"]["at"]), rates.width_s, found["requests"]["tokens_per_s"])
        if counted := _counted(metrics, kind):
            notes += _of_metrics(kind, own, counted, answered)
        if "log" in found:
            notes += _of_log(kind, own, found["log"]["tokens_per_s"], log, rates.per_s[kind], rates.width_s)
    if single := [peak for peak in peak_at if peak["source"] == "log of one request"]:
        told = ", ".join(f"{peak['kind']} up to {peak['tokens_per_s']:,.0f} tok/s" for peak in single)
        notes.append(
            f"the engine's log tells the speed of one request at a time ({told}), which is no peak of them all"
        )
    return notes


def _of_metrics(kind: Kind, own: _Peak, counted: Sequence[_Look], records: Sequence[Record]) -> Iterator[str]:
    pairs = [(a, b) for a, b in pairwise(counted) if b[0] - a[0] >= INTERVAL_S / 2]
    if not pairs:
        seconds = counted[-1][0] - counted[0][0]
        yield f"{kind}: the engine's page was read twice within {seconds:.2f} s, too short for a peak of its own"
        return
    highest = max(pairs, key=lambda pair: (pair[1][1] - pair[0][1]) / (pair[1][0] - pair[0][0]))
    (begin, first), (end, last) = highest
    theirs = _Peak(begin, end - begin, (last - first) / (end - begin))
    if abs(theirs.rate - own.rate) <= max(NEAR * max(theirs.rate, own.rate), _FEW_TOKENS / theirs.seconds):
        return
    said = f"{kind}: the engine's page reaches {theirs.rate:,.0f} tok/s, the requests {own.rate:,.0f}"
    yield f"{said}: {_why(kind, own, theirs, counted, pairs, records)}"


def _why(
    kind: Kind, own: _Peak, theirs: _Peak, counted: Sequence[_Look], pairs: Sequence[_Pair], records: Sequence[Record]
) -> str:
    page, as_sent = _between(counted), _spread(records, kind)
    around = [b - a for (a, _), (b, _) in pairwise(counted) if b > own.begin and a < own.begin + own.seconds]
    if around and max(around) > _FAR_S:
        return f"at the requests' peak the page was not read for {max(around):.1f} s"
    resampled = _resampled(as_sent, pairs)
    if min(resampled) * (1 - NEAR) <= theirs.rate <= max(resampled) * (1 + NEAR):
        near = min(resampled, key=lambda rate: abs(rate - theirs.rate))
        then = f"between the same looks, give or take {INTERVAL_S:.0f} s, the requests reach {near:,.0f} tok/s"
        return f"the peak lasted no longer than from one look at the page to the next; {then}"
    for count, reason in _other_ways(kind, records):
        if _same(count, page, own) and _same(count, page, theirs):
            return f"{reason}; counted so, the requests reach {_highest(count, theirs):,.0f} tok/s there"
    grown, asked = counted[-1][1] - counted[0][1], sum(_tokens(record, kind) for record in records)
    if abs(grown - asked) > NEAR / 2 * max(grown, asked):
        whose = "somebody else asks it too" if grown > asked else "it does not count all of them"
        return f"the engine counted {grown:,.0f} tokens in all and the requests {asked:,}: {whose}"
    span_s = counted[-1][0] - counted[0][0]
    if span_s < 4 * INTERVAL_S:
        return f"the page was read {len(counted)} times in {span_s:.1f} s, which is too seldom for so short a run"
    near = _highest(as_sent, theirs)
    there = f"where the page has its peak, the requests come to {near:,.0f} tok/s"
    return f"{there}; the tokens of an answer are taken to come evenly, and here they did not"


def _resampled(count: Count, pairs: Sequence[_Pair]) -> list[float]:
    """The highest rate between two looks at the page, for looks that are moved by up to an interval."""

    def rate(pair: _Pair, shift: float) -> float:
        (begin, _), (end, _) = pair
        return count(begin + shift, end + shift) / (end - begin)

    highest = nlargest(_CANDIDATES, pairs, key=lambda pair: rate(pair, 0.0))
    return [max(rate(pair, shift) for pair in highest) for shift in _SHIFTS]


def _other_ways(kind: Kind, records: Sequence[Record]) -> Iterator[tuple[Count, str]]:
    """Other ways to count the requests' tokens, and what it means if an engine's figure is the one so counted."""
    if kind == "output":
        ends = sorted((r.ended_at.timestamp(), r.output_tokens) for r in records)
        yield _steps(ends), "the engine counts an answer's tokens when it has ended"
        return
    begins = sorted((r.first_token_at.timestamp(), r.prompt_tokens) for r in records)
    yield _steps(begins), "the engine counts a prompt when it has read it, and the requests from when they were sent"
    if cached := sum(r.cached_tokens for r in records):
        reason = f"the engine leaves out the {cached:,} prompt tokens that came from its cache"
        yield _spread(records, kind, cached=False), reason
        rest = sorted((r.first_token_at.timestamp(), r.prompt_tokens - r.cached_tokens) for r in records)
        yield _steps(rest), f"{reason}, and counts a prompt when it has read it"


def _of_log(
    kind: Kind,
    own: _Peak,
    rate: float,
    log: Sequence[Timed[LogSample]],
    per_s: Sequence[float],
    width_s: float,
) -> Iterator[str]:
    """The log gives means over an interval of its own, which is as long as its lines are apart."""
    if abs(rate - own.rate) <= NEAR * max(rate, own.rate):
        return
    said = f"{kind}: the engine's log reaches {rate:,.0f} tok/s, the requests {own.rate:,.0f}"
    times = [line.at.timestamp() for line in log if line.sample.of == "engine"]
    apart_s = median([b - a for a, b in pairwise(times)]) if len(times) > 1 else 0.0
    span_s = len(per_s) * width_s
    if apart_s <= INTERVAL_S or apart_s >= span_s:
        lines = "one line" if len(times) == 1 else f"{len(times)} lines"
        yield f"{said}: in the {span_s:.1f} s of the load it wrote {lines}, each a mean over a stretch of its own"
        return
    length = max(1, round(apart_s / width_s))
    sums = [0.0]
    for value in per_s:
        sums.append(sums[-1] + value)
    best = max(b - a for a, b in zip(sums, sums[length:], strict=False)) / length
    over = f"over {apart_s:.0f} s the requests reach {best:,.0f} tok/s"
    if rate <= best * (1 + NEAR):
        yield f"{said}: it tells means over {apart_s:.0f} s; {over}"
    else:
        why = "it counts tokens at another moment than they arrive here, or somebody else asks as well"
        yield f"{said}: it tells means over {apart_s:.0f} s, and {over}: {why}"


def _counted(metrics: Sequence[Timed[EngineSample]], kind: Kind) -> list[_Look]:
    name = f"{kind}_tokens_total"
    found = [(m.at.timestamp(), getattr(m.sample, name)) for m in metrics]
    known = [(at, value) for at, value in found if value is not None]
    return known if len(known) > 1 else []


def _same(count: Count, other: Count, peak: _Peak) -> bool:
    one, two = _highest(count, peak), _highest(other, peak)
    return abs(one - two) <= max(NEAR * max(one, two), _FEW_TOKENS / peak.seconds)


def _highest(count: Count, peak: _Peak) -> float:
    begins = [peak.begin + shift for shift in _SHIFTS]
    return max(count(begin, begin + peak.seconds) for begin in begins) / peak.seconds


def _between(counted: Sequence[_Look]) -> Count:
    """A counter, taken to grow evenly between two looks."""
    times = [at for at, _ in counted]

    def total(at: float) -> float:
        i = bisect_right(times, at)
        if i == 0:
            return counted[0][1]
        if i == len(times):
            return counted[-1][1]
        (a, before), (b, after) = counted[i - 1], counted[i]
        return before + (after - before) * (at - a) / (b - a)

    return lambda begin, end: total(end) - total(begin)


def _steps(moments: Sequence[tuple[float, int]]) -> Count:
    """Tokens that all come at one moment, request by request."""
    times = [at for at, _ in moments]
    sums = [0]
    for _, tokens in moments:
        sums.append(sums[-1] + tokens)
    return lambda begin, end: sums[bisect_right(times, end)] - sums[bisect_right(times, begin)]


def _spread(records: Sequence[Record], kind: Kind, *, cached: bool = True) -> Count:
    """Tokens that come evenly: a prompt's until the first token, an answer's after it."""
    changes: list[tuple[float, float]] = []
    for record in records:
        first = record.first_token_at.timestamp()
        begin, end = (
            (record.started_at.timestamp(), first) if kind == "prompt" else (first, record.ended_at.timestamp())
        )
        tokens = _tokens(record, kind) - (0 if cached else record.cached_tokens)
        per_s = tokens / max(end - begin, 1e-3)
        changes += [(begin, per_s), (max(end, begin + 1e-3), -per_s)]
    changes.sort()
    points, total, rate = [(changes[0][0], 0.0)] if changes else [(0.0, 0.0)], 0.0, 0.0
    for at, change in changes:
        total += rate * (at - points[-1][0])
        rate += change
        points.append((at, total))
    return _between(_ascending(points))


def _ascending(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of several at one moment the last."""
    return list({at: (at, value) for at, value in points}.values())


def _tokens(record: Record, kind: Kind) -> int:
    return record.prompt_tokens if kind == "prompt" else record.output_tokens


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
