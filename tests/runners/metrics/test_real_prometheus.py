"""Real Prometheus: scrapes a page, answers every panel of the dashboard, and takes a finished run in."""

from __future__ import annotations

import json
import statistics
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from runners.metrics.dashboard import dashboard
from runners.metrics.exposed import ExposedRun
from runners.metrics.server import MetricsPage
from runners.metrics.stack import lookback, write
from runners.metrics.targets import announced
from tests.conftest import Command, eventually
from tests.emulators.nvml import gpus
from tests.emulators.slots import slots_double
from tests.prometheus import Prometheus, empty_panels, installed, prometheus, promtool
from tests.runners.metrics.simulated import Simulated, live, simulate

pytestmark = [pytest.mark.real, installed]
TOKENIZER = Path(__file__).parents[3] / "recipes/models/lead/tokenizer.json"
LOAD = """\
name: load
resources: {provisioner: local, price_per_hour: 0.5}
model: {repo: double}
engine: {name: openai, url: URL}
workload:
  name: load
  tokenizer: TOKENIZER
  traffic: {synthetic: {input_tokens: 100, output_tokens: 32}, concurrency: [4], duration: 20s}
limits: {max_cost: 1, max_duration: 30m}
"""
ONLY_OF_VLLM = ("vLLM: prefix", "vLLM: time", "vLLM: inter")
"""What the engine's double does not say."""


