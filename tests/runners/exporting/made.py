"""Runs as a recipe could have left them, made up: a home with a ledger, folders and files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from runners.exporting.chosen import exported_runs
from runners.exporting.contract import ExportedRun
from runners.ledger import Ledger

BEGUN = "2026-01-02T03:04:05.000+00:00"


def result_of(run_id: str, begun: str = BEGUN, **changes: Any) -> dict[str, Any]:
    """A completed run of 52 seconds on two GPUs. A change's name is a path, with __ for its dots."""
    latency = {"mean": 0.25, "p50": 0.2, "p90": 0.3, "p95": 0.4, "p99": 0.5}
    phases = [("plan", 1.0, 0.0), ("provision", 9.0, 0.01), ("drive", 40.0, 0.05), ("release", 2.0, 0.0)]
    gpu = {"utilization": {"mean": 0.5, "max": 1.0}, "memory_used_mib": {"mean": 9.0, "max": 10.0}}
    result: dict[str, Any] = {
        "schema_version": 1,
        "run_id": run_id,
        "recipe": run_id[:-21],
        "recipe_digest": "0123456789abcdef",
        "variant": {},
        "tags": [],
        "git_commit": "abc+",
        "versions": {"gpu-recipe": "0.1.0", "python": "3.12.0"},
        "offer": {
            "provider": "runpod",
            "id": "NVIDIA A40",
            "accelerator": "A40-48GB",
            "count": 2,
            "memory_gib": 100.0,
            "cpus": 16,
            "price_usd_per_h": 4.0,
            "region": "US-KS-2",
            "spot": False,
        },
        "lease": {"name": "pod", "id": "1", "price_usd_per_h": 4.0, "deadline": None, "adopted": False},
        "model": {"identifier": "org/model", "source": "org/model @ abc", "commit": "abc"},
        "engine": {"name": "vllm", "version": "0.33.0", "parallel": [2, 1, 1], "args": {"max_model_len": 4096}},
        "started_at": begun,
        "ended_at": (datetime.fromisoformat(begun) + timedelta(seconds=52)).isoformat(timespec="milliseconds"),
        "outcome": {"status": "completed", "phase": None, "error": None},
        "exit_code": 0,
        "warnings": [],
        "phases": [{"name": n, "started_at": begun, "seconds": s, "usd": usd} for n, s, usd in phases],
        "cost": {
            "price_usd_per_h": 4.0,
            "billed_seconds": 51.0,
            "total_usd": 0.06,
            "useful_fraction": 0.75,
            "usd_per_million_prompt_tokens": 60.0,
            "usd_per_million_output_tokens": 600.0,
            "usd_per_document": 0.02,
        },
        "throughput": {
            "prompt_tokens": 1000,
            "output_tokens": 100,
            "prompt_tokens_per_s": 25.0,
            "output_tokens_per_s": 2.5,
            "peak_at": [{"kind": "output", "source": "metrics", "tokens_per_s": 3.5, "at": begun}],
            "engine_counters": None,
        },
        "latency": {name: dict(latency) for name in ("ttft_s", "tpot_s", "e2e_s", "itl_s")},
        "requests": {"ok": 3, "failed": 0, "retried": 0, "truncated": 0, "resumed": 0},
        "workload": {"kind": "summarize"},
        "forecast": None,
        "documents": {"done": 3, "total": 3, "unit": "document"},
        "release": {"name": "pod", "state": "gone", "proof": "deleted, absent twice"},
        "telemetry": {
            "gpus": [{**gpu, "energy_wh": 1.5, "index": i} for i in (0, 1)],
            "cpu": {"mean": 0.1, "max": 0.2},
        },
        "artifacts": [],
    }
    for path, value in changes.items():
        *parents, name = path.split("__")
        part = result
        for parent in parents:
            part = part[parent]
        part[name] = value
    return result


def run_id(number: int, recipe: str = "made") -> str:
    return f"{recipe}-20260102-0304{number // 65536:02d}-{number % 65536:04x}"


def keep(home: Path, result: Mapping[str, Any], **files: str) -> Path:
    """Have the run in the home's ledger, with a folder of these files (telemetry_jsonl=…)."""
    folder = home / "runs" / str(result["run_id"])
    (folder / "outputs").mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    for name, text in files.items():
        (folder / ".".join(name.rsplit("_", 1))).write_text(text)
    Ledger(home).insert(result, origin="made up")
    return folder


def runs_in(home: Path) -> Iterator[ExportedRun]:
    ledger = Ledger(home)
    return exported_runs(home, ledger, ledger.rows(sort="started"))


def lines(*rows: Mapping[str, Any]) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def request_row(number: int, **changes: Any) -> dict[str, Any]:
    row = {"id": f"a/1/{number}", "document": "a", "level": 1, "index": number, "status": "ok", "tries": 1}
    row |= {"started_at": "2026-01-02T03:04:15+00:00", "prompt_tokens": 100, "output_tokens": 10, "ttft_s": 0.5}
    return {**row, "tpot_s": 0.1, "e2e_s": 1.5, "itl_s": [0.1, 0.3], "finish_reason": "stop", "error": None, **changes}
