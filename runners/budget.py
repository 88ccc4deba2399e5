"""How long a lease may last, from the limits and the price; and what is kept back for its end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from recipes.spec import Limits, Recipe

# Kept back from the lease's time for collecting and letting go: so long, but no more than this share of it.
_AFTERWARDS_S, _AFTERWARDS_SHARE = 60.0, 0.2
# A rented machine's own, where a recipe sets none.
LONGEST_RENTED_S = 24 * 3600.0
_OUT_OF_REACH_S = 15.0
_RENTED_DAY = "the day that a rented machine has without limits.max_duration"
# What a date can hold, and more than any run takes.
_LONGEST_S = 3650 * 86400.0


@dataclass(frozen=True)
class Deadline:
    """When a lease ends at the latest, and the limit that says so."""

    at: datetime
    work_until: datetime
    """When its work stops, so that collecting and letting go come before the end."""
    limit: str
    advice: str


def affordable_s(limits: Limits, usd_per_h: float | None) -> float | None:
    """How long a lease may last before max_cost is spent."""
    if limits.max_cost is None or not usd_per_h:
        return None
    return limits.max_cost / usd_per_h * 3600


def lease_deadline(limits: Limits, usd_per_h: float | None, now: datetime, *, billable: bool) -> Deadline | None:
    """The earliest of max_duration, the moment at which max_cost is spent and, for a rented machine, a day."""
    allowed = {
        "limits.max_duration": limits.max_duration,
        "limits.max_cost": affordable_s(limits, usd_per_h),
        _RENTED_DAY: LONGEST_RENTED_S if billable and limits.max_duration is None else None,
    }
    known = [(seconds, name) for name, seconds in allowed.items() if seconds is not None]
    if not known:
        return None
    seconds, name = min(known)
    seconds = min(seconds, _LONGEST_S)
    kept_back = min(_AFTERWARDS_S, seconds * _AFTERWARDS_SHARE)
    advice = "set limits.max_duration" if name == _RENTED_DAY else f"raise {name}"
    return Deadline(now + timedelta(seconds=seconds), now + timedelta(seconds=seconds - kept_back), name, advice)


def adopted_deadline(at: datetime, now: datetime) -> Deadline:
    """Of a lease that another client has begun."""
    left = max(0.0, (at - now).total_seconds())
    work_until = at - timedelta(seconds=min(_AFTERWARDS_S, left * _AFTERWARDS_SHARE))
    return Deadline(at, work_until, "the lease's deadline", "begin anew with a higher limits.max_duration or max_cost")


@dataclass(frozen=True)
class PhaseLimit:
    """How long a phase may take from now on."""

    seconds: float | None
    name: str
    advice: str


def phase_limit(
    phase: str, recipe: Recipe, deadline: Deadline | None, usd_per_h: float | None, billed_s: float
) -> PhaseLimit:
    """The phase's own limit, or the lease's if that comes first; None as deadline while nothing is leased."""
    limits = recipe.limits
    own_s: float | None = getattr(limits.deadlines, phase, None)
    if phase == "provision" and deadline is None and own_s is not None:
        own_s += recipe.resources.retry or 0.0
    own = PhaseLimit(own_s, f"limits.deadlines.{phase}", f"raise limits.deadlines.{phase}")
    if phase == "collect":
        # What there is comes home also after the work's deadline, for half of what was kept back.
        affordable = affordable_s(limits, usd_per_h)
        if affordable is None:
            return own
        lease = PhaseLimit(max(0.0, affordable - billed_s) / 2, "limits.max_cost", "raise limits.max_cost")
    elif deadline is not None:
        left_s = max(0.0, (deadline.work_until - datetime.now(UTC)).total_seconds())
        lease = PhaseLimit(left_s, deadline.limit, deadline.advice)
    else:
        return own
    return lease if own_s is None or (lease.seconds is not None and lease.seconds < own_s) else own


def brief(limit: PhaseLimit) -> PhaseLimit:
    """Of a machine that did not answer for long already: it bills while it is waited for once more."""
    if limit.seconds is not None and limit.seconds <= _OUT_OF_REACH_S:
        return limit
    return PhaseLimit(_OUT_OF_REACH_S, f"{_OUT_OF_REACH_S:.0f} s, after contact was lost", "see recipe ps")