def test_every_panel_of_a_run_with_gpus_on_vllm_has_data(tmp_path: Path) -> None:
    page = MetricsPage("127.0.0.1", 0)
    run = ExposedRun(live())
    page.runs.append(run)
    folder = write(tmp_path / "stack", tmp_path / "home", interval_s=1)
    checked = promtool("check", "config", str(folder / "prometheus.yml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    simulated = Simulated(run)
    simulated.begin()
    with (
        announced(tmp_path / "home", [page.target]),
        prometheus(folder / "prometheus.yml", tmp_path / "data") as server,
    ):
        # What is asked for are rates over several scrapes.
        eventually(lambda: simulate(simulated, 1) or not empty_panels(server, dashboard(), seconds=8), seconds=120)
        names = server.ask("label/__name__/values")
        assert "vllm:num_requests_running" in names
        assert not [name for name in names if name.startswith(("vllm_", "python_"))]
        simulated.end()
        eventually(lambda: server.value("sum(recipe_run_outcome)") == 1, what="the last scrape")
        assert server.value("sum(gpu_utilization) or vector(0)") == 0, "a GPU that was let go has no utilization"
        assert server.value('recipe_requests_total{status="ok"}'), "what was counted stays"
    page.close()


def test_a_run_is_scraped_and_afterwards_backfilled_the_same(recipe: Command, tmp_path: Path) -> None:
    folder = write(tmp_path / "stack", recipe.home, interval_s=1)
    (recipe.cwd / "load.yaml").write_text(LOAD.replace("TOKENIZER", str(TOKENIZER)))
    answering = ("--slots", "4", "--ttft", "0.1", "--per-token", "0.01", "--tokens", "32", "--spread", "0.5")
    panels = _without(*ONLY_OF_VLLM)
    with prometheus(folder / "prometheus.yml", tmp_path / "data") as server:
        with slots_double(*answering, "--metrics", "vllm") as double:
            argv = ["up", "load.yaml", "--set", f"engine.url={double.url}/v1", "--metrics-port", "0", "--json"]
            up = recipe.start(*argv, env=gpus(tmp_path / "nvml").environment(2))
            eventually(lambda: _filled(server, panels), seconds=120, what="data in every panel")
            out, err = up.communicate(timeout=120)
        assert up.returncode == 0, err
        (result,) = json.loads(out)["runs"]
        live_end = _sums(server, result)
    assert live_end == pytest.approx(_sums_of(result)), "Prometheus saw the last figures"
    assert f"metrics: http://127.0.0.1:{_port(err)}/metrics" in err
    assert list((recipe.home / "metrics/targets").iterdir()) == []

    text = recipe("metrics", result["run_id"], "--openmetrics").stdout
    (tmp_path / "run.om").write_text(text)
    made = promtool("tsdb", "create-blocks-from", "openmetrics", str(tmp_path / "run.om"), str(tmp_path / "later"))
    assert made.returncode == 0, made.stdout + made.stderr
    (tmp_path / "empty.yml").write_text("scrape_configs: []\n")
    with (
        prometheus(tmp_path / "empty.yml", tmp_path / "later", lookback(1)) as later,
        _again(folder, tmp_path) as server,
    ):
        assert _sums(later, result) == pytest.approx(_sums_of(result))
        assert empty_panels(later, panels, seconds=8, end=_end(result) - 2) == []
        _same_curves(server, later, result)


def _filled(server: Prometheus, panels: dict[str, Any]) -> bool:
    """Asked once a second: what is asked for are rates over several scrapes."""
    time.sleep(1)
    return not empty_panels(server, panels, seconds=7)


def _without(*titles: str) -> dict[str, Any]:
    whole = dashboard()
    return {**whole, "panels": [p for p in whole["panels"] if not p["title"].startswith(titles)]}


def _port(err: str) -> str:
    return err.partition("http://127.0.0.1:")[2].partition("/")[0]


def _again(folder: Path, tmp_path: Path) -> Any:
    return prometheus(folder / "prometheus.yml", tmp_path / "data")


QUERIES = {
    "ok": 'recipe_requests_total{status="ok"}',
    "prompt": "recipe_prompt_tokens_total",
    "output": "recipe_output_tokens_total",
    "usd": "recipe_cost_usd",
    "answers": "recipe_time_to_first_token_seconds_count",
    "documents": "recipe_documents_done",
    "drive": 'recipe_phase_seconds_total{phase="drive"}',
}


def _sums(server: Prometheus, result: dict[str, Any]) -> dict[str, float | None]:
    """The last values of the run."""
    return {name: server.value(f"last_over_time({query}[5m])", _end(result) + 20) for name, query in QUERIES.items()}


def _sums_of(result: dict[str, Any]) -> dict[str, float]:
    (drive,) = (phase["seconds"] for phase in result["phases"] if phase["name"] == "drive")
    return {
        "ok": result["requests"]["ok"],
        "prompt": result["throughput"]["prompt_tokens"],
        "output": result["throughput"]["output_tokens"],
        "usd": result["cost"]["total_usd"],
        "answers": result["requests"]["ok"],
        "documents": result["documents"]["done"],
        "drive": drive,
    }


def _end(result: dict[str, Any]) -> float:
    return datetime.fromisoformat(result["ended_at"]).timestamp()


def _same_curves(server: Prometheus, later: Prometheus, result: dict[str, Any]) -> None:
    """In the middle of the run both say the same: rates and quantiles within what the moments of scrapes differ by."""
    end = _end(result)
    for query in (
        "sum(rate(recipe_output_tokens_total[5s]))",
        "sum(rate(recipe_engine_output_tokens_total[5s]))",
        "histogram_quantile(0.5, sum by (le) (rate(recipe_e2e_request_latency_seconds_bucket[5s])))",
        "histogram_quantile(0.9, sum by (le) (rate(recipe_time_to_first_token_seconds_bucket[5s])))",
        "sum(rate(vllm:generation_tokens_total[5s]))",
        "max(vllm:num_requests_running)",
        "max(recipe_cost_usd)",
        "count(gpu_utilization)",
        "min(gpu_memory_total)",
        "sum(recipe_host_memory_bytes)",
    ):
        # Not at one moment: a scrape that comes late moves a rate over five seconds by more than that.
        usual, usual_later = (statistics.median(_values(one, query, end - 9, end - 3)) for one in (server, later))
        assert usual_later == pytest.approx(usual, rel=0.3), query
    assert _series(later, end - 4) == _series(server, end - 4)


def _values(server: Prometheus, query: str, begin: float, end: float) -> list[float]:
    (curve,) = server.curve(query, begin, end)
    return [float(value) for _, value in curve["values"]]


def _series(server: Prometheus, at: float) -> set[frozenset[tuple[str, str]]]:
    """Everything that has a value at a moment, without what Prometheus adds to what it scrapes."""
    found = server.ask("query", query='{run_id!=""}', time=at)["result"]
    return {frozenset((k, v) for k, v in s["metric"].items() if k not in ("job", "instance")) for s in found}
