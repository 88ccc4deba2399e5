"""Folders of runs as a session leaves them, made of figures that are known."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from runners.engine import EngineSample
from runners.measurement import Timed, latency, request_counts, throughput
from runners.records import RequestRecord
from runners.run_folder import RecordFile, RunFolder

BEGAN = datetime(2026, 11, 21, 5, 12, 0, tzinfo=UTC)
PHASES = (
    ("plan", 1.25, False),
    ("provision", 72.0, True),
    ("prepare", 40.5, True),
    ("launch", 20.0, True),
    ("drive", 60.0, True),
    ("collect", 0.5, True),
    ("release", 4.25, True),
)
PRICE = 3.58
TEXT = "The first part tells of a lighthouse. It is long.\n\nThe second part tells of a train. It is late.\n"


def made_run(
    home: Path,
    run_id: str = "made-20261121-051200-9f3a",
    *,
    speed: float = 1.0,
    gpus: int = 2,
    changes: Mapping[str, Any] | None = None,
    telemetry: bool = True,
    requests: int = 60,
) -> RunFolder:
    """A run of a minute's work on rented GPUs. `changes` are laid over result.json; None takes a field away."""
    folder = RunFolder(home / "runs" / run_id)
    folder.outputs.mkdir(parents=True)
    document = home / "inputs" / "document.txt"
    document.parent.mkdir(exist_ok=True)
    document.write_text(TEXT)
    os.utime(document, (BEGAN.timestamp(), BEGAN.timestamp()))
    records = made_records(requests, speed)
    result = made_result(run_id, records)
    for name, value in (changes or {}).items():
        place = result
        *above, last = name.split(".")
        for part in above:
            place = place[part]
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    folder.write_json("result.json", result)
    file = RecordFile(folder)
    for record in records:
        file.write(record, "an answer", "key")
    output = folder.outputs / "document-analysis-model-0000.json"
    output.write_text(json.dumps(made_output(document)))
    file.document_done("document.txt", output, "key")
    file.close()
    if telemetry:
        rows = made_telemetry(gpus)
        (folder.path / "telemetry.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder.path / "engine.log").write_text(
        "INFO starting\nWARNING KV cache is small\nINFO ready\nINFO 1\nINFO 2\nERROR lost a worker\n"
    )
    (folder.path / "events.jsonl").write_text(
        json.dumps({"at": BEGAN.isoformat(), "event": "run-started", "run_id": run_id}) + "\n"
    )
    (folder.path / "recipe.yaml").write_text(f"name: {run_id[:-21]}\nmodel: {{repo: owner/name}}\n")
    folder.write_json("resolved.json", {"name": run_id[:-21], "workload": {"concurrency": 4, "speed": speed}})
    folder.write_json("plan.json", made_plan(run_id[:-21]))
    return folder


def made_records(count: int, speed: float = 1.0) -> list[RequestRecord]:
    drive = BEGAN + timedelta(seconds=sum(seconds for _, seconds, _ in PHASES[:4]))
    each_s = 58.0 / max(1, count)
    return [
        RequestRecord(
            id=f"document.txt/1/{i}",
            document="document.txt",
            level=1,
            index=i,
            status="ok" if i % 20 != 19 else "failed",
            tries=1 + (i % 15 == 14),
            started_at=drive + timedelta(seconds=i * each_s),
            prompt_tokens=round((900 + 37 * (i % 7)) * speed),
            output_tokens=round((100 + 11 * (i % 5)) * speed),
            ttft_s=0.2 + 0.01 * (i % 9),
            tpot_s=0.012 + 0.0005 * (i % 6),
            e2e_s=1.6 + 0.05 * (i % 8),
            itl_s=(0.01, 0.02),
            finish_reason="stop",
            error="the engine answered 500" if i % 20 == 19 else None,
        )
        for i in range(count)
    ]


