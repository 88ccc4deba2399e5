"""What earlier runs say: their phases' seconds, their answers' lengths, and how far they were from the roofline."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recipes.ranges import Range
from runners.forecast.speed import Answers, Speed, drive_s
from runners.forecast.work import Level

_SLOTS = ("parallel", "n_parallel", "np", "max_num_seqs")
_ONE_RUN, _SEVERAL = (0.6, 1.7), (0.8, 1.3)
_FEW_REQUESTS = 40
_BATCH_TOKENS = 2048
"""So many prompt tokens engines take into one step."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What must be alike for a run to tell of another."""

    model: str
    commit: str | None
    engine: str
    version: str | None
    parallel: tuple[int, int, int]
    """Tensor, pipeline, data."""
    accelerator: str | None
    count: int
    provider: str
    machine: str
    """The provider's own name of the hardware: for this machine, its name."""
    cpus: int | None = None
    args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def slots(self) -> int | None:
        """The engine's own bound on running requests, as far as its flags say."""
        found = [v for k, v in self.args.items() if k.replace("-", "_") in _SLOTS and type(v) is int and v > 0]
        return found[0] if found else None

    def same_engine(self, other: Settings) -> bool:
        """Whether the same engine would run the same model."""
        return (
            self.model == other.model
            and (self.commit is None or other.commit is None or self.commit == other.commit)
            and (self.engine, self.version) == (other.engine, other.version)
        )

    def same_speed(self, other: Settings, flags: Collection[str] = ()) -> bool:
        """Whether it would do so on the same hardware, cut up in the same way, and with these flags alike."""
        here = (self.accelerator, self.count) if self.accelerator else (self.provider, self.machine)
        there = (other.accelerator, other.count) if other.accelerator else (other.provider, other.machine)
        return here == there and self.parallel == other.parallel and self.same_flags(other, flags)

    def same_flags(self, other: Settings, flags: Collection[str]) -> bool:
        """Whether both say the same of these, or nothing."""
        return _named(self.args, flags) == _named(other.args, flags)


def _named(args: Mapping[str, Any], flags: Collection[str]) -> dict[str, Any]:
    found = {key.replace("-", "_"): value for key, value in args.items()}
    return {key: value for key, value in found.items() if key in flags and value not in (None, False)}


@dataclass(frozen=True, kw_only=True)
class Drive:
    """What was measured of the work."""

    concurrency: int
    at_once: int | None = None
    """How many requests the engine had room for, if its plan knew."""
    max_tokens: int
    seconds: float
    """From the first request to the last answer."""
    levels: tuple[Level, ...]
    """With the prompt tokens that were computed: what came from the prefix cache is left out."""
    ttft_s: float | None
    """Means over the requests that succeeded."""
    e2e_s: float
    spread: float
    """The standard deviation of answers' lengths over their mean."""
    prompt: str = ""
    """The digest of the prompt's template."""
    truncated: int = 0

    @property
    def requests(self) -> float:
        return sum(level.requests for level in self.levels)

    @property
    def answer_tokens(self) -> float:
        return sum(level.output_tokens for level in self.levels) / self.requests


@dataclass(frozen=True, kw_only=True)
class PastRun:
    """A run that was completed."""

    run_id: str
    settings: Settings
    phases: Mapping[str, float]
    """Seconds."""
    installed: bool | None = None
    """Whether the engine was installed in it; None if nobody noted it."""
    downloaded_bytes: int | None = None
    drive: Drive | None = None


def past_run(result: Mapping[str, Any]) -> PastRun | None:
    """A run from its result.json; None if it was not completed, or an older recipe left out what is needed.

    Nor does one tell anything that another client went on with: its phases are not whole.
    """
    if result.get("outcome", {}).get("status") != "completed" or (result.get("lease") or {}).get("adopted"):
        return None
    try:
        offer, engine, model = result["offer"], result["engine"], result["model"]
        settings = Settings(
            model=model["identifier"],
            commit=model.get("commit"),
            engine=engine["name"],
            version=engine["version"],
            parallel=tuple(engine["parallel"]),
            accelerator=offer["accelerator"],
            count=offer["count"],
            provider=offer["provider"],
            machine=offer["id"],
            cpus=offer["cpus"],
            args=engine["args"],
        )
        prepared = result.get("prepared") or {}
        return PastRun(
            run_id=result["run_id"],
            settings=settings,
            phases={phase["name"]: float(phase["seconds"]) for phase in result["phases"]},
            installed=prepared.get("installed"),
            downloaded_bytes=prepared.get("downloaded_bytes"),
            drive=_drive(result["work"]) if result.get("work") else None,
        )
    except (KeyError, TypeError, ValueError):
        return None


