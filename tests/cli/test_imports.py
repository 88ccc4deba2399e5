"""What commands import: start-up is part of every run, and most of a short one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from tests.emulators.pulumi import pulumi_on_path
from tests.emulators.slots import SlotsDouble, slots_double
from tests.emulators.slots_engine import MODEL

ROOT = Path(__file__).parents[2]
TOKENIZER = ROOT / "recipes" / "models" / "lead" / "tokenizer.json"
FOREIGN = {
    *(
        "pulumi",
        "grpc",
        "runpod",
        "openai",
        "huggingface_hub",
        "fabric",
        "paramiko",
        "aiohttp",
        "httpx",
        "transformers",
    ),
    *("plotly", "pynvml", "prometheus_client", "mlflow", "wandb", "pyarrow"),
}
"""What no plain run needs."""
OTHERS = {
    *("runners.comparing", "runners.exporting", "runners.importing", "runners.ongoing", "runners.watch_page"),
    *("runners.reporting.several", "runners.metrics.server", "runners.metrics.exposed", "runners.modelfacts.hub"),
}
"""What is other commands' own."""


@pytest.fixture(scope="module")
def double() -> Iterator[SlotsDouble]:
    with slots_double("--zero", "--tokens", "20") as found:
        yield found


def imported(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> set[str]:
    """By a command, run to its end."""
    code = "import sys, json; from runners.cli import main\n"
    code += "try: code = main(sys.argv[1:])\nexcept SystemExit as end: code = end.code\n"
    code += "print('\\n' + json.dumps([code, *sys.modules]))"
    places = {"RECIPE_HOME": str(folder / "home"), "XDG_CACHE_HOME": str(folder / "cache")}
    env = {"PATH": "/usr/bin:/bin", **places, **(env or {})}
    argv = [sys.executable, "-c", code, *arguments]
    ended = subprocess.run(argv, cwd=folder, env={**env, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert ended.stdout, ended.stderr
    code_and_modules = json.loads(ended.stdout.splitlines()[-1])
    assert code_and_modules[0] == 0, ended.stderr
    return set(code_and_modules[1:])


def test_a_plain_run_imports_nothing_that_only_others_need(double: SlotsDouble, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("A lighthouse is told of. A train comes. " * 20)
    workload = {"inputs": ["text.txt"], "prompt": "builtin:summarize", "tokenizer": str(TOKENIZER)}
    engine = {"name": "openai", "url": f"{double.url}/v1"}
    document = {"name": "plain", "model": {"repo": MODEL}, "engine": engine, "workload": workload}
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(document))
    found = imported(tmp_path, "up", "plain.yaml")
    assert "runners.reporting.single" in found, "its page is written"
    assert not found & (FOREIGN | OTHERS)


def test_a_plan_imports_no_page(tmp_path: Path) -> None:
    assert not imported(tmp_path, "plan", "local-smoke") & (FOREIGN | OTHERS | {"jinja2", "runners.reporting.page"})


def test_who_watches_imports_nothing_of_what_makes_a_run(tmp_path: Path) -> None:
    found = imported(tmp_path, "watch", "--json")
    assert not found & (
        FOREIGN | {"pydantic", "yaml", "asyncio", "jinja2", "rich.live", "runners.plan", "recipes.spec"}
    )


def test_help_imports_nothing_but_the_command(tmp_path: Path) -> None:
    for words in (["--help"], ["stack", "--help"]):
        found = imported(tmp_path, *words)
        assert not found & (FOREIGN | OTHERS | {"pydantic", "yaml", "stacks.automation"})


@pytest.mark.real
def test_who_only_asks_for_stacks_does_without_pulumis_sdk(tmp_path: Path) -> None:
    engine = pulumi_on_path(tmp_path / "pulumi")
    found = imported(tmp_path, "stack", "list", env={"PATH": engine["PATH"]})
    assert "stacks.automation" in found
    assert not found & {"pulumi", "grpc"}
