"""How long a run still takes, about: by what was forecast, and in the drive by how it really goes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

_TRUSTED_FROM = 0.1
"""The share of the answers from which on their own pace alone counts; before, the forecast counts the rest."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """A phase's forecast, in seconds."""

    name: str
    likely_s: float
    high_s: float


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the drive is."""

    answered: int
    """What this run's own requests have answered; what lay on disk took no time."""
    done: int
    expected: int


def left_s(
    phases: Sequence[Expected], ended: Collection[str], now: str | None, elapsed_s: float, progress: Progress | None
) -> float | None:
    """Seconds until the end of the run, whose phase `now` is on since `elapsed_s`; None if nobody can say."""
    likely = {phase.name: phase for phase in phases}
    if now in ("keep", None) or (now != "drive" and not phases):
        return None
    drive = _drive_left(likely.get("drive"), elapsed_s, progress) if now == "drive" else None
    if now == "drive" and drive is None:
        return None
    this = drive if drive is not None else _rest(likely.get(now or ""), elapsed_s)
    return this + sum(phase.likely_s for phase in phases if phase.name != now and phase.name not in ended)


def _rest(phase: Expected | None, elapsed_s: float) -> float:
    """Of a phase that shows no progress: what was likely, and after that half of what it may take at most."""
    if phase is None:
        return 0.0
    return phase.likely_s - elapsed_s if elapsed_s < phase.likely_s else max(0.0, phase.high_s - elapsed_s) / 2


def _drive_left(phase: Expected | None, elapsed_s: float, progress: Progress | None) -> float | None:
    if progress is None or not progress.expected:
        return _rest(phase, elapsed_s) if phase else None
    to_do = max(0, progress.expected - progress.done)
    share = progress.answered / max(1, progress.answered + to_do)
    trust = 1.0 if phase is None else min(1.0, share / _TRUSTED_FROM)
    if phase is None and not progress.answered:
        return None
    measured = elapsed_s * to_do / progress.answered if progress.answered else 0.0
    forecast = _rest(phase, elapsed_s) * (to_do / progress.expected if phase else 0.0)
    return trust * measured + (1 - trust) * forecast
