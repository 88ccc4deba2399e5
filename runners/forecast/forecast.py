"""The forecast of a run's time and cost, before anything is rented: a pure function of what the plan knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from provisioners.accelerators import Machine
from provisioners.contract import Offer
from provisioners.phase_times import PhaseTimes
from recipes.ranges import Range
from recipes.spec import Engine as EngineSpec
from recipes.spec import Recipe, digest_of
from runners.case import Memory
from runners.forecast import phases
from runners.forecast.history import (
    PastRun,
    Settings,
    answer_tokens,
    calibrated,
    median,
    seconds_of,
)
from runners.forecast.speed import Answers, Parallel, Speed, drive_s, speed_of
from runners.forecast.values import Forecast, PhaseForecast
from runners.forecast.work import Work, totals
from runners.pace import GIB, EnginePace
from runners.schedule.concurrency import UNKNOWN_SLOTS

if TYPE_CHECKING:
    from runners.modelfacts.facts import ModelFacts

# How far the drive may be off, as factors: by the roofline of a GPU, of a CPU, of nothing; after one run, after more.
_ROOFLINE, _CPU_ROOFLINE, _GUESS = (0.6, 1.8), (0.2, 5.0), (0.1, 10.0)
_ONE_RUN, _ONE_CPU_RUN, _SEVERAL_RUNS = (0.7, 1.4), (0.6, 1.8), (0.8, 1.25)
_SPREAD = 0.4
"""Of answers' lengths, as their standard deviation over their mean, where no run has shown it."""
_DRIVE_ENDS_S = Range(0.01, 0.05, 0.2)
"""The first connection and the last file."""
_TOLD = 5
"""So many of the newest runs that are alike are heard."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """Everything that a forecast depends on."""

    recipe: Recipe
    engine: str
    version: str | None
    offer: Offer
    machine: Machine
    work: Work
    pace: EnginePace = field(default_factory=EnginePace)
    """What the engine says of its speed here."""
    phase_times: PhaseTimes = field(default_factory=PhaseTimes)
    """What the provisioner says of its part."""
    model: ModelFacts | None = None
    memory: Memory | None = None
    commit: str | None = None
    """Of the model."""
    download_bytes: int = 0
    """What is not on the machine yet."""
    install_bytes: int = 0
    """What installing the engine downloads, where it must be installed."""
    installed: bool | None = None
    """Whether the engine is there already; None if nobody knows."""
    billable: bool = False
    history: Sequence[PastRun] = field(default_factory=tuple)
    """Runs that were completed, the newest first; those that are not alike are passed over."""

    @property
    def whole_work(self) -> Work:
        """The work under this recipe's own max_tokens: it may have been counted under another."""
        return replace(self.work, max_tokens=self.recipe.workload.max_tokens)

    @property
    def settings(self) -> Settings:
        spec, offer = self.recipe.engine, self.offer
        return Settings(
            model=self.recipe.model.identifier,
            commit=self.commit,
            engine=self.engine,
            version=self.version,
            parallel=parallel_sizes(spec),
            accelerator=offer.accelerator,
            count=offer.count,
            provider=offer.provider,
            machine=offer.id,
            cpus=offer.cpus,
            args=spec.args,
        )


def parallel_sizes(spec: EngineSpec) -> tuple[int, int, int]:
    return spec.tensor_parallel_size, spec.pipeline_parallel_size, spec.data_parallel_size


def forecast(situation: Situation) -> Forecast:
    """How long each phase will take from the lease on, and what it will cost. Pure; the plan itself is not counted."""
    drive = _drive(situation)
    timed = [
        ("provision", *_phase(situation, "provision", situation.phase_times.provision_s)),
        ("prepare", *_prepare(situation)),
        ("launch", *_launch(situation)),
        ("drive", drive.seconds, drive.basis),
        ("collect", *_phase(situation, "collect", situation.phase_times.collect_s)),
        ("release", *_phase(situation, "release", situation.phase_times.release_s)),
    ]
    price = situation.offer.usd_per_h
    work = totals(situation.whole_work, drive.answers)
    return Forecast(
        phases=tuple(
            PhaseForecast(
                name=name, seconds=seconds, usd=None if price is None else seconds.times(price / 3600), basis=basis
            )
            for name, seconds, basis in timed
        ),
        prompt_tokens=work.prompt_tokens,
        output_tokens=work.output_tokens,
        requests=work.requests,
    )


