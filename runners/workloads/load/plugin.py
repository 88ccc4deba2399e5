"""The load as a workload: its prompts and points before anything is rented, the sweep, and its figures."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from provisioners.files import write_whole
from recipes.errors import InvalidRecipe, Problem, WorkloadFailed
from recipes.spec import Recipe
from recipes.traffic import Traffic
from runners.forecast.work import Level, Work
from runners.records import RequestRecord
from runners.text.tokens import TokenCounter
from runners.workload import Estimate, Means, Workload
from runners.workloads.load.figures import Setting, figures, point_figures, summed_up
from runners.workloads.load.points import Point, points_of
from runners.workloads.load.prompts import Ask, Prompts, Sizes, prompts_from
from runners.workloads.load.sending import PointRun, Sender
from runners.workloads.load.synthetic import synthetic_prompts

OUTPUT = "load.json"
SCHEMA_VERSION = 1
_FILES_OF_OURS = 128
"""Open files that are no requests."""
_MOST_UNDER_WAY = 20_000
_UNKNOWN_REQUESTS = 1_000_000
"""So many prompts differ where nobody knows how many are sent."""
_ASSUMED_TOKEN_S, _ASSUMED_REQUEST_S = 0.02, 0.2
"""Of a closed loop that ends with the time, for the plan."""


@dataclass(frozen=True)
class Prepared:
    recipe: Recipe
    traffic: Traffic
    points: tuple[Point, ...]
    prompts: Prompts
    counter: TokenCounter
    sizes: Sizes

    @property
    def setting(self) -> Setting:
        return Setting(self.traffic, self.points, self.forced, most_under_way())

    @property
    def forced(self) -> bool:
        """Whether answers are to be of a certain length."""
        return self.sizes.output_tokens is not None


class Load(Workload):
    name = "load"
    goes_on = False

    def prepare(self, recipe: Recipe, counter: TokenCounter) -> Prepared:
        settings, traffic = recipe.workload, recipe.workload.traffic
        assert traffic is not None
        points = points_of(traffic)
        if points[-1].concurrency is not None and points[-1].concurrency > most_under_way():
            raise InvalidRecipe([_too_many(points[-1].concurrency)])
        known = [point.arrivals for point in points]
        total = traffic.warmup + 1 + sum(n for n in known if n is not None)
        if traffic.prompts is not None:
            path = Path(traffic.prompts)
            prompts: Prompts = prompts_from(path, traffic.field, settings.api, settings.max_tokens, counter)
        else:
            different = total if None not in known else max(total, _UNKNOWN_REQUESTS)
            prompts = synthetic_prompts(traffic.synthetic, traffic.seed, different, counter)
        return Prepared(recipe, traffic, points, prompts, counter, prompts.sizes(total))

    def estimate(self, prepared: Prepared) -> Estimate:
        """Exact where prompts are synthetic; of a large file from its first and its longest prompts."""
        sizes, limit = prepared.sizes, prepared.recipe.workload.max_tokens
        work = Work(groups=(), max_tokens=max(limit, sizes.longest_answer))
        answer = work.answers().likely if sizes.output_tokens is None else sizes.output_tokens
        levels = tuple(_level(point, sizes.prompt_tokens, answer) for point in prepared.points)
        work = Work(groups=(), max_tokens=work.max_tokens, points=levels)
        return Estimate(
            documents=len(levels),
            requests=round(sum(level.requests for level in levels)),
            prompt_tokens=round(sum(level.prompt_tokens for level in levels)),
            longest_request_tokens=sizes.longest_tokens,
            tokens_around_chunk=sizes.longest_tokens,
            mean_request_tokens=round(sizes.prompt_tokens + answer),
            work=work,
            totals=work.bounds(),
            unit="point",
        )

    async def drive(self, prepared: Prepared, means: Means) -> None:
        setting = prepared.setting
        path = _moved_aside(means.outputs / OUTPUT)
        sender = Sender(means.client, means.recorder, prepared.counter, _asks(prepared.prompts))
        means.recorder.expect(sum(point.arrivals or 0 for point in prepared.points))
        with open_files():
            if failed := await sender.warm_up(prepared.traffic.warmup, forced=prepared.forced):
                raise WorkloadFailed(f"the warm-up failed: {failed}", advice="see engine.log; nothing was measured")
            points: list[dict[str, Any]] = []
            for point in prepared.points:
                await PointRun(point, sender, prepared.traffic, setting.most_under_way).run()
                before = points[-1] if points else None
                points.append(point_figures(setting, point, sender.records, before))
                _write(path, _document(prepared, means, summed_up(setting, points), forcing=sender.forcing))
                means.recorder.document_done(point.name, path)
                if not points[-1]["requests"]["ok"]:
                    failed = f"{point.name}: all of {len(sender.records):,} requests failed: {points[-1]['error']}"
                    raise WorkloadFailed(failed, advice="every request is in requests.jsonl; see engine.log")
                if prepared.traffic.stop_at_saturation and points[-1]["saturated"]:
                    break

    def figures(self, prepared: Prepared, records: Sequence[RequestRecord]) -> Mapping[str, Any] | None:
        return {**figures(prepared.setting, records), **_asked(prepared)} if records else None


def most_under_way() -> int:
    """Requests that may be under way at once, each with a connection of its own."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return _MOST_UNDER_WAY if hard == resource.RLIM_INFINITY else min(_MOST_UNDER_WAY, hard - _FILES_OF_OURS)


