"""Results of runs as a test needs them, with what comparing reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from recipes.spec import digest_of

_NUMBERS = count(1)
PHASES = {"plan": 1.0, "provision": 60.0, "prepare": 300.0, "launch": 100.0, "drive": 1000.0, "release": 5.0}


def result(
    speed: float = 100.0,
    *,
    recipe: str = "base",
    digest: str = "",
    price: float | None = 3.6,
    ttft: float = 0.5,
    status: str = "completed",
    variant: dict[str, Any] | None = None,
    **parts: Any,
) -> dict[str, Any]:
    """A run of 100,000 output tokens at this speed; `parts` are merged over it, part by part."""
    number = next(_NUMBERS)
    began = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(minutes=number)
    drive_s = 100_000 / speed
    billed_s = sum(PHASES.values()) - PHASES["plan"] - PHASES["drive"] + drive_s
    usd = None if price is None else price * billed_s / 3600
    seconds = {**PHASES, "drive": drive_s}
    made = {
        "run_id": f"{recipe}-{began:%Y%m%d-%H%M%S}-{number % 65536:04x}",
        "recipe": recipe,
        "recipe_digest": digest or digest_of(recipe),
        "variant": variant or {},
        "started_at": began.isoformat(timespec="milliseconds"),
        "ended_at": "2026-11-30T00:00:00.000+00:00",
        "git_commit": "9236d20f0baee4bf12ff83fa91176b9ba12d2ed7",
        "versions": {"gpu-recipe": "0.1.0", "python": "3.11.7"},
        "offer": {"provider": "runpod", "id": "A100", "accelerator": "A100 80GB PCIe", "count": 2, "cpus": 16,
                  "region": "US-KS-2", "spot": False},
        "lease": {"adopted": False},
        "model": {"identifier": "owner/model", "commit": "4f2c91e"},
        "engine": {"name": "vllm", "version": "0.33.0"},
        "outcome": {"status": status, "phase": None if status == "completed" else "drive", "error": None},
        "exit_code": 0,
        "phases": [{"name": name, "seconds": s, "usd": 0.0} for name, s in seconds.items()],
        "cost": {"price_usd_per_h": price, "total_usd": usd, "useful_fraction": drive_s / billed_s,
                 "usd_per_document": None if usd is None else usd / 12,
                 "usd_per_million_output_tokens": None if usd is None else usd * 10},
        "throughput": {"prompt_tokens": 900_000, "output_tokens": 100_000, "output_tokens_per_s": speed,
                       "prompt_tokens_per_s": 9 * speed, "measured_at": "client", "through": "direct"},
        "latency": {f"{name}_s": {"p50": ttft, "p99": 3 * ttft} for name in ("ttft", "tpot", "e2e")},
        "requests": {"ok": 100, "failed": 0, "retried": 0, "resumed": 0},
        "taken_over": [],
        "prepared": {"installed": False, "downloaded_bytes": 0},
        "workload": {"kind": "summarize", "inputs_digest": "aa" * 8, "prompt_digest": "bb" * 8},
        "documents": {"done": 12, "total": 12, "unit": "document"},
    }  # fmt: skip
    for name, part in parts.items():
        made[name] = {**made[name], **part} if isinstance(part, dict) and isinstance(made.get(name), dict) else part
    return made


def several(speeds: list[float], **settings: Any) -> list[dict[str, Any]]:
    """Repetitions with these speeds."""
    return [result(speed, **settings) for speed in speeds]
