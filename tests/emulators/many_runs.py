"""Results of as many runs as one wants, as they would be after years of use: invented, and the same each time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

GPUS = (("A100 80GB PCIe", 2, 3.58), ("H100 SXM 80GB", 1, 2.99), ("A40 48GB", 4, 1.76), (None, 0, 0.05))
MODELS = ("jondurbin/airoboros-l2-70b-3.1.2", "meta-llama/Llama-3.3-70B-Instruct", "Qwen/Qwen3-8B", "lead")
ENGINES = (("vllm", "0.33.0"), ("llamacpp", "2026.10.11549"), ("transformers", "5.1.0"))
TAGS = ("nightly", "baseline", "paper", "team:search", "try")
STATUSES = ("completed",) * 17 + ("failed", "failed", "interrupted")
PHASES = {"plan": 4.0, "provision": 70.0, "prepare": 400.0, "launch": 110.0, "drive": 1500.0, "release": 8.0}
FIRST = datetime(2024, 1, 1, tzinfo=UTC)


def synthetic(count: int, *, seed: int = 6, files: int = 12) -> Iterator[dict[str, Any]]:
    """`count` results over three years, the oldest first; each has as many artifacts as asked for."""
    dice = random.Random(seed)
    step = timedelta(days=3 * 365) / max(1, count)
    for number in range(count):
        yield _result(dice, number, FIRST + step * number, files)


def _result(dice: random.Random, number: int, began: datetime, files: int) -> dict[str, Any]:
    gpu, gpus, price = GPUS[number % len(GPUS)]
    model, (engine, version) = MODELS[number // 3 % len(MODELS)], ENGINES[number // 5 % len(ENGINES)]
    recipe, status = f"{engine}-{model.rpartition('/')[2].lower()}", dice.choice(STATUSES)
    phases, at = [], began
    for name, usual_s in PHASES.items():
        took_s = round(usual_s * dice.uniform(0.7, 1.6), 3)
        usd = 0.0 if name == "plan" else round(price * took_s / 3600, 8)
        phases.append({"name": name, "started_at": _iso(at), "seconds": took_s, "usd": usd})
        at += timedelta(seconds=took_s)
    billed_s = round(sum(phase["seconds"] for phase in phases[1:]), 3)
    usd, drive_s = price * billed_s / 3600, phases[4]["seconds"]
    documents = 12 if status == "completed" else dice.randrange(12)
    prompt, output = 260_000 * documents, 13_000 * documents
    idle_s = {phase["name"]: phase["seconds"] for phase in phases[1:4]}
    run_id = f"{recipe}-{began:%Y%m%d-%H%M%S}-{number % 65536:04x}"
    return {
        "schema_version": 1,
        "run_id": run_id,
        "recipe": recipe,
        "recipe_digest": f"{number % 400:016x}",
        "variant": {"workload.concurrency": 2 ** (number % 5)} if number % 7 == 0 else {},
        "tags": sorted(dice.sample(TAGS, dice.choice((0, 0, 1, 2)))),
        "git_commit": "9236d20f0baee4bf12ff83fa91176b9ba12d2ed7",
        "versions": {"gpu-recipe": "0.1.0", "python": "3.11.7", "platform": "Linux-6.18-x86_64", engine: version},
        "offer": {"provider": "runpod" if gpu else "local", "id": gpu or "vm", "accelerator": gpu, "count": gpus,
                  "memory_gib": 80.0, "cpus": 32, "price_usd_per_h": price, "region": "US-KS-2"},
        "lease": {"name": f"recipe-{run_id}", "id": f"{number:x}", "price_usd_per_h": price, "deadline": None,
                  "adopted": False},
        "model": {"identifier": model, "source": f"{model} @ 4f2c91e", "commit": "4f2c91e"},
        "engine": {"name": engine, "version": version, "parallel": [max(1, gpus), 1, 1], "args": {"seed": 1}},
        "started_at": _iso(began),
        "ended_at": _iso(at),
        "outcome": {"status": status, "phase": None if status == "completed" else "drive",
                    "error": None if status == "completed" else "the engine died: CUDA out of memory"},
        "exit_code": {"completed": 0, "failed": 6, "interrupted": 130}[status],
        "warnings": [],
        "forced": [],
        "phases": phases,
        "cost": {"price_usd_per_h": price, "billed_seconds": billed_s, "total_usd": round(usd, 6),
                 "useful_fraction": round(drive_s / billed_s, 4), "useful_usd": round(price * drive_s / 3600, 6),
                 "idle_usd": {name: round(price * seconds / 3600, 6) for name, seconds in idle_s.items()},
                 "idle_seconds": idle_s,
                 "usd_per_million_prompt_tokens": round(usd / prompt * 1e6, 6) if prompt else None,
                 "usd_per_million_output_tokens": round(usd / output * 1e6, 6) if output else None,
                 "usd_per_document": round(usd / documents, 6) if documents else None,
                 "provider_usd": None, "provider_seconds": None, "difference_usd": None},
        "throughput": {"prompt_tokens": prompt, "output_tokens": output, "cached_prompt_tokens": 0,
                       "seconds": drive_s, "prompt_tokens_per_s": round(prompt / drive_s, 2),
                       "output_tokens_per_s": round(output / drive_s, 2), "peak_prompt_tokens_per_s": 3221.0,
                       "peak_output_tokens_per_s": 157.0, "peak_at": [], "engine_counters": None,
                       "measured_at": "client", "through": "direct", "clock_offset_s": None},
        "concurrency": {"limit_low": 16, "limit_high": 16, "limit_at_end": 16, "engine_slots": 14},
        "latency": {f"{name}_s": _percentiles(dice, mean) for name, mean in _LATENCY.items()},
        "requests": {"ok": 92 * documents, "failed": 0, "retried": 2, "truncated": 0, "resumed": 0},
        "taken_over": [],
        "prepared": {"installed": True, "downloaded_bytes": 137_953_296_384},
        "workload": {"kind": "summarize", "strategy": "recursive", "chunks": 1041, "levels": 3, "empty": 0},
        "work": None,
        "forecast": None,
        "documents": {"done": documents, "total": 12, "unit": "document"},
        "release": {"name": f"recipe-{run_id}", "state": "gone", "proof": "deleted, absent twice"},
        "artifacts": [{"path": f"outputs/{i:04d}-analysis-{engine}.json", "sha256": f"{number + i:064x}",
                       "bytes": 20_000 + i} for i in range(files)],
    }  # fmt: skip


_LATENCY = {"ttft": 1.2, "tpot": 0.07, "e2e": 11.0, "itl": 0.07}


def _percentiles(dice: random.Random, mean: float) -> dict[str, float]:
    mean *= dice.uniform(0.8, 1.3)
    return {name: round(mean * k, 6) for name, k in {"mean": 1, "p50": 0.9, "p90": 1.8, "p95": 2.2, "p99": 3}.items()}


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")
