"""result.json: the ledger's row, built from everything that was measured."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

from provisioners.contract import Bill, Lease, Offer, Release
from recipes.errors import ExitCode
from recipes.spec import Workload
from runners.clock import Clock
from runners.costing import Spent, cost, phase_rows, windows_before
from runners.drive import Measured, slots_of
from runners.electricity import electricity
from runners.forecast.forecast import parallel_sizes
from runners.forecast.measured import compared, work_row
from runners.ledger import Known
from runners.measurement import latency, request_counts, throughput
from runners.outcome import Outcome, as_row, release_row
from runners.peak_notes import counters_note, peaks_note
from runners.plan import Plan
from runners.plan_document import SCHEMA_VERSION
from runners.prepare import Prepared
from runners.records import EMPTY, RequestRecord
from runners.run_folder import RunFolder
from runners.telemetry.rows import read_rows


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What became known of the machine."""

    offer: Offer
    lease: Lease | None = None
    way: str | None = None
    """How the client reached the engine."""
    bill: Bill | None = None
    adopted: bool = False
    """Whether this client took the run over from one that died."""
    prepared: Prepared | None = None


def build_result(
    plan: Plan,
    folder: RunFolder,
    clock: Clock,
    measured: Measured,
    outcome: Outcome,
    release: Release,
    warnings: list[str],
    facts: Facts,
    *,
    exit_code: ExitCode,
) -> dict[str, Any]:
    """The result of a run; a failed or interrupted one has the same fields, as far as it came."""
    records = measured.records
    expected = plan.forecast
    # What went on from the answers of another client is no measure of the whole work.
    partly = bool(measured.earlier or measured.resumed or measured.taken_outputs)
    spent = spent_of(folder, clock, plan.recipe.resources.price_per_kwh)
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": folder.run_id,
        "recipe": plan.recipe.name,
        "recipe_digest": plan.loaded.digest,
        "variant": plan.loaded.variant,
        "tags": list(plan.recipe.tags),
        "git_commit": git_commit(plan.loaded.source.parent),
        "versions": versions(plan),
        "offer": asdict(facts.offer),
        "lease": _lease_row(facts),
        "model": {
            "identifier": plan.model.identifier,
            "source": plan.model.describe(),
            "commit": plan.model.hub.commit if plan.model.hub else None,
        },
        "engine": {
            "name": plan.engine.name,
            "version": plan.engine_version,
            "parallel": list(parallel_sizes(plan.recipe.engine)),
            "args": dict(plan.recipe.engine.args),
        },
        "started_at": clock.started_at.isoformat(timespec="milliseconds"),
        "ended_at": clock.ended_at.isoformat(timespec="milliseconds"),
        "outcome": as_row(outcome),
        "exit_code": int(exit_code),
        "warnings": warnings,
        "forced": [{"code": finding.code, "message": finding.message} for finding in plan.forced],
        "phases": phase_rows(spent),
        "cost": {
            **(paid := _paid(spent, measured)),
            "forecast_usd": expected.total_usd.likely if expected and expected.total_usd else None,
            **bill_row(facts.bill, paid["total_usd"], datetime.now(UTC)),
        },
        "throughput": {**_throughput_row(measured, plan.recipe.workload), **_taken_at(measured, facts.way)},
        "concurrency": measured.concurrency,
        "telemetry": measured.telemetry,
        "latency": latency(records),
        "requests": {**request_counts(records), "resumed": measured.resumed},
        "taken_over": _taken_row(measured),
        "prepared": _prepared_row(facts.prepared),
        "workload": plan.workload.figures(plan.prepared, records),
        "work": None if partly else work_row(records, plan.recipe.workload, slots_of(plan)),
        "forecast": compared(expected, clock.phases) if expected and not (facts.adopted or partly) else None,
        "documents": {
            "done": len(measured.outputs),
            "total": plan.estimate.documents,
            "unit": plan.estimate.unit,
        },
        "release": {"name": facts.lease.name if facts.lease else None, **release_row(release)},
        "artifacts": folder.artifacts(),
    }


def known(plan: Plan) -> Known:
    """What the ledger may say of a run that has only begun."""
    return Known(
        variant=plan.loaded.variant,
        model=plan.model.identifier,
        engine=plan.engine.name,
        engine_version=plan.engine_version,
        gpu=plan.offer.accelerator,
        gpu_count=plan.offer.count,
        provider=plan.offer.provider,
        price_usd_per_h=plan.offer.price_usd_per_h,
        tags=plan.recipe.tags,
    )


def caveats(
    records: Sequence[RequestRecord], settings: Workload, earlier: Sequence[RequestRecord] = ()
) -> Iterator[str]:
    """Warnings of answers that were cut off, of those that were left out, and of figures of different requests."""
    if earlier:
        yield (
            f"throughput, latency and requests are of the {len(records):,} requests since the run was taken over; "
            f"the cost, also per million tokens, is of all {len(earlier) + len(records):,}, with the "
            f"{len(earlier):,} of earlier clients"
        )
    if settings.traffic is not None:  # a load asks for answers of a certain length
        return
    if truncated := sum(record.finish_reason == "length" for record in records):
        yield f"{truncated} of {len(records)} answers were cut off at max_tokens {settings.max_tokens}"
    empty = sum(record.error == EMPTY for record in records)
    if empty and settings.on_empty == "skip":
        yield f"{empty} of {len(records)} answers were empty: what they were asked about is missing (on_empty: skip)"


