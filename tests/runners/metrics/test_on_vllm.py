"""Real vLLM and real Prometheus: its own series under its own names, and a panel for each that the dashboard has."""

from __future__ import annotations

import time
from pathlib import Path

from runners.metrics.dashboard import dashboard
from runners.metrics.stack import write
from tests.conftest import Command, eventually
from tests.prometheus import empty_panels, installed, prometheus
from tests.test_vllm import TEXTS
from tests.test_vllm import pytestmark as on_vllm

pytestmark = [*on_vllm, installed]


def test_vllms_series_keep_their_names_and_fill_the_dashboard(recipe: Command, tmp_path: Path) -> None:
    texts = [path.read_text() for path in sorted(TEXTS.glob("*.txt"))]
    (recipe.cwd / "long.txt").write_text("\n\n".join(texts * 24))
    folder = write(tmp_path / "stack", recipe.home, interval_s=1)
    with prometheus(folder / "prometheus.yml", tmp_path / "data") as server:
        up = recipe.start(
            "up", "local-vllm-smoke", "--set", "workload.inputs=[long.txt]", "--metrics-port", "0", "--json"
        )
        answered = 'sum(recipe_requests_total{status="ok"}) > 2'
        eventually(lambda: server.value(answered), seconds=1200, what="requests that were scraped")
        time.sleep(8)  # rates over several scrapes
        empty = empty_panels(server, _without_gpus(), seconds=8)
        out, err = up.communicate(timeout=600)
        assert up.returncode == 0, out + err
        assert empty == []
        names = server.ask("label/__name__/values")
        assert "vllm:e2e_request_latency_seconds_bucket" in names
        assert not [name for name in names if name.startswith(("vllm_", "python_", "process_"))]


def _without_gpus() -> dict[str, object]:
    whole = dashboard()
    return {**whole, "panels": [panel for panel in whole["panels"] if not panel["title"].startswith("GPU ")]}
