"""What Prometheus and Grafana need to show runs: their configuration, and a compose file that starts both."""

from __future__ import annotations

import json
import os
from pathlib import Path

from recipes.errors import UsageError
from runners.metrics.dashboard import dashboard
from runners.metrics.targets import FOLDER

PROMETHEUS_IMAGE = "prom/prometheus:v3.5.0"
GRAFANA_IMAGE = "grafana/grafana:12.0.2"
_MADE = "# Made by recipe metrics --write; made anew, it is overwritten.\n"
_DATA = ("data/prometheus", "data/grafana")


def write(folder: Path, home: Path, *, interval_s: float) -> Path:
    """All files; returns the folder's whole path. What is in it besides stays. Raises UsageError."""
    folder = folder.expanduser().resolve()
    try:
        for path in (home / FOLDER, folder / "engines", *(folder / name for name in _DATA)):
            path.mkdir(parents=True, exist_ok=True)
        for name, text in files(folder, home, interval_s).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}", advice="name a folder that can be written") from error
    return folder


def files(folder: Path, home: Path, interval_s: float) -> dict[str, str]:
    """Each file's text by its path in the folder."""
    return {
        "prometheus.yml": _prometheus(folder, home / FOLDER, interval_s),
        "grafana/provisioning/datasources/recipe.yaml": _datasource(interval_s),
        "grafana/provisioning/dashboards/recipe.yaml": _provider(folder),
        "grafana/dashboards/recipe-runs.json": json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n",
        "compose.yaml": _compose(folder, home / FOLDER, interval_s),
    }


def _prometheus(folder: Path, targets: Path, interval_s: float) -> str:
    return f"""{_MADE}global:
  scrape_interval: {_duration(interval_s)}
  evaluation_interval: {_duration(interval_s)}
scrape_configs:
# Every recipe up --metrics-port on this machine, found by the file that it writes.
- job_name: recipe
  file_sd_configs:
  - files: [{json.dumps(f"{targets}/*.json")}]
    refresh_interval: 5s
{_RELABELLING}
# Engines that are scraped directly: put [{{"targets": ["127.0.0.1:8000"]}}] into a file there.
- job_name: engines
  file_sd_configs:
  - files: [{json.dumps(f"{folder}/engines/*.json")}]
{_RELABELLING}"""


_RELABELLING = """\
  # Newer client libraries answer Prometheus 2 with vllm_ for vllm:, and dashboards for vLLM stay empty.
  metric_relabel_configs:
  - source_labels: [__name__]
    regex: (vllm|sglang|llamacpp)_(.+)
    target_label: __name__
    replacement: ${1}:${2}
"""


def _datasource(interval_s: float) -> str:
    return f"""{_MADE}apiVersion: 1
datasources:
- name: recipe
  uid: recipe-prometheus
  type: prometheus
  access: proxy
  url: http://127.0.0.1:9090
  isDefault: true
  jsonData:
    timeInterval: {_duration(interval_s)}
"""


def _provider(folder: Path) -> str:
    return f"""{_MADE}apiVersion: 1
providers:
- name: recipe
  type: file
  updateIntervalSeconds: 30
  options:
    path: {json.dumps(f"{folder}/grafana/dashboards")}
"""


def lookback(interval_s: float) -> str:
    """For how long Prometheus shows a series after its last point, as its option: two scrapes may fail.

    A series that ends while it is scraped ends there at once. One that was backfilled has no such mark, since
    OpenMetrics has no word for it, and would be shown for another five minutes: a GPU that is lost, a run that is over.
    """
    return f"--query.lookback-delta={_duration(max(15.0, 3 * interval_s))}"


def _compose(folder: Path, targets: Path, interval_s: float) -> str:
    """Both see files under the same paths as here, and listen on this machine alone."""
    user = f"{os.getuid()}:{os.getgid()}"
    here, data = json.dumps(f"{folder}:{folder}:ro"), folder / "data"
    return f"""{_MADE}# docker compose -f {folder}/compose.yaml up -d, then http://127.0.0.1:3000
name: recipe-metrics
services:
  prometheus:
    image: {PROMETHEUS_IMAGE}
    user: "{user}"
    network_mode: host
    restart: unless-stopped
    command:
    - {json.dumps(f"--config.file={folder}/prometheus.yml")}
    - --storage.tsdb.path=/prometheus
    - --storage.tsdb.retention.time=1y
    - --web.listen-address=127.0.0.1:9090
    - {lookback(interval_s)}
    volumes:
    - {here}
    - {json.dumps(f"{targets}:{targets}:ro")}
    - {json.dumps(f"{data}/prometheus:/prometheus")}
  grafana:
    image: {GRAFANA_IMAGE}
    user: "{user}"
    network_mode: host
    restart: unless-stopped
    environment:
      GF_SERVER_HTTP_ADDR: 127.0.0.1
      GF_PATHS_PROVISIONING: {json.dumps(f"{folder}/grafana/provisioning")}
      GF_AUTH_ANONYMOUS_ENABLED: "true"
      GF_AUTH_ANONYMOUS_ORG_ROLE: Editor
      GF_ANALYTICS_REPORTING_ENABLED: "false"
      GF_ANALYTICS_CHECK_FOR_UPDATES: "false"
      GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES: "false"
      GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH: {json.dumps(f"{folder}/grafana/dashboards/recipe-runs.json")}
    volumes:
    - {here}
    - {json.dumps(f"{data}/grafana:/var/lib/grafana")}
    depends_on: [prometheus]
"""


def _duration(seconds: float) -> str:
    """As Prometheus writes it."""
    return f"{round(seconds)}s" if seconds == round(seconds) else f"{round(seconds * 1000)}ms"
