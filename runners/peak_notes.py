"""Whether the peaks of throughput that requests, metrics and log saw agree, and else why not. Pure functions.

Peaks agree if they are equal but for a tenth, and lie no more than a sampling interval apart. Where they are not equal,
the requests are counted over the stretches of time that the other source has, moved by a sampling interval at most; and
in the other ways in which an engine may count. What gives the other's figure is the reason.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import nlargest
from itertools import pairwise
from typing import Any

from runners.engine import EngineSample, LogSample
from runners.measurement import Kind, Timed, log_interval_s, request_rates
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

    @property
    def middle(self) -> float:
        return self.begin + self.seconds / 2


def peaks_note(
    records: Sequence[Record],
    metrics: Sequence[Timed[EngineSample]],
    log: Sequence[Timed[LogSample]],
    peak_at: Sequence[Mapping[str, Any]],
    *,
    warmup: int = 0,
) -> list[str]:
    """A sentence for each peak that differs from the requests' by more than a sampling interval explains.

    `peak_at` is that of the result, `warmup` how many requests the engine had that are not among these. Empty if all
    agree.
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
        begin = _seconds(found["requests"]["at"]) - rates.width_s / 2
        own = _Peak(begin, rates.width_s, found["requests"]["tokens_per_s"])
        if counted := _counted(metrics, kind):
            at = _seconds(found["metrics"]["at"]) if "metrics" in found else 0.0
            notes += _of_metrics(kind, own, at, counted, answered, warmup)
        if "log" in found:
            notes += _of_log(kind, own, _seconds(found["log"]["at"]), log, answered)
    if single := [peak for peak in peak_at if peak["source"] == "log of one request"]:
        told = ", ".join(f"{peak['kind']} up to {peak['tokens_per_s']:,.0f} tok/s" for peak in single)
        notes.append(
            f"the engine's log tells the speed of one request at a time ({told}), which is no peak of them all"
        )
    return notes


def counters_note(row: Mapping[str, Any], warmup: int) -> str:
    """Why the engine counted more tokens than the answers have, if that is known: the reason in a sentence, or none."""
    counted = row["engine_counters"] or {}
    more = [(counted.get(name) or 0) - row[name] for name in ("prompt_tokens", "output_tokens")]
    if not warmup or max(more) <= 0:
        return ""
    whose = "the request" if warmup == 1 else f"the {warmup} requests"
    return f"The engine also counted {whose} of the warm-up, which are no part of the figures."


def _of_metrics(
    kind: Kind, own: _Peak, at: float, counted: Sequence[_Look], records: Sequence[Record], warmup: int
) -> Iterator[str]:
    pairs = [(a, b) for a, b in pairwise(counted) if b[0] - a[0] >= INTERVAL_S / 2]
    if not pairs:
        seconds = counted[-1][0] - counted[0][0]
        yield f"{kind}: the engine's page was read twice within {seconds:.2f} s, too short for a peak of its own"
        return
    (begin, first), (end, last) = min(pairs, key=lambda pair: abs((pair[0][0] + pair[1][0]) / 2 - at))
    theirs = _Peak(begin, end - begin, (last - first) / (end - begin))
    if abs(theirs.rate - own.rate) <= max(NEAR * max(theirs.rate, own.rate), _FEW_TOKENS / theirs.seconds):
        rates = [_Peak(a, b - a, (after - before) / (b - a)) for (a, before), (b, after) in pairs]
        yield from _moments(kind, own, theirs, "page", rates, records)
        return
    said = f"{kind}: the engine's page reaches {theirs.rate:,.0f} tok/s, the requests {own.rate:,.0f}"
    yield f"{said}: {_why(kind, own, theirs, counted, pairs, records, warmup)}"


