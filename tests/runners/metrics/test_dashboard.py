"""The dashboard as Grafana's own types have it, and what of it must hold without a Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from provisioners.site import recipe_cache
from runners.metrics.dashboard import dashboard, rows
from runners.metrics.families import FAMILIES

SCHEMA, TYPESCRIPT = "@grafana/schema@12.0.2", "typescript@5.8.3"


def test_it_is_the_same_each_time() -> None:
    assert json.dumps(dashboard()) == json.dumps(dashboard())


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_queries_name_only_series_that_exist() -> None:
    known = {family.sample_name for family in FAMILIES if family.kind != "histogram"}
    known |= {f"{family.name}_bucket" for family in FAMILIES if family.kind == "histogram"}
    for row in rows():
        for panel in row.panels:
            for query in panel.queries:
                named = set(re.findall(r"([A-Za-z_:][\w:]*)\{", query.expression))
                assert named, query
                own = {name for name in named if not name.startswith("vllm:")}
                assert own <= known, f"{panel.title}: {own - known}"
                assert (row.title == "vLLM's own") == (not own), panel.title


@pytest.mark.real
def test_grafanas_types_accept_it() -> None:
    """npm fetches the types once; the test is left out where it can't."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if not npm or not node:
        pytest.skip("npm is not installed: the dashboard is NOT checked against Grafana's types")
    folder = recipe_cache() / "tests/grafana-schema-12.0.2"
    compiler = folder / "node_modules/typescript/lib/tsc.js"
    if not compiler.exists():
        _install(npm, folder)
    with TemporaryDirectory(dir=folder) as own:  # others may check theirs at the same time
        source = Path(own) / "dashboard.ts"
        checked = _check(node, compiler, source, json.dumps(dashboard()))
        assert checked.returncode == 0, checked.stdout
        misspelt = json.dumps(dashboard()).replace('"graphTooltip"', '"grafTooltip"')
        assert _check(node, compiler, source, misspelt).returncode != 0, "the check finds what is wrong"


def _install(npm: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
    try:
        made = subprocess.run([*install, SCHEMA, TYPESCRIPT], capture_output=True, text=True, timeout=240, cwd=folder)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm takes too long for {SCHEMA}: the dashboard is NOT checked against Grafana's types")
    if made.returncode != 0:
        pytest.skip(f"npm has no {SCHEMA}: the dashboard is NOT checked against Grafana's types: {made.stderr[-300:]}")


def _check(node: str, compiler: Path, source: Path, text: str) -> subprocess.CompletedProcess[str]:
    source.write_text(f"import type {{ Dashboard }} from '@grafana/schema';\nexport const d: Dashboard = {text};\n")
    options = ["--noEmit", "--strict", "--skipLibCheck", "--moduleResolution", "node16", "--module", "node16"]
    return subprocess.run(
        [node, str(compiler), *options, str(source)], capture_output=True, text=True, timeout=240, cwd=source.parent
    )