class open_files:  # noqa: N801 (used like a function)
    """While entered, this process may have as many files open as it is ever allowed to."""

    def __enter__(self) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = most_under_way() + _FILES_OF_OURS
        if self._before[0] < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, self._before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, self._before)


def _too_many(concurrency: int) -> Problem:
    return Problem(
        file="workload.traffic.concurrency",
        code="value",
        message=f"{concurrency:,} connections at once are more than this client may open, {most_under_way():,}",
        suggestion="lower it, or raise the limit of open files (ulimit -Hn)",
    )


def _asks(prompts: Prompts) -> Iterator[Ask]:
    return map(prompts.ask, count())


def _level(point: Point, prompt_tokens: float, answer_tokens: float) -> Level:
    """A point as the forecast takes it."""
    requests = point.arrivals
    if requests is None:
        assert point.duration_s is not None
        each_s = _ASSUMED_REQUEST_S + answer_tokens * _ASSUMED_TOKEN_S
        requests = max(1, round((point.concurrency or 1) * point.duration_s / each_s))
    ending_s = point.duration_s if point.arrivals is None else None
    return Level(
        number=point.number + 1,
        documents=1,
        requests=requests,
        prompt_tokens=requests * prompt_tokens,
        output_tokens=requests * answer_tokens,
        at_once=point.concurrency,
        arriving_s=requests / point.rate_per_s if point.rate_per_s else 0.0,
        ending_s=ending_s,
    )


def _asked(prepared: Prepared) -> dict[str, Any]:
    """What was asked, for those who compare."""
    distinct = prepared.prompts.distinct
    return {
        "prompts": {"source": prepared.prompts.source, "distinct": distinct},
        "traffic": prepared.traffic.model_dump(mode="json"),
    }


def _document(prepared: Prepared, means: Means, found: Mapping[str, Any], *, forcing: bool) -> dict[str, Any]:
    settings = prepared.recipe.workload
    return {
        "schema_version": SCHEMA_VERSION,
        "recipe": prepared.recipe.name,
        "model": prepared.recipe.model.identifier,
        "engine": prepared.recipe.engine.name,
        "api_url": means.endpoint.api_url,
        "api": settings.api,
        "sampling": {"max_tokens": settings.max_tokens, "temperature": settings.temperature, "seed": settings.seed},
        "tokenizer": prepared.counter.name,
        "length_forced": prepared.forced and forcing,
        **_asked(prepared),
        **found,
    }


def _moved_aside(path: Path) -> Path:
    """The path, free: what an earlier client of this run measured keeps its figures under another name."""
    if path.exists():
        number = next(n for n in count(1) if not path.with_stem(f"{path.stem}-{n}").exists())
        path.rename(path.with_stem(f"{path.stem}-{number}"))
    return path


def _write(path: Path, document: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(document, ensure_ascii=False, indent=2) + "\n")


PLUGIN = Load()
