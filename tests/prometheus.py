"""Real Prometheus for tests: `with prometheus(config, data) as server:`; skips where it is not installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from tests.conftest import eventually

installed = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="Prometheus is not installed; apt-get install prometheus",
)
_LISTENS = re.compile(r"Listening on\" address=127\.0\.0\.1:(\d+)")


@dataclass
class Prometheus:
    url: str

    def ask(self, what: str, **parameters: Any) -> Any:
        """The data of an API call. Fails with Prometheus' own words."""
        url = f"{self.url}/api/v1/{what}?{urlencode(parameters, doseq=True)}"
        try:
            with urlopen(url, timeout=30) as response:
                return json.load(response)["data"]
        except HTTPError as error:
            pytest.fail(f"{parameters}: {json.load(error)['error']}")

    def value(self, query: str, at: float | None = None) -> float | None:
        """Of a query with one result; None if it has none."""
        found = self.ask("query", query=query, **({} if at is None else {"time": at}))["result"]
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def curve(self, query: str, begin: float, end: float, step: float = 1) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("query_range", query=query, start=begin, end=end, step=step)["result"]
        return found


@contextmanager
def prometheus(config: Path, data: Path, *options: str) -> Iterator[Prometheus]:
    """A server on a free port of loopback, with this configuration, ready; its data outlives it."""
    log = data.with_name(f"{data.name}.log")
    argv = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=1y",
        "--web.listen-address=127.0.0.1:0",
        *options,
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output)
    try:
        port = eventually(lambda: _LISTENS.search(log.read_text()), seconds=30, what="Prometheus' start")[1]
        server = Prometheus(f"http://127.0.0.1:{port}")
        eventually(lambda: _ready(server.url), seconds=30, what="Prometheus' readiness")
        yield server
    finally:
        process.terminate()
        process.wait(30)


def _ready(url: str) -> bool:
    try:
        with urlopen(f"{url}/-/ready", timeout=5):
            return True
    except (URLError, OSError):
        return False


def promtool(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], input=stdin, capture_output=True, text=True, timeout=120)


def queries(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Of a dashboard's panels, those in rows as well: the title and each expression as Grafana would send it."""
    for panel in dashboard["panels"]:
        for inner in panel.get("panels", ()):
            yield from queries({"panels": [inner]})
        for target in panel.get("targets", ()):
            expression = re.sub(r"\$\{?run\}?", ".+", target["expr"].replace("$__rate_interval", "4s"))
            assert "$" not in expression, f"{panel['title']}: a variable that the test does not know: {expression}"
            yield panel["title"], expression


def empty_panels(
    server: Prometheus, dashboard: dict[str, Any], *, seconds: float = 15, end: float | None = None
) -> list[str]:
    """The panels of which a query has no value in the seconds before a moment, or now."""
    end = end or time.time()
    return [
        f"{title}: {query}"
        for title, query in queries(dashboard)
        if not any(value != "NaN" for curve in server.curve(query, end - seconds, end) for _, value in curve["values"])
    ]
