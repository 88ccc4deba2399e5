"""A run that is told event by event, with everything that a metrics page can show: GPUs, engine, requests, phases."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from runners.clock import Clock
from runners.events import (
    Answered,
    Driven,
    Event,
    LeaseChanged,
    PageRead,
    PhaseEnded,
    PhaseStarted,
    RunEnded,
    RunStarted,
    Sampled,
    Warned,
)
from runners.metrics.exposed import ExposedRun
from runners.records import RequestRecord

GPU = {"index": 0, "uuid": "GPU-0f", "name": "NVIDIA A40", "memory_total_mib": 46068, "power_limit_w": 300.0}
_BOUNDS = (0.01, 0.1, 1.0)


def live(run_id: str = "sim-20261121-120000-abcd", metrics: Any = None) -> Any:
    """What ExposedRun needs of a LiveRun."""
    clock = Clock()
    clock.price_usd_per_h = 3.6
    return SimpleNamespace(
        clock=clock,
        folder=SimpleNamespace(run_id=run_id),
        plan=SimpleNamespace(
            recipe=SimpleNamespace(
                name="sim",
                limits=SimpleNamespace(max_cost=10.0),
                resources=SimpleNamespace(price_per_kwh=None),
                metrics=metrics,
            ),
            model=SimpleNamespace(identifier="tiny"),
            engine=SimpleNamespace(name="vllm"),
            engine_version="0.33.0",
            offer=SimpleNamespace(provider="runpod", accelerator="A40-48GB", count=1),
            estimate=SimpleNamespace(documents=100),
        ),
    )


class Simulated:
    """Drives an exposed run. Each `tick` is a tenth of a second's worth of events, at the time that it is."""

    def __init__(self, run: ExposedRun, run_id: str = "sim-20261121-120000-abcd") -> None:
        self._run_id, self._tell, self._done, self._random = run_id, run.heard, 0, random.Random(7)
        self._running = 0

    def begin(self) -> None:
        self._all(
            RunStarted(self._run_id, "sim", "/nowhere", 10.0, "2099-01-01T00:00:00+00:00"),
            PhaseEnded("plan", 0.1, None, True),
            PhaseStarted("provision"),
            LeaseChanged("lease", "intended"),
            PhaseEnded("provision", 0.1, 0.0001, True),
            PhaseStarted("drive"),
            Sampled(
                {
                    **self._row("machine"),
                    "hostname": "gpu-1",
                    "cpus": 16,
                    "ram_total_mib": 64000,
                    "disk_total_mib": 200000,
                    "gpus": [GPU],
                }
            ),
        )

    def tick(self) -> None:
        done = self._done
        self._running = self._random.randint(1, 8)
        for i in range(3):
            self._all(Answered(record(f"r{done + i}", status="failed" if (done + i) % 50 == 9 else "ok")))
        self._done += 3
        self._all(
            Sampled(self._host()),
            Sampled(self._engine()),
            PageRead(vllm_page(self._running, self._done)),
            Driven(self._done, 900, 1, self._done // 3, 100, 1.0, 1.0, 1.0, 0.0, 0.5, 0.1),
        )

    def end(self, status: str = "completed") -> None:
        self._all(
            PhaseEnded("drive", 5.0, 0.005, True),
            Warned("collect", "nothing was found"),
            PhaseStarted("release"),
            LeaseChanged("lease", "gone", "proven"),
            PhaseEnded("release", 0.1, 0.0001, True),
            RunEnded(self._run_id, status, 0),
        )

    def _all(self, *events: Event) -> None:
        for event in events:
            self._tell(event)

    def _row(self, source: str) -> dict[str, Any]:
        return {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "source": source}

    def _host(self) -> dict[str, Any]:
        gpu = {
            "index": 0,
            "utilization": 0.91,
            "memory_utilization": 0.4,
            "memory_used_mib": 40000,
            "power_w": 250.0,
            "energy_j": 1000.0 + self._done,
            "temperature_c": 61,
            "sm_mhz": 1740,
            "memory_mhz": 7250,
            "throttle": ["power"],
        }
        return {
            **self._row("host"),
            "cpu": 0.25,
            "load_1m": 3.5,
            "ram_used_mib": 32000,
            "disk_used_mib": 100000,
            "disk_free_mib": 100000,
            "disk_read_bytes": 1000 * self._done,
            "disk_written_bytes": 2000 * self._done,
            "net_received_bytes": 3000 * self._done,
            "net_sent_bytes": 4000 * self._done,
            "gpus": [gpu],
        }

    def _engine(self) -> dict[str, Any]:
        return {
            **self._row("engine"),
            "prompt_tokens_total": 100.0 * self._done,
            "output_tokens_total": 30.0 * self._done,
            "running": self._running,
            "waiting": 2,
            "kv_usage": 0.5,
            "preemptions_total": 1,
            "swapped": None,
        }


def record(
    name: str = "r", *, status: Any = "ok", e2e_s: float = 0.4, ttft_s: float = 0.08, **others: Any
) -> RequestRecord:
    """A request that has ended now."""
    began = datetime.now(UTC) - timedelta(seconds=e2e_s)
    given = {"prompt_tokens": 100, "output_tokens": 30, "tpot_s": 0.011, "started_at": began, "tries": 1, **others}
    return RequestRecord(id=name, document="d", level=1, index=0, status=status, ttft_s=ttft_s, e2e_s=e2e_s, **given)


def vllm_page(running: float, done: int) -> str:
    """What vLLM writes, as far as the dashboard has it."""
    labels = 'engine="0",model_name="tiny"'
    lines = []
    for name, kind, value in (
        ("num_requests_running", "gauge", running),
        ("num_requests_waiting", "gauge", 2),
        ("kv_cache_usage_perc", "gauge", 0.5),
        ("num_preemptions_total", "counter", 1),
        ("prompt_tokens_total", "counter", 100 * done),
        ("generation_tokens_total", "counter", 30 * done),
        ("prefix_cache_queries_total", "counter", 100 * done),
        ("prefix_cache_hits_total", "counter", 40 * done),
    ):
        lines += [f"# HELP vllm:{name} As vLLM says.", f"# TYPE vllm:{name} {kind}", f"vllm:{name}{{{labels}}} {value}"]
    for name in ("time_to_first_token_seconds", "inter_token_latency_seconds"):
        lines += [f"# HELP vllm:{name} As vLLM says.", f"# TYPE vllm:{name} histogram"]
        for bound in (*_BOUNDS, "+Inf"):
            lines.append(f'vllm:{name}_bucket{{{labels},le="{bound}"}} {done}')
        lines += [f"vllm:{name}_count{{{labels}}} {done}", f"vllm:{name}_sum{{{labels}}} {done * 0.009}"]
    process = "# HELP python_info Not about the engine.\n# TYPE python_info gauge\npython_info 1\n"
    return "\n".join(lines) + "\n" + process


def simulate(run: Simulated, seconds: float) -> None:
    """Let it work for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        run.tick()
        time.sleep(0.1)