def _phase(situation: Situation, name: str, otherwise: Range) -> tuple[Range, str]:
    """A phase that depends on the provider alone."""
    here = situation.settings
    alike = [run for run in situation.history if run.settings.provider == here.provider and name in run.phases]
    seconds = [run.phases[name] for run in alike][:_TOLD]
    return (seconds_of(seconds), _told(len(seconds), f"at {here.provider}")) if seconds else (otherwise, "assumed")


def _prepare(situation: Situation) -> tuple[Range, str]:
    here, known, to_download = situation.settings, _known_to_be_installed(situation), _to_download(situation)
    installs = not known
    alike = [
        run
        for run in situation.history
        if run.settings.provider == here.provider
        and run.settings.same_engine(here)
        and run.installed is installs
        and _about_equal(run.downloaded_bytes or 0, to_download)
    ]
    if seconds := [run.phases["prepare"] for run in alike if "prepare" in run.phases][:_TOLD]:
        return seconds_of(seconds), _told(len(seconds), "that had as much to install and download")
    install_bytes = 0 if known else situation.install_bytes
    found = phases.prepare_s(situation.phase_times, install_bytes=install_bytes, download_bytes=to_download)
    if known is None:
        without = phases.prepare_s(situation.phase_times, install_bytes=0, download_bytes=to_download)
        found = Range(without.low, found.likely, found.high)
    if not (install_bytes or to_download):
        return found, "assumed"
    return found, f"{to_download / 1e9:,.1f} GB to download, {install_bytes / 1e9:,.1f} GB to install, at the same time"


def _known_to_be_installed(situation: Situation) -> bool | None:
    """Whether the engine is there; a machine of one's own keeps what an earlier run has installed."""
    if situation.installed is not None:
        return situation.installed
    here = situation.settings
    return True if any((one.engine, one.version) == (here.engine, here.version) for one in _here(situation)) else None


def _to_download(situation: Situation) -> int:
    """Bytes of the model; a machine of one's own keeps what an earlier run has brought."""
    here = situation.settings
    kept = any((one.model, one.commit) == (here.model, here.commit) for one in _here(situation))
    return 0 if kept else situation.download_bytes


def _here(situation: Situation) -> list[Settings]:
    """Earlier runs on this very machine, if it is one that is not thrown away."""
    here = situation.settings
    runs = [] if situation.billable else situation.history
    return [
        run.settings for run in runs if (run.settings.provider, run.settings.machine) == (here.provider, here.machine)
    ]


def _about_equal(one: int, other: int) -> bool:
    return abs(one - other) <= 0.1 * max(one, other)


def _launch(situation: Situation) -> tuple[Range, str]:
    here, pace = situation.settings, situation.pace
    alike = [run for run in situation.history if run.settings.same_engine(here) and run.settings.same_speed(here)]
    same = [run for run in alike if run.settings.same_flags(here, pace.start_flags)] or alike
    if seconds := [run.phases["launch"] for run in same if "launch" in run.phases][:_TOLD]:
        return seconds_of(seconds), _told(len(seconds), "on this hardware")
    weights = float(situation.model.weight_bytes) if situation.model else 0.0
    gpus = math.prod(here.parallel) if situation.machine.accelerator else 0
    return phases.launch_s(pace.start_s, gpus=gpus, weight_bytes=weights), "assumed"


def _told(runs: int, where: str) -> str:
    return f"1 run {where}" if runs == 1 else f"{runs} runs {where}"


@dataclass(frozen=True)
class _Drive:
    seconds: Range
    answers: Range
    basis: str


def _drive(situation: Situation) -> _Drive:
    """The work, at the speed of the roofline or of what was measured."""
    answers, spread, about_answers = _answers(situation)
    speeds, (faster, slower), basis = _speeds(situation)
    limit, round_trip_s = situation.recipe.workload.max_tokens, situation.phase_times.round_trip_s

    def seconds(tokens: float) -> float:
        levels = situation.whole_work.levels(tokens)
        slots = _slots(situation, tokens)
        how_long = Answers(limit, spread)
        return median([drive_s(levels, speed, slots, how_long, round_trip_s=round_trip_s) for speed in speeds])

    low, likely, high = (seconds(tokens) for tokens in (answers.low, answers.likely, answers.high))
    found = Range(
        likely * _apart(min(1.0, low / likely), faster), likely, likely * _apart(max(1.0, high / likely), slower)
    )
    return _Drive(found + _DRIVE_ENDS_S, answers, f"{basis}{_rates(situation, speeds[0], answers)}; {about_answers}")


