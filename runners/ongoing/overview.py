"""All that is going on, as one document: for the terminal, for the page, and for `--json`. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from runners.machine import Machine

SCHEMA_VERSION = 1
ENDED_SHOWN_S = 600.0
"""So long a run that has ended is still told of."""
_MOST_ENDED = 20
_CONTROLS = dict.fromkeys((*range(32), *range(127, 160)), " ")
_SILENT_S = 5.0
"""A client writes every second; one that has not for so long is told to be silent."""
_FRESH_S = 15.0
"""What a machine's sampler said before that says nothing about now."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A run that the ledger says is going on, and whatever else there is of it."""

    run_id: str
    recipe: str
    started_at: datetime
    lives: bool
    """Whether its client's process does."""
    pid: int | None = None
    live: Mapping[str, Any] | None = None
    """live.json, as it was read."""
    machine: Machine | None = None
    """Its lease, if that may be billing."""
    usd: float | None = None
    """What it has cost, of one that was lost and holds no machine, as far as the journal knows."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A run that has ended."""

    run_id: str
    recipe: str
    status: str
    ended_at: datetime
    exit_code: int | None = None
    phase: str | None = None
    seconds: float | None = None
    usd: float | None = None
    output_tokens_per_s: float | None = None
    report: str | None = None
    """The path of its report.html, if there is one."""


@dataclass(frozen=True, kw_only=True)
class State:
    """What was read at one moment."""

    at: datetime
    home: str
    found: Sequence[Found] = ()
    ended: Sequence[Ended] = ()
    alone: Sequence[Machine] = ()
    """What may be billing, and belongs to no run that is found."""
    ended_today_usd: float = 0.0
    """What the runs have cost that began today (UTC) and have ended."""
    only: str | None = field(default=None)
    """The id of the one run that is asked for."""


def overview(state: State) -> dict[str, Any]:
    """The document. Figures that grow are reckoned up to `at`; what is unknown is None."""
    runs = [_run(found, state.at) for found in state.found if found.lives or found.machine]
    machines = [_lease(machine, state.at) for machine in state.alone]
    midnight = state.at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    lost = [found for found in state.found if not found.lives and found.machine is None]
    today = state.ended_today_usd + sum(run["usd"] or 0.0 for run in runs if _instant(run["started_at"]) >= midnight)
    today += sum(_lost_usd(found) or 0.0 for found in lost if found.started_at >= midnight)
    return {
        "schema_version": SCHEMA_VERSION,
        "at": state.at.isoformat(timespec="milliseconds"),
        "home": state.home,
        "only": state.only,
        "usd_per_h": sum(run["usd_per_h"] or 0.0 for run in runs if run["billing"])
        + sum(row["usd_per_h"] or 0.0 for row in machines),
        "usd_today": today,
        "runs": runs,
        "machines": machines,
        "ended": [_ended(ended, state.at) for ended in _newest(state)],
    }


def _newest(state: State) -> list[Ended]:
    """The ended runs that are told of, the newest first; with them those that were lost and hold no machine."""
    lost = [
        Ended(
            run_id=found.run_id,
            recipe=found.recipe,
            status="lost",
            ended_at=_seen(found) or found.started_at,
            phase=((found.live or {}).get("phase") or {}).get("name"),
            usd=_lost_usd(found),
        )
        for found in state.found
        if not found.lives and found.machine is None
    ]
    told = (
        ended
        for ended in (*state.ended, *lost)
        if state.only is not None or (state.at - ended.ended_at).total_seconds() <= ENDED_SHOWN_S
    )
    return sorted(told, key=lambda ended: ended.ended_at, reverse=True)[:_MOST_ENDED]


def _lost_usd(found: Found) -> float | None:
    """By the journal; else what its client wrote last."""
    usd = found.usd if found.usd is not None else cleaned((found.live or {}).get("usd"))
    return usd if isinstance(usd, int | float) else None


def _ended(ended: Ended, at: datetime) -> dict[str, Any]:
    return {
        "run_id": ended.run_id,
        "recipe": ended.recipe,
        "status": ended.status,
        "exit_code": ended.exit_code,
        "phase": ended.phase,
        "ended_at": ended.ended_at.isoformat(timespec="milliseconds"),
        "ago_s": max(0.0, round((at - ended.ended_at).total_seconds(), 1)),
        "seconds": ended.seconds,
        "usd": ended.usd,
        "output_tokens_per_s": ended.output_tokens_per_s,
        "report": ended.report,
    }


