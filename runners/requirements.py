"""Whether a run is what was asked of it: limits of its figures, and another run that it must not fall behind.

Pure functions over results. A run that was not completed, or whose machine is not proven gone, meets nothing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Literal

from recipes.errors import UsageError
from recipes.explain import did_you_mean
from recipes.units import parse_duration
from runners.comparing.metrics import Metric, Unit, metric
from runners.comparing.places import at
from runners.terminal.words import clock_time, dollars, is_figure, rate, seconds

Result = Mapping[str, Any]
Kind = Literal["rate", "usd", "share", "seconds", "time", "count"]
LATENCIES = tuple(
    f"{name}-{level}" for name in ("ttft", "tpot", "itl", "e2e") for level in ("p50", "p90", "p95", "p99")
)
HELD = (
    *("output_tokens_per_s", "prompt_tokens_per_s", "ttft_p50_s", "ttft_p99_s", "tpot_p50_s", "tpot_p99_s"),
    *("e2e_p50_s", "e2e_p99_s", "total_usd", "usd_per_document", "usd_per_million_tokens", "failed_requests"),
)
"""What is held against a baseline: keys of runners.comparing.metrics."""
TOLERANCE = 0.1
_NOTHING = 1e-12
_REQUIREMENT = re.compile(r"\s*([A-Za-z_][\w.\-]*)\s*(>=|<=|==|!=|>|<|=)\s*(.+?)\s*", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One condition, and how a run stands to it."""

    name: str
    met: bool
    said: str
    """The figure of the run, and what was asked, for people."""
    value: Any = None
    wanted: Any = None

    def row(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A figure, and the least or the most that it may be."""

    name: str
    kind: Kind
    bound: Literal["min", "max"]
    read: Callable[[Result], Any]
    what: str

    def held(self, result: Result, limit: float) -> Check:
        value = _number(self.read(result))
        least = self.bound == "min"
        if value is None:
            asked = _told(limit, self.kind)
            said = f"is not known, and must be {'at least' if least else 'at most'} {asked}"
            return Check(name=self.name, met=False, said=said, wanted=limit)
        met = value >= limit if least else value <= limit
        way = ("at least" if least else "at most") if met else ("below" if least else "above")
        told, asked = _apart(value, limit, self.kind)
        said = f"{told}, {way} {asked}"
        return Check(name=self.name, met=met, said=said, value=value, wanted=limit)


def _at(*path: str) -> Callable[[Result], Any]:
    return lambda result: at(result, *path)


def _took(result: Result) -> float | None:
    return metric("seconds").of(result)


def _latency(name: str) -> Limit:
    kind, level = name.split("-")
    read = _at("latency", f"{kind}_s", level)
    return Limit(name=f"max-{name}", kind="time", bound="max", read=read, what=f"{kind.upper()} {level}, such as 500ms")


LIMITS = {
    limit.name: limit
    for limit in (
        Limit(
            name="min-output-tokens-per-s",
            kind="rate",
            bound="min",
            read=_at("throughput", "output_tokens_per_s"),
            what="output tokens per second",
        ),
        Limit(
            name="min-prompt-tokens-per-s",
            kind="rate",
            bound="min",
            read=_at("throughput", "prompt_tokens_per_s"),
            what="prompt tokens per second",
        ),
        Limit(
            name="min-useful-fraction",
            kind="share",
            bound="min",
            read=_at("cost", "useful_fraction"),
            what="share of the billed time with requests under way: 0.7 or 70%%",
        ),
        Limit(name="max-cost", kind="usd", bound="max", read=_at("cost", "total_usd"), what="dollars in all"),
        *(
            Limit(
                name=f"max-{key.replace('_', '-')}",
                kind="usd",
                bound="max",
                read=_at("cost", key),
                what=f"dollars per {key.removeprefix('usd_per_').replace('_', ' ')}",
            )
            for key in (
                "usd_per_document",
                "usd_per_million_tokens",
                "usd_per_million_prompt_tokens",
                "usd_per_million_output_tokens",
            )
        ),
        Limit(
            name="max-failed", kind="count", bound="max", read=_at("requests", "failed"), what="requests that failed"
        ),
        Limit(name="max-duration", kind="seconds", bound="max", read=_took, what="the whole run, such as 20m"),
        *map(_latency, LATENCIES),
    )
}
"""By the name of their option."""


def limit_value(limit: Limit, text: str) -> float:
    """What stands behind the option. Raises ValueError."""
    plain = text.strip()
    if limit.kind in ("seconds", "time"):
        value = parse_duration(plain)
    elif limit.kind == "share":
        value = share(plain)
    else:
        value = float(plain.removeprefix("$").replace("_", ""))
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{text}: must be a number, and not below zero")
    return value


def share(text: str) -> float:
    """0.1 from `10%` or `0.1`. Raises ValueError."""
    value = float(text.rstrip("% ")) / (100 if "%" in text else 1)
    if not 0 <= value <= 1:
        raise ValueError(f"{text}: not a share; write 10%")
    return value


def always(result: Result, *, failures: bool) -> Iterator[Check]:
    """What is asked of every run; `failures`: that no request failed as well."""
    outcome, release = result.get("outcome") or {}, result.get("release") or {}
    status, phase = outcome.get("status", "unknown"), outcome.get("phase")
    ended = status if status == "completed" else f"{status} in {phase}: {outcome.get('error') or 'stopped'}"
    yield Check(name="completed", met=status == "completed", said=ended, value=status, wanted="completed")
    state = release.get("state", "unknown")
    said = "gone, proven" if state == "gone" else f"not proven gone: {release.get('reason') or state}"
    yield Check(name="machine", met=state == "gone", said=said, value=state, wanted="gone")
    if failures:
        yield LIMITS["max-failed"].held(result, 0)


def against(result: Result, baseline: Result, tolerance: float, keys: Sequence[str] = HELD) -> Iterator[Check]:
    """A run beside another: no figure may be worse by more than the tolerance. What the other lacks is passed over."""
    for key in keys:
        figure = metric(key)
        before, now = figure.of(baseline), figure.of(result)
        if before is not None:
            yield _beside(figure, before, now, tolerance)


def unlike(result: Result, baseline: Result) -> Iterator[str]:
    """What is not the same of a run and its baseline, so that their figures differ whatever the code does."""
    ours, theirs = (dict(_conditions(one)) for one in (result, baseline))
    for name, now in ours.items():
        if now != (before := theirs[name]) and None not in (now, before):
            yield f"{name} is {now}, was {before}"
    if ours["recipe"] == theirs["recipe"] and result.get("recipe_digest") != baseline.get("recipe_digest"):
        yield "the recipe has changed since"
    texts = [(at(one, "workload", "inputs_digest"), at(one, "workload", "prompt_digest")) for one in (result, baseline)]
    for what, now, before in zip(("inputs", "prompt"), *texts, strict=True):
        if now != before and None not in (now, before):
            yield f"other {what}"


def _conditions(result: Result) -> Iterator[tuple[str, str | None]]:
    """By what they are called."""
    yield "recipe", result.get("recipe")
    yield "model", at(result, "model", "identifier")
    yield "engine", at(result, "engine", "name") and f"{at(result, 'engine', 'name')} {at(result, 'engine', 'version')}"
    offer = result.get("offer") or {}
    count, gpu = offer.get("count"), offer.get("accelerator")
    where = f"{count}x {gpu}" if gpu else f"{offer.get('cpus')} CPUs"
    yield "machine", f"{where} of {offer.get('provider')}" if offer else None
    price = at(result, "cost", "price_usd_per_h")
    yield "price", None if price is None else f"${price:g}/h"


def required(result: Result, text: str) -> Check:
    """A condition such as `throughput.output_tokens_per_s>=100` on any field of result.json. Raises UsageError."""
    path, sign, wanted = parse_requirement(text)
    found = find_at(result, path, text)
    if isinstance(found, dict | list):
        raise UsageError(f"--require {text}: {path} is no single figure", advice=_fields(path, found))
    numbers = _number(found), _number(wanted)
    if sign in ("==", "!="):
        same = found == wanted
        met = same if sign == "==" else not same
    elif numbers[1] is None:
        raise UsageError(f"--require {text}: {sign} compares numbers", advice="write == for words")
    else:
        met = numbers[0] is not None and _ORDER[sign](numbers[0], numbers[1])
    said = f"{_plain(found)}, {'' if met else 'not '}{sign} {_plain(wanted)}"
    return Check(name=path, met=met, said=said, value=found, wanted=wanted)


def parse_requirement(text: str) -> tuple[str, str, Any]:
    """The path, the comparison and the value. Raises UsageError."""
    match = _REQUIREMENT.fullmatch(text)
    if match is None:
        advice = "write --require 'throughput.output_tokens_per_s>=100'"
        raise UsageError(f"--require {text}: not PATH>=VALUE", advice=advice)
    path, sign, value = match.groups()
    try:
        wanted = json.loads(value)
    except ValueError:
        wanted = value
    return path, "==" if sign == "=" else sign, wanted


def find_at(result: Result, path: str, text: str) -> Any:
    """The field of a dotted path. Raises UsageError where a result has no such field."""
    here: Any = result
    for i, name in enumerate(path.split(".")):
        if here is None:
            return None
        if not isinstance(here, dict) or name not in here:
            known = here if isinstance(here, dict) else {}
            above = ".".join(path.split(".")[:i]) or "a result"
            advice = did_you_mean(name, known) or "recipe report RUN --json shows every field"
            raise UsageError(f"--require {text}: {above} has no {name}", advice=advice)
        here = here[name]
    return here


_ORDER: Mapping[str, Callable[[float, float], bool]] = {
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
}


_KINDS: Mapping[Unit, Kind] = {"tok/s": "rate", "usd": "usd", "s": "time", "share": "share"}


def _beside(figure: Metric, before: float, now: float | None, tolerance: float) -> Check:
    kind = _KINDS.get(figure.unit, "count")
    was, name = _told(before, kind), f"baseline {figure.key}"
    if now is None:
        return Check(name=name, met=False, said=f"is not known, was {was}", wanted=before)
    change = (now - before) / before if abs(before) > _NOTHING else (math.inf if now > before else 0.0)
    worse = -change if figure.better == "higher" else change
    # A failed request more is worse, however many there were.
    met = worse <= (0.0 if figure.unit == "count" else tolerance) + _NOTHING
    way = f"{'worse' if worse > 0 else 'better'} by {abs(change):.1%}" if math.isfinite(change) else "worse"
    told, was = _apart(now, before, kind)
    said = f"{told}, was {was}: {way if abs(change) > _NOTHING else 'the same'}"
    return Check(name=name, met=met, said=said, value=now, wanted=before)


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and is_figure(value)
    return value if known else None


def _apart(value: float, other: float, kind: Kind) -> tuple[str, str]:
    """Both as people read them; with all of their digits where these would read the same, and are not."""
    told = _told(value, kind), _told(other, kind)
    if told[0] != told[1] or value == other:
        return told
    exact = [f"{Decimal(f'{one:.10g}'):,f}" for one in (value, other)]
    exact = exact if exact[0] != exact[1] else [f"{Decimal(repr(one)):,f}" for one in (value, other)]
    unit = {"rate": " tok/s", "usd": "", "share": "", "seconds": " s", "time": " s", "count": " requests"}[kind]
    before = "$" if kind == "usd" else ""
    return f"{before}{exact[0]}{unit}", f"{before}{exact[1]}{unit}"


def _told(value: float, kind: Kind) -> str:
    match kind:
        case "rate":
            return rate(value)
        case "usd":
            return dollars(value)
        case "share":
            return f"{value:.0%}"
        case "seconds":
            return clock_time(value)
        case "time":
            return seconds(value)
        case "count":
            return f"{value:,.10g} {'request' if value == 1 else 'requests'}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _fields(path: str, found: Any) -> str:
    return f"write one of {', '.join(f'{path}.{name}' for name in list(found)[:6])}" if isinstance(found, dict) else ""
