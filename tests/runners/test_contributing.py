"""The worked example of CONTRIBUTING.md works: one file and one case file make an engine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import runners.engines
from runners import registry
from tests.runners.test_engines import check_case, check_contract, read_cases

PAGE = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()


def block_after(path: str) -> str:
    """The code block that the page shows as this file."""
    match = re.search(rf"`{re.escape(path)}`:\n\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert match, f"CONTRIBUTING.md shows no {path}"
    return match[1]


def test_the_example_engine_is_found_and_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines" / "acme.py").write_text(block_after("runners/engines/acme.py"))
    cases = tmp_path / "acme.py"
    cases.write_text(block_after("tests/runners/engine_cases/acme.py"))
    monkeypatch.setattr(runners.engines, "__path__", [*runners.engines.__path__, str(tmp_path / "engines")])

    assert "acme" in registry.installed().engines
    engine = registry.engine("acme")
    check_contract("acme", engine)
    found = read_cases(cases)
    assert len(found) >= 4
    for kind, case in found:
        check_case(engine, kind, case)
