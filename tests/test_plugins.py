"""The contract, over every plug-in that is found."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Provisioner, Site
from runners import registry
from runners.engine import Engine
from runners.workload import Workload

INSTALLED = registry.installed()
ROOT = Path(__file__).parents[1]
PACKAGES = ("recipes", "provisioners", "runners", "stacks")


@pytest.mark.parametrize("name", INSTALLED.provisioners)
def test_a_provisioner_has_every_method_of_the_contract(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(registry, "site", lambda: Site(home=tmp_path, cache=tmp_path))
    made = registry.provisioner(name)
    assert made.name == name
    assert isinstance(made.billable, bool)
    assert isinstance(made.at_once, bool)
    assert isinstance(made.secrets, tuple)
    for method in ("offers", "create", "observe", "host", "destroy", "owned", "bill"):
        promised, given = getattr(Provisioner, method), getattr(made, method)
        assert inspect.iscoroutinefunction(given), method
        assert list(inspect.signature(given).parameters) == list(inspect.signature(promised).parameters)[1:], method


@pytest.mark.parametrize("name", INSTALLED.workloads)
def test_a_workload_is_one(name: str) -> None:
    made = registry.workload(name)
    assert isinstance(made, Workload)
    assert made.name == name


@pytest.mark.parametrize("name", INSTALLED.engines)
def test_an_engine_is_one(name: str) -> None:
    made = registry.engine(name)
    assert isinstance(made, Engine)
    assert made.name == name
    assert made.model_form in ("gguf", "folder", "none")


PLUGIN_FOLDERS = ("provisioners.providers", "runners.engines", "runners.workloads", "runners.exporting.targets")


@pytest.mark.parametrize("package", PACKAGES)
def test_no_plugin_is_imported_by_name(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        here = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if here.startswith(PLUGIN_FOLDERS):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [n for n in names if n.startswith(tuple(f"{folder}." for folder in PLUGIN_FOLDERS))], path


FORECAST = (
    *sorted((ROOT / "runners/forecast").glob("*.py")),
    ROOT / "runners/pace.py",
    ROOT / "provisioners/phase_times.py",
)


@pytest.mark.parametrize("path", FORECAST, ids=lambda path: path.name)
def test_a_forecast_is_made_without_knowing_any_plugin(path: Path) -> None:
    """Engines and provisioners say their own pace; the core of the forecast names none of them."""
    names = {*INSTALLED.engines, *INSTALLED.provisioners}
    words = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
    assert not names & {word for word in words if isinstance(word, str)}


def test_the_wheel_holds_the_four_packages_and_their_data(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("gpu_recipe-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == set(PACKAGES)
    for needed in (
        "recipes/local-smoke.yaml",
        "recipes/models/lead/lead.gguf",
        "runners/onhost/vllm_cpu_overrides.txt",
        "provisioners/onhost/bootstrap.sh",
        "provisioners/onhost/switch.sh",
    ):
        assert needed in names


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_is_longer_than_four_hundred_lines(package: str) -> None:
    assert [p for p in (ROOT / package).rglob("*.py") if len(p.read_text().splitlines()) > 400] == []