def made_result(run_id: str, records: Sequence[RequestRecord]) -> dict[str, Any]:
    """As `build_result` makes it."""
    phases, at = [], BEGAN
    for name, seconds, billed in PHASES:
        usd = round(PRICE * seconds / 3600, 8) if billed else 0.0
        phases.append({"name": name, "started_at": stamp(at), "seconds": seconds, "usd": usd})
        at += timedelta(seconds=seconds)
    billed_s = sum(seconds for _, seconds, billed in PHASES if billed)
    metrics = [Timed(datetime.fromisoformat(row["at"]), sample_of(row)) for row in made_telemetry(0, host=False)]
    idle_s = {"boot": 72.0, "download": 40.5, "load": 20.0, "waiting": 1.5, "letting_go": 4.75, "kept": 0.0}
    useful_s = billed_s - sum(idle_s.values())
    prompt, output = sum(r.prompt_tokens for r in records), sum(r.output_tokens for r in records)
    total = round(PRICE * billed_s / 3600, 7)
    return {
        "schema_version": 1,
        "run_id": run_id,
        "recipe": run_id[:-21],
        "recipe_digest": "17ff49fefe149b9c",
        "variant": {},
        "tags": ["night"],
        "git_commit": "1b77da61aa1cb1ae030e797152d8a666d40ebfcb",
        "versions": {"gpu-recipe": "0.1.0", "python": "3.11.7"},
        "offer": {
            "provider": "runpod",
            "id": "US-KS-2",
            "accelerator": "A100",
            "count": 2,
            "memory_gib": 79.2,
            "cpus": 16,
        },
        "lease": {"name": "recipe-made", "id": "k3", "price_usd_per_h": PRICE, "deadline": "2026-11-21T08:12:00+00:00"},
        "model": {"identifier": "owner/name", "source": "owner/name", "commit": "4f2c91e"},
        "engine": {"name": "vllm", "version": "0.33.0", "parallel": [2, 1, 1], "args": {}},
        "started_at": stamp(BEGAN),
        "ended_at": stamp(at),
        "outcome": {"status": "completed", "phase": None, "error": None},
        "exit_code": 0,
        "warnings": [],
        "forced": [],
        "phases": phases,
        "cost": {
            "price_usd_per_h": PRICE,
            "storage_usd_per_h": 0.02,
            "billed_seconds": billed_s,
            "total_usd": total,
            "compute_usd": total - 0.001,
            "storage_usd": 0.001,
            "useful_fraction": round(useful_s / billed_s, 4),
            "usd_per_million_prompt_tokens": total / prompt * 1e6 if prompt else None,
            "usd_per_million_output_tokens": total / output * 1e6 if output else None,
            "usd_per_document": total,
            "forecast_usd": 0.21,
            "provider_usd": 0.2,
            "provider_seconds": 200.0,
            "difference_usd": 0.0038,
            "usd_per_million_tokens": 2.9 / len(records) * 60 if records else None,
            "useful_seconds": useful_s,
            "useful_usd": PRICE * useful_s / 3600,
            "idle_seconds": idle_s,
            "idle_usd": {cause: PRICE * seconds / 3600 for cause, seconds in idle_s.items()},
        },
        "throughput": {
            **throughput(records, metrics, []),
            "through": "tunnel",
            "peaks_note": ["Metrics lag by a second."],
        },
        "latency": latency(records),
        "requests": {**request_counts(records), "resumed": 0},
        "documents": {"done": 1, "total": 1, "unit": "document"},
        "workload": {"kind": "summarize"},
        "forecast": {
            "phases": [
                {"name": "drive", "seconds": {"low": 40.0, "likely": 55.5, "high": 90.0}, "error": 0.0811},
            ],
            "total_seconds": {"low": 100.0, "likely": 190.0, "high": 300.0},
            "error": {"seconds": 0.0382},
        },
        "release": {"name": "recipe-made", "state": "gone", "proof": "deleted 05:15:18, absent twice"},
        "artifacts": [{"path": "engine.log", "sha256": "ab" * 32, "bytes": 1234}],
    }


def made_telemetry(gpus: int, *, host: bool = True) -> list[dict[str, Any]]:
    """A row a second of the engine during the drive; of the machine from its boot on, with a gap."""
    drive_s = sum(seconds for _, seconds, _ in PHASES[:4])
    rows: list[dict[str, Any]] = []
    for second in range(61):
        rows += [
            {
                "at": stamp(BEGAN + timedelta(seconds=drive_s + second)),
                "source": "engine",
                "prompt_tokens_total": 1000.0 * second,
                "output_tokens_total": 118.0 * second,
                "running": float(min(4, second)),
                "waiting": float(second % 2),
                "kv_usage": min(0.93, second / 60),
            }
        ]
    for second in range(75, 198) if host else ():
        at = stamp(BEGAN + timedelta(seconds=second))
        if 100 <= second < 110:
            if second == 109:
                rows.append({"at": at, "source": "gap", "of": "host", "seconds": 10.0, "why": "the link was cut"})
            continue
        cards = [
            {
                "index": i,
                "utilization": 0.9 if second > drive_s else 0.0,
                "memory_used_mib": 60000 + i,
                "power_w": 250.0 + i,
                "temperature_c": 60.0,
            }
            for i in range(gpus)
            if not (i == 1 and second > 180)  # lost
        ]
        row = {"at": at, "source": "host", "cpu": 0.25, "ram_used_mib": 20480.0, "net_received_bytes": second * 3e6}
        rows.append({**row, "gpus": cards})
    return sorted(rows, key=lambda row: str(row["at"]))


def sample_of(row: Mapping[str, Any]) -> EngineSample:
    known = asdict(EngineSample())
    return EngineSample(**{name: row[name] for name in known if name in row})


def made_output(
    document: Path, texts: Sequence[str] = ("A lighthouse is told of.", "A train is late.")
) -> dict[str, Any]:
    middle = TEXT.index("The second")
    nodes = [
        node("1/0", texts[0], 0, middle, []),
        node("1/1", texts[1], middle, len(TEXT), []),
        {**node("2/0", " ".join(texts), 0, len(TEXT), ["1/0", "1/1"]), "chunk": None},
    ]
    return {
        "summary": " ".join(texts),
        "buck_slip": {
            "document": str(document),
            "length_of_sample_text_in_characters": len(TEXT),
            "summarize_duration_seconds": 3.2,
        },
        "tree": {"root": "2/0", "nodes": nodes},
    }


def node(name: str, text: str, start: int, end: int, children: list[str]) -> dict[str, Any]:
    level, index = name.split("/")
    passage = {"start": start, "end": end}
    return {
        "id": name,
        "level": int(level),
        "index": int(index),
        "source": passage,
        "chunk": passage,
        "children": children,
        "text": text,
        "tokens": len(text) // 4,
        "truncated": False,
    }


def made_plan(recipe: str) -> dict[str, Any]:
    return {
        "command": f"recipe up {recipe}",
        "findings": [{"level": "ok", "code": "kv-cache", "message": "14 requests at once", "forced": False}],
        "steps": [{"phase": "launch", "argv": ["vllm", "serve"], "env": {"A": "1"}}],
    }


def stamp(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")
