"""The contract, over every plug-in that is found."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Provisioner, Site
from runners import registry
from runners.engine import Engine
from runners.workload import Workload

INSTALLED = registry.installed()


@pytest.mark.parametrize("name", INSTALLED.provisioners)
def test_a_provisioner_has_every_method_of_the_contract(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(registry, "site", lambda: Site(home=tmp_path, cache=tmp_path))
    made = registry.provisioner(name)
    assert made.name == name
    assert isinstance(made.billable, bool)
    for method in ("offers", "create", "host", "destroy"):
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


def test_only_the_four_packages_are_installed() -> None:
    pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert 'packages = ["recipes", "provisioners", "runners", "stacks"]' in pyproject


@pytest.mark.parametrize("package", ["recipes", "provisioners", "runners", "stacks"])
def test_no_module_is_longer_than_four_hundred_lines(package: str) -> None:
    root = Path(__file__).parents[1] / package
    assert [p for p in root.rglob("*.py") if len(p.read_text().splitlines()) > 400] == []
