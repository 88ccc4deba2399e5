"""Runs as the reader finds them, for tests of what is made of that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from provisioners.contract import Lease
from runners.machine import Machine
from runners.ongoing.overview import Ended, Found, State

NOW = datetime(2026, 11, 21, 5, 57, 31, tzinfo=UTC)
RUN = "2xA100-airoboros-70b-20261121-051200-9f3a"


def at(seconds_ago: float) -> str:
    return (NOW - timedelta(seconds=seconds_ago)).isoformat(timespec="milliseconds")


def live(**changes: Any) -> dict[str, Any]:
    """live.json of a run that drives for four minutes, written half a second ago."""
    return {
        "schema_version": 1,
        "run_id": RUN,
        "recipe": "2xA100-airoboros-70b",
        "tags": ["nightly"],
        "pid": 4711,
        "at": at(0.5),
        "started_at": at(822),
        "model": "jondurbin/airoboros-l2-70b-3.1.2",
        "engine": {"name": "vllm", "version": "0.33.0"},
        "machine": {"provider": "runpod", "accelerator": "A100-80GB", "count": 2, "region": "US-KS-2"},
        "phase": {"name": "drive", "started_at": at(240), "doing": ""},
        "phases": [
            {"name": "plan", "seconds": 1.0, "usd": 0.0, "ok": True, "note": "12 files, 1,041 chunks"},
            {"name": "provision", "seconds": 72.0, "usd": 0.07, "ok": True, "note": "A100 PCIe 80GB ×2"},
            {"name": "prepare", "seconds": 400.0, "usd": 0.40, "ok": True, "note": "vLLM 0.33.0 ∥ 137.9 GB"},
            {"name": "launch", "seconds": 109.0, "usd": 0.11, "ok": True, "note": ""},
        ],
        "stopping": None,
        "usd": 0.81,
        "price_usd_per_h": 3.5,
        "usd_per_h": 3.58,
        "billing": True,
        "max_cost_usd": 10.0,
        "deadline": "2026-11-21T16:12:00+00:00",
        "left_s": 1380.5,
        "usd_at_end": 2.24,
        "driven": {
            "done": 412,
            "expected": 1104,
            "level": 1,
            "documents_done": 3,
            "documents": 12,
            "prompt_tokens_per_s": 2800.0,
            "output_tokens_per_s": 140.0,
            "running": 14.0,
            "waiting": 0.0,
            "kv_usage": 0.93,
            "usd": 0.81,
            "unit": "document",
        },
        "rates": {
            "from": "engine",
            "until": at(1),
            "prompt_tokens_per_s": [1000.0, 2000.0, 3221.0, 2911.0, 2911.0, 2911.0, 2911.0, 2911.0],
            "output_tokens_per_s": [50.0, 100.0, 157.0, 151.0, 151.0, 151.0, 151.0, 151.0],
        },
        "samples": {
            "machine": {
                "at": at(800),
                "source": "machine",
                "hostname": "pod",
                "cpus": 32,
                "ram_total_mib": 131072,
                "gpus": [
                    {
                        "index": i,
                        "uuid": f"GPU-{i}",
                        "name": "A100 PCIe",
                        "memory_total_mib": 81920,
                        "power_limit_w": 300,
                    }
                    for i in range(2)
                ],
            },
            "host": {
                "at": at(1),
                "source": "host",
                "cpu": 0.25,
                "load_1m": 4.5,
                "ram_used_mib": 65536,
                "gpus": [
                    {
                        "index": i,
                        "utilization": 0.92 - i / 100,
                        "memory_used_mib": 73728,
                        "power_w": 250.0,
                        "temperature_c": 67.0,
                        "throttle": ["sw_power_cap"] if i else [],
                    }
                    for i in range(2)
                ],
            },
        },
        "lost_gpus": [],
        "warnings": [],
        **changes,
    }


def lease(provider: str = "runpod", run_id: str = RUN, **changes: Any) -> Machine:
    """A machine that has billed for ten minutes."""
    made = Lease(
        provider=provider,
        name=f"recipe-ana-{run_id}",
        run_id=run_id,
        id="k3j9",
        price_usd_per_h=3.6,
        deadline=datetime(2026, 11, 21, 16, 12, tzinfo=UTC),
        details={},
    )
    return Machine(
        **{"lease": made, "client": "gone", "state": "reached", "since": NOW - timedelta(minutes=10), **changes}
    )


def found(**changes: Any) -> Found:
    known = {"run_id": RUN, "recipe": "2xA100-airoboros-70b", "started_at": NOW - timedelta(seconds=822), "lives": True}
    return Found(**{**known, "pid": 4711, "live": live(), **changes})


def ended(**changes: Any) -> Ended:
    known = {"run_id": "local-smoke-20261121-055000-aaaa", "recipe": "local-smoke", "status": "completed"}
    when = NOW - timedelta(seconds=120)
    return Ended(**{**known, "ended_at": when, "exit_code": 0, "seconds": 52.0, "usd": 0.02, **changes})


def state(*runs: Found, **changes: Any) -> State:
    return State(**{"at": NOW, "home": "/home/ana/.recipe", "found": runs, **changes})