def _rates(situation: Situation, speed: Speed, answers: Range) -> str:
    """The speed in tokens, with as many requests at once as there will be; nothing where it is a guess."""
    if situation.model is None or not situation.model.weight_bytes:
        return ""
    at_once, first = _slots(situation, answers.likely), situation.whole_work.levels(answers.likely)[0]
    prompt = first.prompt_tokens / first.requests
    step_s = speed.decode_step_s(at_once, prompt + answers.likely / 2)
    return (
        f" ({prompt / speed.prefill_s(prompt):,.0f} prompt tokens/s alone, {at_once / step_s:,.0f} output tokens/s "
        f"with {at_once:,.0f} at once)"
    )


def _apart(one: float, other: float) -> float:
    """How far two independent errors lead, both given as factors to the same side of one: as logarithms they add up
    like the sides of a right triangle."""
    length = math.hypot(math.log(one), math.log(other))
    return math.exp(length if other > 1 else -length)


def _answers(situation: Situation) -> tuple[Range, float, str]:
    """Tokens of an answer, how they are spread, and who says so."""
    limit = situation.recipe.workload.max_tokens
    if situation.work.points:
        asked = situation.work.answers()
        return asked, 0.0, f"answers of about {asked.likely:,.0f} tokens, as the load asks for"
    here = situation.settings
    prompt = digest_of(situation.recipe.workload.prompt)
    measured = [run.drive for run in situation.history if run.drive and run.settings.model == here.model]
    drives = ([drive for drive in measured if drive.prompt == prompt] or measured)[:_TOLD]
    if not drives:
        likely = situation.whole_work.answers()
        return likely, _SPREAD, f"answers of about {likely.likely:,.0f} tokens assumed"
    means = [answer_tokens(drive, limit) for drive in drives]
    mean = median(means)
    low, high = (0.75, 1.35) if len(means) < 3 else (0.85, 1.2)
    found = Range(max(1.0, min(means) * low), mean, min(float(limit), max(means) * high))
    spread = median([drive.spread for drive in drives])
    return Range(found.low, mean, max(mean, found.high)), spread, f"answers of about {mean:,.0f} tokens, as before"


def _speeds(situation: Situation) -> tuple[list[Speed], tuple[float, float], str]:
    """The roofline, once for each run that bends it; how far it may be off; and who says so."""
    here, pace = situation.settings, situation.pace
    tensor, pipeline, data = here.parallel
    parallel = Parallel(tensor=tensor, pipeline=pipeline, data=data)
    roofline = speed_of(situation.model, situation.machine, parallel, pace)
    alike = [run for run in situation.history if run.settings.same_engine(here)]
    measured = [(run, run.drive) for run in alike if run.drive and run.settings.same_speed(here, pace.speed_flags)]
    measured, pause_s = measured[:_TOLD], situation.phase_times.round_trip_s
    bent = [
        calibrated(roofline, drive, run.settings.slots, run.run_id, round_trip_s=pause_s) for run, drive in measured
    ]
    if bent:
        basis = f"roofline, measured in {_told(len(bent), 'of this model on this hardware')}"
        margin = _ONE_RUN if situation.machine.accelerator else _ONE_CPU_RUN
        return bent, _SEVERAL_RUNS if len(bent) >= 3 else margin, basis
    if situation.model is None or not situation.model.weight_bytes:
        return [roofline], _GUESS, roofline.basis
    faster, slower = _ROOFLINE if situation.machine.accelerator else _CPU_ROOFLINE
    margin = (_apart(1 / pace.unsure, faster), _apart(pace.unsure, slower))
    return [roofline], margin, f"{roofline.basis}{_outside(pace)}"


def _outside(pace: EnginePace) -> str:
    return (
        f", with {pace.outside_bytes / GIB:.1f} GiB of weights from the RAM in each step" if pace.outside_bytes else ""
    )


def _slots(situation: Situation, answer: float) -> float:
    """Requests that run at once: what the client asks for, the engine allows, and the KV cache holds."""
    asked, memory = situation.recipe.workload.at_once, situation.memory
    wanted = math.inf if asked is None else float(asked)
    replicas = situation.recipe.engine.data_parallel_size
    if (own := situation.settings.slots) is not None:
        wanted = min(wanted, own * replicas)
    if memory is None:
        return wanted if math.isfinite(wanted) else UNKNOWN_SLOTS
    first = situation.whole_work.levels(answer)[0]
    mean = first.prompt_tokens / first.requests + answer / 2
    if memory.slots > 0:
        wanted = min(wanted, memory.slots * replicas)
    if memory.kv_tokens > 0:
        wanted = min(wanted, max(1.0, memory.kv_tokens * replicas / mean))
    return wanted if math.isfinite(wanted) else UNKNOWN_SLOTS
