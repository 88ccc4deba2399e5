"""A run that is over, once more: its files, read in the order in which things happened, make the states that it had."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from heapq import merge
from typing import Any, NamedTuple

from runners.answers import rows_of
from runners.metrics.exposed import accelerators
from runners.metrics.state import RunState, Told, moment
from runners.run_folder import RunFolder, record_of
from runners.telemetry import rows as telemetry

Change = Callable[[RunState], None]


class Happened(NamedTuple):
    at: float
    order: int
    """Of what happened in the same millisecond: an event comes after what it ends."""
    change: Change | None
    """None where another client began anew, with nothing counted."""


def states(folder: RunFolder, step_s: float) -> Iterator[tuple[float, RunState]]:
    """The run's state every so many seconds, and at its end; a state is to be used before the next is asked for.

    Of a run that failed, was interrupted or lost: as far as its files go. Nothing of one that left no events.
    """
    result = folder.read_json("result.json") or {}
    told = _told(folder, result)
    state: RunState | None = None
    due, last = 0.0, 0.0
    for at, _, change in merge(_events(folder, result), _requests(folder), _samples(folder), key=_order):
        if state is not None:
            while due < at:
                yield due, state
                due += step_s
        if change is None:
            began = moment(result["started_at"]) if result and state is None else at
            state, due = _begun(told, began, result, folder, state), due or math.ceil(at / step_s) * step_s
        elif state is not None:
            change(state)
        last = max(last, at)
    if state is not None:
        yield last, state


def _order(happened: Happened) -> tuple[float, int]:
    return happened.at, happened.order


def _begun(told: Told, at: float, result: dict[str, Any], folder: RunFolder, earlier: RunState | None) -> RunState:
    """With another client the run stays the same: its beginning, and the time in which its machine was of use."""
    state = RunState(told, at)
    if earlier is not None:
        state.began, state.busy, state.energy = earlier.began, earlier.busy, earlier.energy
    lease, cost = result.get("lease") or {}, result.get("cost") or _first_offer(folder)
    price = lease.get("price_usd_per_h", cost.get("price_usd_per_h"))
    state.price_usd_per_h = None if price is None else price + (cost.get("storage_usd_per_h") or 0.0)
    return state


def _told(folder: RunFolder, result: dict[str, Any]) -> Told:
    plan = folder.read_json("plan.json") or {}
    offer = result.get("offer") or _first_offer(folder)
    engine, model = result.get("engine") or plan.get("engine") or {}, result.get("model") or plan.get("model") or {}
    resolved = folder.read_json("resolved.json") or {}
    return Told(
        run_id=folder.run_id,
        recipe=result.get("recipe") or resolved.get("name") or "",
        model=model.get("identifier") or "",
        engine=engine.get("name") or "",
        engine_version=engine.get("version") or "",
        provider=offer.get("provider") or "",
        accelerators=accelerators(offer.get("accelerator"), offer.get("count") or 0),
        documents=(result.get("documents") or {}).get("total") or 0,
        budget_usd=(resolved.get("limits") or {}).get("max_cost"),
        price_usd_per_kwh=(resolved.get("resources") or {}).get("price_per_kwh"),
    )


def _first_offer(folder: RunFolder) -> dict[str, Any]:
    offers: list[dict[str, Any]] = (folder.read_json("plan.json") or {}).get("offers") or [{}]
    return offers[0]


def _events(folder: RunFolder, result: dict[str, Any]) -> Iterator[Happened]:
    for row in rows_of(folder.path / "events.jsonl", "at", "event"):
        at = moment(row["at"])
        if row["event"] == "run-started":
            yield Happened(at, 0, None)
        if (change := _change(row, at, result)) is not None:
            yield Happened(at, 2, change)


def _change(row: dict[str, Any], at: float, result: dict[str, Any]) -> Change | None:
    """What an event changes, as ExposedRun hears it."""
    match row:
        case {"event": "run-started", "deadline": str(deadline)}:
            return lambda state: setattr(state, "deadline", moment(deadline))
        case {"event": "phase-started", "phase": str(phase)}:
            return lambda state: state.phase_started(phase, at)
        case {"event": "phase-ended", "phase": str(phase), "seconds": float(seconds)}:
            return lambda state: _phase_ended(state, phase, seconds, row.get("usd"), at, result)
        case {"event": "lease-changed", "state": str(lease)}:
            return lambda state: state.lease_changed(lease, at)
        case {"event": "noted", "phase": "provision"}:
            return lambda state: state.refused()
        case {"event": "warned"}:
            return lambda state: setattr(state, "warnings", state.warnings + 1)
        case {"event": "run-ended", "status": str(status)}:
            return lambda state: state.ended(status, at)
        case _:
            return None


def _phase_ended(
    state: RunState, phase: str, seconds: float, usd: float | None, at: float, result: dict[str, Any]
) -> None:
    state.phase_ended(phase, seconds, usd, at)
    if phase == "drive" and "documents" in result:
        state.documents_done = result["documents"]["done"]


def _requests(folder: RunFolder) -> Iterator[Happened]:
    """Requests as they ended, and with the last of a document the document."""
    done = {row["document"] for row in rows_of(folder.path / "documents.jsonl", "document")}
    found = []
    last: dict[str, float] = {}
    for row in rows_of(folder.path / "requests.jsonl", "id", "document", "started_at"):
        record = record_of({**row, "itl_s": ()})
        at = record.ended_at.timestamp()
        found.append(Happened(at, 1, lambda state, record=record: state.answered(record)))  # type: ignore[misc]
        if record.document in done:
            last[record.document] = max(at, last.get(record.document, 0.0))
    found += [Happened(at, 1, _document_done) for at in last.values()]
    yield from sorted(found, key=_order)


def _document_done(state: RunState) -> None:
    state.documents_done += 1


def _samples(folder: RunFolder) -> Iterator[Happened]:
    latest = 0.0
    for row in telemetry.read_rows(folder.path / "telemetry.jsonl"):
        at = latest = max(latest, moment(row["at"]))
        yield Happened(at, 1, lambda state, row=row: state.sampled(row))  # type: ignore[misc]