def _drive(work: Mapping[str, Any]) -> Drive | None:
    levels = tuple(
        Level(
            number=row["level"],
            documents=row["documents"],
            requests=row["requests"],
            prompt_tokens=max(0, row["prompt_tokens"] - row["cached_prompt_tokens"]),
            output_tokens=row["output_tokens"],
        )
        for row in work["levels"]
        if row["requests"]
    )
    if not levels or not work["seconds"] or work["e2e_s"] is None:
        return None
    return Drive(
        concurrency=work["concurrency"],
        at_once=work.get("at_once"),
        max_tokens=work["max_tokens"],
        seconds=work["seconds"],
        levels=levels,
        ttft_s=work["ttft_s"],
        e2e_s=work["e2e_s"],
        spread=work["output_spread"] or 0.0,
        prompt=work["prompt"],
        truncated=work["truncated"],
    )


def seconds_of(values: Sequence[float]) -> Range:
    """A phase's seconds from what it took before: the median, and a margin that narrows with the number of runs."""
    ordered = sorted(values)
    likely = median(ordered)
    below, above = _SEVERAL if len(ordered) >= 3 else _ONE_RUN
    return Range(ordered[0] * below, likely, max(ordered[-1], likely) * above)


def median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def answer_tokens(drive: Drive, max_tokens: int) -> float:
    """The mean length of answers under another max_tokens.

    Lengths are taken to be normal around a mean of their own, and cut at max_tokens: the mean that the run cut at its
    own is found first.
    """
    spread = max(drive.spread, 0.2)
    low, high = drive.answer_tokens, 4.0 * drive.max_tokens
    for _ in range(40):
        middle = (low + high) / 2
        if _cut_mean(middle, spread * middle, drive.max_tokens) < drive.answer_tokens:
            low = middle
        else:
            high = middle
    return max(1.0, _cut_mean(low, spread * low, max_tokens))


def _cut_mean(mean: float, deviation: float, limit: float) -> float:
    """E[min(X, limit)] of a normal X."""
    z = (limit - mean) / deviation
    below = (1 + math.erf(z / math.sqrt(2))) / 2
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return mean * below + limit * (1 - below) - deviation * density


def calibrated(speed: Speed, drive: Drive, slots: int | None, basis: str, *, round_trip_s: float) -> Speed:
    """The roofline, bent to what one run measured.

    Its prompts' and its answers' share of the time are told apart by the time to the first token; then both are scaled
    towards what the whole drive took. Of a run of few requests the beginning and the end make up much of that, so that
    the requests themselves count more.
    """
    running = min(drive.concurrency, slots or drive.concurrency, drive.at_once or drive.concurrency)
    prefill, decode = _factors(speed, drive, running)
    bent = speed.scaled(prefill, decode, basis)
    answers = Answers(drive.max_tokens, drive.spread)
    predicted = drive_s(drive.levels, bent, running, answers, round_trip_s=round_trip_s)
    whole = math.pow(drive.seconds / predicted, drive.requests / (drive.requests + _FEW_REQUESTS))
    return bent.scaled(whole, whole, basis)


def _factors(speed: Speed, drive: Drive, slots: int) -> tuple[float, float]:
    """How much longer a prompt, and how much longer a step took than the roofline says.

    In a busy engine a request lasts while as many prompts as run beside it are worked on, one after the other, and
    while its own answer grows: e2e = n·X + Y. Until its first token it waits for its own prompt and for those before
    it. At a level's beginning these are half of the others, or all that share its batch; later it is one that is just
    being worked on, with the chance that there is one, and the step that is on and the one that it takes part in.
    """
    n = drive.requests
    # What waits for a slot inside the engine is not being worked on.
    service_s = drive.e2e_s * min(1.0, slots / max(1.0, min(drive.concurrency, n)))
    ttft_s = None if drive.ttft_s is None else drive.ttft_s - (drive.e2e_s - service_s)
    if ttft_s is None or not 0 < ttft_s < service_s:
        return 1.0, 1.0
    begin = sum(min(level.requests, slots) for level in drive.levels) / n
    together = sum(level.requests * min(level.requests, slots) for level in drive.levels) / n
    prompt = max(1.0, sum(level.prompt_tokens for level in drive.levels) / n)
    batch = max(1.0, min(together, _BATCH_TOKENS / prompt))
    steps_s = (1 - begin) * 1.5 * (service_s - ttft_s) / max(1.0, drive.answer_tokens)
    alone_s = max(ttft_s - steps_s, 0.3 * ttft_s)
    x = alone_s
    for _ in range(30):
        waiting = begin * (together + batch - 2) / 2 + (1 - begin) * (together - 1) * min(1.0, x / service_s)
        x = alone_s / (1 + waiting)
    y = max(service_s - together * x, 0.1 * (service_s - ttft_s))
    model_x = sum(level.requests * speed.prefill_s(level.prompt_tokens / level.requests) for level in drive.levels) / n
    model_y = drive.answer_tokens * speed.decode_step_s(together, prompt + drive.answer_tokens / 2)
    return x / model_x, y / model_y
