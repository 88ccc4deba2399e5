"""The whole drive on the slots double: its slots are found, kept full, and followed when they change."""

from __future__ import annotations

import asyncio
import json
import statistics
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from provisioners.masking import Mask
from runners.client import Endpoint, open_transport
from runners.drive import Measured, drive
from runners.engine import EngineSample
from runners.engines.llamacpp import PLUGIN as LLAMACPP
from runners.engines.openai import PLUGIN as ENDPOINT
from runners.launch import Running
from runners.run_folder import RunFolder
from runners.telemetry import EngineLog, Page, TelemetryFile
from tests.emulators.drives import plan_over, prose
from tests.emulators.slots import slots_double

pytestmark = pytest.mark.skipif(not Path("/proc/self").exists(), reason="the double's clock is the client's on Linux")


def driven(folder: Path, chunks: int, *behaviour: str, **workload: Any) -> tuple[Measured, list[dict[str, Any]]]:
    """One document of about so many chunks; what was measured, and what the engine saw."""
    settings = {"chunk_size": 160, "max_tokens": 40, "concurrency": "auto", **workload}
    runs, measured = RunFolder.create(folder / "home", "test"), Measured()

    async def main(url: str) -> None:
        plan = plan_over(folder, {"a": prose("a", 6 * chunks).replace(". ", ".\n")}, url=f"{url}/v1", workload=settings)
        log = EngineLog(runs.path / "engine.log", plan.engine, Mask())
        async with open_transport() as transport:
            running = Running(Endpoint(url, "double"), None, log, plan)
            await drive(
                plan,
                running,
                transport,
                runs,
                measured,
                lambda _: None,
                lambda: None,
                TelemetryFile(runs.path / "telemetry.jsonl"),
            )
        log.close()

    with slots_double("--ttft", "0.2", "--per-token", "0.02", "--tokens", "8", *behaviour) as double:
        asyncio.run(main(double.url))
        rows = double.requests()
    told = runs.path / "telemetry.jsonl"
    (folder / told.name).write_bytes(told.read_bytes() if told.exists() else b"")
    return measured, rows


def busy_s(rows: list[dict[str, Any]], slots: int, begin: float, end: float) -> float:
    """Seconds of that time in which so many requests ran."""
    steps = sorted([(r["admitted_s"], 1) for r in rows] + [(r["last_sent_s"], -1) for r in rows])
    counts = accumulate(change for _, change in steps)
    moments = [moment for moment, _ in steps]
    return sum(
        max(0.0, min(after, end) - max(moment, begin))
        for moment, after, count in zip(moments, moments[1:], counts, strict=False)
        if count >= slots
    )


def usually_busy(rows: list[dict[str, Any]], slots: int, begin: float, end: float) -> float:
    """The share of a twentieth of that time in which so many ran, the middle one of all.

    Of the whole time a client that gets no CPU for a second loses a fifth.
    """
    step = (end - begin) / 20
    return statistics.median(busy_s(rows, slots, begin + i * step, begin + (i + 1) * step) / step for i in range(20))


@pytest.mark.parametrize("form", ["vllm", "llamacpp"])
def test_an_endpoints_slots_are_found_and_kept_full(tmp_path: Path, form: str) -> None:
    measured, rows = driven(tmp_path, 150, "--slots", "12", "--metrics", form)
    assert measured.concurrency is not None
    assert measured.concurrency["engine_slots"] == 12
    assert 12 < measured.concurrency["limit_at_end"] <= 16
    begun = sorted(row["admitted_s"] for row in rows)
    chunks = sum(record.level == 1 for record in measured.records)
    assert usually_busy(rows, 12, begun[0], begun[chunks - 1]) >= 0.7  # 0.99 on a machine that has time for it
    told = [json.loads(line) for line in (tmp_path / "telemetry.jsonl").read_text().splitlines()]
    assert len(told) <= 4 + measured_s(rows)  # more looks steer than are written
    assert max(row["running"] for row in told if row["source"] == "engine") == 12


def measured_s(rows: list[dict[str, Any]]) -> float:
    return float(max(row["last_sent_s"] for row in rows) - rows[0]["arrived_s"])


def test_slots_that_shrink_are_followed(tmp_path: Path) -> None:
    measured, rows = driven(tmp_path, 250, "--slots", "24", "--slots-at", "2:6")
    assert measured.concurrency is not None
    assert measured.concurrency["limit_at_end"] <= 9
    shrunk = rows[0]["arrived_s"] + 2
    late = [row for row in rows if row["arrived_s"] > shrunk + 4]
    assert late
    waited = statistics.median(row["admitted_s"] - row["arrived_s"] for row in late)
    took = statistics.median(row["last_sent_s"] - row["admitted_s"] for row in late)
    assert waited < 1.5 * took  # two or three are in the queue of six slots; it was ten and more


def test_an_endpoint_without_metrics_is_judged_by_its_answers(tmp_path: Path) -> None:
    measured, rows = driven(tmp_path, 150, "--slots", "6", "--metrics", "none")
    assert measured.concurrency is not None
    assert measured.concurrency["found_from"] == "answers"
    assert 6 <= measured.concurrency["limit_at_end"] <= 14
    assert all(row["status"] == "done" for row in rows)


def test_a_fixed_number_is_never_exceeded(tmp_path: Path) -> None:
    _, rows = driven(tmp_path, 60, "--slots", "24", concurrency=5)
    steps = sorted([(r["arrived_s"], 1) for r in rows] + [(r["last_sent_s"], -1) for r in rows])
    assert max(accumulate(change for _, change in steps)) == 5


VLLM = 'vllm:prompt_tokens_total{engine="0"} 1\nvllm:num_requests_running 3\nvllm:num_requests_waiting 1\n'


def test_an_endpoints_page_is_read_by_whoever_knows_it() -> None:
    page = Page(ENDPOINT)
    sample = page.read(200, VLLM)
    assert sample is not None
    assert (sample.running, sample.waiting) == (3, 1)
    assert page.read(200, "not this one") is None
    assert page.path == "/metrics"


@pytest.mark.parametrize(("status", "text"), [(404, "Not Found"), (200, "<html>"), (401, VLLM)])
def test_an_endpoint_that_has_no_metrics_is_soon_left_in_peace(status: int, text: str) -> None:
    page = Page(ENDPOINT)
    asked = 0
    while page.path is not None:
        asked += 1
        assert page.read(status, text) is None
        assert asked < 10


def test_an_engines_own_page_is_read_by_itself_alone() -> None:
    page = Page(LLAMACPP)
    for _ in range(10):
        assert page.read(200, VLLM) is None
    assert page.path == "/metrics"
    assert page.read(200, "llamacpp:prompt_tokens_total 4\n") == EngineSample(prompt_tokens_total=4)