def _moments(
    kind: Kind, own: _Peak, theirs: _Peak, whose: str, rates: Sequence[_Peak], records: Sequence[Record]
) -> Iterator[str]:
    """Why two peaks that are equal lie at different moments, if they do. `rates`: all that the other source saw."""
    far_s = _FAR_S * max(1.0, theirs.seconds / INTERVAL_S)
    if abs(theirs.middle - own.middle) <= far_s:
        return
    there = max((peak.rate for peak in rates if abs(peak.middle - own.middle) <= far_s), default=0.0)
    here = _highest(_spread(records, kind), theirs)
    mine, other = _clock(own.middle), _clock(theirs.middle)
    said = f"{kind}: the requests' peak is at {mine}, that of the engine's {whose} at {other}"
    if there >= theirs.rate * (1 - NEAR):
        yield f"{said}: it was as high more than once, and the {whose} has {there:,.0f} tok/s at the former as well"
        return
    if here >= own.rate * (1 - NEAR):
        yield f"{said}: it was as high more than once, and the requests have {here:,.0f} tok/s at the latter as well"
        return
    yield (
        f"{said}, where the requests come to {here:,.0f} tok/s, and at the former the {whose} to {there:,.0f}: the "
        "tokens of an answer are taken to come evenly, and here they did not"
    )


def _why(
    kind: Kind,
    own: _Peak,
    theirs: _Peak,
    counted: Sequence[_Look],
    pairs: Sequence[_Pair],
    records: Sequence[Record],
    warmup: int,
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
        if grown > asked and warmup:
            whose = f"those of the warm-up ({warmup}) are among them, or somebody else asks it too"
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
    kind: Kind, own: _Peak, at: float, log: Sequence[Timed[LogSample]], records: Sequence[Record]
) -> Iterator[str]:
    """The log gives means over an interval of its own, which is as long as its lines are apart."""
    name = f"{kind}_tokens_per_s"
    lines = [(line.at.timestamp(), getattr(line.sample, name)) for line in log if line.sample.of == "engine"]
    apart_s = log_interval_s(log)
    means = [_Peak(told_at - apart_s, apart_s, rate) for told_at, rate in lines if rate is not None]
    theirs = min(means, key=lambda mean: (round(abs(mean.middle - at), 2), -mean.rate))
    if abs(theirs.rate - own.rate) <= NEAR * max(theirs.rate, own.rate):
        yield from _moments(kind, own, theirs, "log", means, records)
        return
    said = f"{kind}: the engine's log reaches {theirs.rate:,.0f} tok/s, the requests {own.rate:,.0f}"
    span_s = max(r.ended_at for r in records).timestamp() - min(r.started_at for r in records).timestamp()
    if not apart_s or apart_s >= span_s:
        wrote = "one line" if len(lines) == 1 else f"{len(lines)} lines"
        yield f"{said}: in the {span_s:.1f} s of the load it wrote {wrote}, each a mean over a stretch of its own"
        return
    said = f"{said}: it tells means over {apart_s:.0f} s"
    ways = ((_spread(records, kind), ""), *((count, f"{reason}; ") for count, reason in _other_ways(kind, records)))
    pairs: list[_Pair] = [((mean.begin, 0.0), (mean.begin + apart_s, 0.0)) for mean in means]
    for count, reason in ways:
        found = _resampled(count, pairs)
        if min(found) * (1 - NEAR) <= theirs.rate <= max(found) * (1 + NEAR):
            near = min(found, key=lambda rate: abs(rate - theirs.rate))
            same = f"over the same stretches, give or take {INTERVAL_S:.0f} s, the requests reach {near:,.0f} tok/s"
            yield f"{said}; {reason}{same}"
            return
    most = max(_resampled(ways[0][0], pairs))
    other = "somebody else asks as well" if theirs.rate > most else "it leaves some out"
    why = f"it counts tokens at another moment than they arrive here, or {other}"
    yield f"{said}, in which the requests reach {most:,.0f} tok/s: {why}"


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


def _clock(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%H:%M:%S}"