def _throughput_row(measured: Measured, workload: Workload) -> dict[str, Any]:
    """With why the peaks differ, if they do, and why the engine counted more."""
    warmup = workload.traffic.warmup if workload.traffic is not None else 0
    seen = (measured.records, measured.metrics, measured.log)
    row = throughput(*seen)
    notes = peaks_note(*seen, row["peak_at"], warmup=warmup)
    return {**row, "peaks_note": notes, "counters_note": counters_note(row, warmup)}


def _taken_at(measured: Measured, way: str | None) -> dict[str, Any]:
    """Where the figures were taken: at which end, and of a host by how much its clock was ahead."""
    offset_s = round(measured.clock_offset_s, 3) if measured.at == "host" else None
    return {"measured_at": measured.at, "through": way, "clock_offset_s": offset_s}


def _prepared_row(prepared: Prepared | None) -> dict[str, Any] | None:
    """What preparing had to do, on which its time depends."""
    if prepared is None:
        return None
    return {"installed": prepared.installed, "downloaded_bytes": prepared.downloaded_bytes}


def _taken_row(measured: Measured) -> list[dict[str, Any]]:
    """What was not asked for, because an unfinished run of the same recipe had it: from which run, and how much."""
    runs = sorted({*measured.taken_answers, *measured.taken_outputs})
    return [
        {"run_id": run, "answers": measured.taken_answers[run], "documents": measured.taken_outputs[run]}
        for run in runs
    ]


def _lease_row(facts: Facts) -> dict[str, Any] | None:
    lease = facts.lease
    if lease is None:
        return None
    deadline = lease.deadline.isoformat(timespec="seconds") if lease.deadline else None
    return {
        "name": lease.name,
        "id": lease.id,
        "price_usd_per_h": lease.price_usd_per_h,
        "storage_usd_per_h": lease.storage_usd_per_h,
        "deadline": deadline,
        "adopted": facts.adopted,
    }


def spent_of(folder: RunFolder, clock: Clock, price_per_kwh: float | None) -> Spent:
    """What was billed, with what earlier clients of the run have noted of their phases."""
    taken_over = next((phase for phase in clock.phases if phase.name == "before"), None)
    end = taken_over.started_at + timedelta(seconds=taken_over.seconds) if taken_over else None
    return Spent(
        phases=tuple(clock.phases),
        price_usd_per_h=clock.price_usd_per_h,
        storage_usd_per_h=clock.storage_usd_per_h,
        before=windows_before(_events(folder), end) if end else (),
        electricity=electricity(read_rows(folder.path / "telemetry.jsonl"), clock.phases, price_per_kwh),
    )


def _events(folder: RunFolder) -> Iterator[dict[str, Any]]:
    """The rows of events.jsonl that are whole: who was killed may have left half a one."""
    for line in (folder.path / "events.jsonl").read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):
            yield json.loads(line)


def _paid(spent: Spent, measured: Measured) -> dict[str, Any]:
    documents_done = len(measured.outputs) - measured.taken_outputs.total()
    return cost(spent, [*measured.earlier, *measured.records], documents_done)


def bill_row(bill: Bill | None, ours_usd: float | None, asked_at: datetime) -> dict[str, Any]:
    """The provider's own account beside ours, and by how much it differs; None where it gives none."""
    usd = bill.usd if bill else None
    difference = None if usd is None or ours_usd is None else usd - ours_usd
    return {
        "provider_usd": None if usd is None else round(usd, 6),
        "provider_asked_at": None if bill is None else asked_at.isoformat(timespec="seconds"),
        "provider_seconds": None if bill is None or bill.seconds is None else round(bill.seconds, 3),
        "difference_usd": None if difference is None else round(difference, 6),
        "difference_share": None if difference is None or not ours_usd else round(difference / ours_usd, 4),
    }


def versions(plan: Plan) -> dict[str, str]:
    """Of everything that can change a figure."""
    found = {name: version(name) for name in ("gpu-recipe", "httptools", "tokenizers", "huggingface-hub")}
    engine = {plan.engine.name: plan.engine_version} if plan.engine_version else {}
    return {**found, "python": platform.python_version(), "platform": _platform(), **engine}


def _platform() -> str:
    """As platform.platform() says it, which starts a process to ask for a name that it does not use."""
    if "CS_GNU_LIBC_VERSION" not in os.confstr_names:
        return platform.platform()
    here, libc = os.uname(), (os.confstr("CS_GNU_LIBC_VERSION") or "libc").replace(" ", "")
    return f"{here.sysname}-{here.release}-{here.machine}-with-{libc}"


def git_commit(folder: Path) -> str | None:
    """The commit that is checked out where the recipe lies, with a + if files there were changed; None outside git."""
    try:
        run = {"cwd": folder, "capture_output": True, "text": True, "timeout": 10, "check": True}
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **run).stdout.strip()  # type: ignore[call-overload]
        changed = subprocess.run(["git", "status", "--porcelain", "--", "."], **run).stdout.strip()  # type: ignore[call-overload]
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}+" if changed else str(commit)