def _run(found: Found, at: datetime) -> dict[str, Any]:
    live = cleaned(dict(found.live or {}))
    seen = _seen(found)
    age_s = max(0.0, (at - seen).total_seconds()) if seen else None
    billing = bool(live.get("billing")) if found.lives else found.machine is not None
    return {
        "run_id": found.run_id,
        "recipe": found.recipe,
        "tags": live.get("tags") or [],
        "client": _client(found, age_s),
        "pid": found.pid,
        "seen_s": None if age_s is None else round(age_s, 1),
        "started_at": live.get("started_at") or found.started_at.isoformat(timespec="milliseconds"),
        "seconds": round(max(0.0, (at - _instant(live.get("started_at") or found.started_at)).total_seconds()), 1),
        "model": live.get("model"),
        "engine": live.get("engine"),
        "machine": live.get("machine"),
        "phase": _phase(live, at if found.lives or seen is None else seen),
        "phases": live.get("phases") or [],
        "stopping": live.get("stopping"),
        **_money(found, live, billing, age_s or 0.0, at),
        "deadline": live.get("deadline") or _deadline(found.machine),
        "left_s": _left(found, live, age_s or 0.0),
        "driven": live.get("driven"),
        "rates": live.get("rates"),
        "host": _host(live, seen),
        "gpus": _gpus(live, seen),
        "warnings": live.get("warnings") or [],
        "lease": None if found.lives or found.machine is None else _lease(found.machine, at),
    }


def _client(found: Found, age_s: float | None) -> str:
    if not found.lives:
        return "gone"
    return "silent" if age_s is not None and age_s > _SILENT_S else "running"


def _seen(found: Found) -> datetime | None:
    """When its client was last heard of."""
    at = (found.live or {}).get("at")
    return _instant(at) if at else None


def _phase(live: Mapping[str, Any], at: datetime) -> dict[str, Any] | None:
    """The one that is on at this moment."""
    phase = live.get("phase")
    if not phase:
        return None
    return {**phase, "seconds": round(max(0.0, (at - _instant(phase["started_at"])).total_seconds()), 1)}


def _money(
    found: Found, live: Mapping[str, Any], billing: bool, age_s: float, at: datetime
) -> dict[str, float | bool | None]:
    """So far, up to this moment. Without a client the journal knows since when its machine bills."""
    rate, usd = live.get("usd_per_h"), live.get("usd")
    if not found.lives and found.machine is not None:
        rate, usd = found.machine.lease.usd_per_h, found.machine.usd(at)
    elif billing and rate is not None and usd is not None:
        usd += rate * age_s / 3600
    return {
        "usd": usd,
        "usd_per_h": rate,
        "billing": billing,
        "max_cost_usd": live.get("max_cost_usd"),
        "usd_at_end": live.get("usd_at_end") if found.lives else None,
    }


def _left(found: Found, live: Mapping[str, Any], age_s: float) -> float | None:
    left = live.get("left_s")
    return None if left is None or not found.lives else round(max(0.0, left - age_s), 1)


def _lease(machine: Machine, at: datetime) -> dict[str, Any]:
    return {**machine.row(), "usd_per_h": machine.lease.usd_per_h, "usd": machine.usd(at)}


def _deadline(machine: Machine | None) -> str | None:
    return machine.lease.deadline.isoformat() if machine and machine.lease.deadline else None


def _sample(live: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    sample = (live.get("samples") or {}).get(source)
    return sample if isinstance(sample, Mapping) else {}


def _fresh(live: Mapping[str, Any], seen: datetime | None) -> Mapping[str, Any]:
    """The machine's newest sample, if it is of the time at which its client was last heard of."""
    host = _sample(live, "host")
    if not host.get("at") or seen is None or (seen - _instant(host["at"])).total_seconds() > _FRESH_S:
        return {}
    return host


def _host(live: Mapping[str, Any], seen: datetime | None) -> dict[str, Any] | None:
    host, machine = _fresh(live, seen), _sample(live, "machine")
    if not host:
        return None
    known = {name: host.get(name) for name in ("cpu", "load_1m", "ram_used_mib", "disk_used_mib")}
    return {**known, **{name: machine.get(name) for name in ("hostname", "cpus", "ram_total_mib", "disk_total_mib")}}


_OF_GPU = ("utilization", "memory_utilization", "memory_used_mib", "power_w", "temperature_c", "sm_mhz", "throttle")
_OF_CARD = ("name", "memory_total_mib", "power_limit_w")


def _gpus(live: Mapping[str, Any], seen: datetime | None) -> list[dict[str, Any]]:
    """Each with its newest figures; one that was lost says why, and has none."""
    cards = {card.get("index"): card for card in _sample(live, "machine").get("gpus") or ()}
    lost = {row["index"]: row["why"] for row in live.get("lost_gpus") or ()}
    samples = {gpu.get("index"): gpu for gpu in _fresh(live, seen).get("gpus") or ()}
    return [
        {
            "index": index,
            **{name: cards.get(index, {}).get(name) for name in _OF_CARD},
            **{name: samples.get(index, {}).get(name) for name in _OF_GPU},
            "lost": lost.get(index) if index not in samples else None,
        }
        for index in sorted({*samples, *lost}, key=str)
    ]


def _instant(at: str | datetime) -> datetime:
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def cleaned(value: Any) -> Any:
    """What any reader of JSON and any terminal takes: no figure that is none, no half characters, no control ones."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return (value if value.isascii() else value.encode("utf-8", "replace").decode()).translate(_CONTROLS)
    if isinstance(value, Mapping):
        return {str(key): cleaned(each) for key, each in value.items()}
    if isinstance(value, Iterable):
        return [cleaned(each) for each in value]
    return value
