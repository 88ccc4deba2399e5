"""Several runs in a row: nothing begins before every plan has passed, and what still bills is never forgotten."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Finding, MayStillBill
from recipes.errors import Refused
from recipes.load import LoadedRecipe
from runners.cli import running
from runners.plan import Plan
from tests.conftest import RECIPE, Command
from tests.emulators.engine import EngineDouble
from tests.emulators.provisioner import COMMAND, ProvisionerDouble, Trouble, hang, plan_of, stumble

Planning = Callable[[LoadedRecipe, object], Awaitable[Plan]]


class Bench:
    """Runs recipes one after the other; `replanned` is what happens when a recipe is planned for its own run."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._patch = folder, monkeypatch
        self.provisioners = {name: ProvisionerDouble(at_once=False) for name in ("first", "second")}
        self.replanned: dict[str, Trouble] = {}
        self.findings: dict[str, list[Finding]] = {}
        monkeypatch.setenv("RECIPE_HOME", str(folder / "home"))

    def run(self, *names: str) -> int:
        async def run() -> int:
            async with asyncio.timeout(60), EngineDouble() as engine:
                plans = {name: self._plan(name, f"{engine.url}/v1") for name in names}
                self._patch.setattr(running, "make_plan", self._planning(plans))
                return await running.Runs(as_json=True, parallel=20).run_all(
                    tuple(plan.loaded for plan in plans.values())
                )

        return asyncio.run(run())

    def _plan(self, name: str, url: str) -> Plan:
        return plan_of(self.provisioners[name], self._folder, url, name=name, findings=self.findings.get(name, ()))

    def _planning(self, plans: dict[str, Plan]) -> Planning:
        planned: set[str] = set()

        async def make_plan(loaded: LoadedRecipe, _: object, **__: object) -> Plan:
            name = loaded.recipe.name
            if name in planned:
                await stumble(self.replanned.get(name))
            planned.add(name)
            return plans[name]

        return make_plan

    def bill_on(self, name: str) -> None:
        self.provisioners[name].release = MayStillBill("it is still listed", COMMAND)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(tmp_path, monkeypatch)


def results(capsys: pytest.CaptureFixture[str]) -> list[tuple[str, int]]:
    runs: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["runs"]
    return [(run["recipe"], run["exit_code"]) for run in runs]


def no_result(*_: object) -> None:
    raise OSError("no place for the result")


async def interrupted() -> None:
    signal.raise_signal(signal.SIGINT)
    await hang()


def test_all_that_pass_are_run(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.run("first", "second") == 0
    assert results(capsys) == [("first", 0), ("second", 0)]


def test_a_refused_plan_keeps_the_ones_before_it_from_running(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.findings["second"] = [Finding(level="block", code="context", message="does not fit")]
    assert bench.run("first", "second") == 3
    assert bench.provisioners["first"].calls == []
    assert results(capsys) == []


@pytest.mark.parametrize(
    ("trouble", "code"),
    [(Refused("sold out"), 3), (interrupted, 130), (ZeroDivisionError("a slip"), 1), (OSError("no disk"), 1)],
    ids=["refused", "interrupted", "bug", "os-error"],
)
@pytest.mark.parametrize("billing", [True, False])
def test_what_still_bills_outweighs_what_comes_after_it(
    bench: Bench, capsys: pytest.CaptureFixture[str], trouble: Trouble, code: int, *, billing: bool
) -> None:
    if billing:
        bench.bill_on("first")
    bench.replanned["second"] = trouble
    assert bench.run("first", "second") == (9 if billing else code)
    assert results(capsys) == [("first", 9 if billing else 0)]
    assert bench.provisioners["second"].calls == []


def test_a_result_that_cannot_be_written_does_not_hide_what_still_bills(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def without_result() -> None:
        monkeypatch.setattr("runners.session.build_result", no_result)

    bench.bill_on("first")
    bench.provisioners["second"].trouble["destroy"] = without_result
    assert bench.run("first", "second") == 9
    assert results(capsys) == [("first", 9)]


def test_a_machine_that_still_bills_without_a_result_outweighs_the_next_run(
    bench: Bench, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.bill_on("first")
    bench.replanned["second"] = interrupted
    monkeypatch.setattr("runners.session.build_result", no_result)
    assert bench.run("first", "second") == 9
    said = capsys.readouterr().err
    assert COMMAND in said
    assert "nothing was rented" not in said


def test_a_signal_while_one_runs_begins_no_other(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.provisioners["first"].trouble["ready_for"] = interrupted
    assert bench.run("first", "second") == 130
    assert results(capsys) == [("first", 130)]
    assert bench.provisioners["first"].calls[-1] == "destroy"
    assert bench.provisioners["second"].calls == []


@pytest.mark.real
@pytest.mark.parametrize("end", ["> >(exec true)", "--json > >(exec true)", "> /dev/full", "--json >&-"])
def test_a_failed_run_is_no_success_when_nobody_reads(recipe: Command, end: str) -> None:
    tokenizer = Path(__file__).parents[2] / "recipes" / "models" / "lead" / "tokenizer.json"
    engine = f"--set 'engine={{name: openai, url: http://127.0.0.1:9/v1}}' --set workload.tokenizer={tokenizer}"
    shell = f"{RECIPE} up local-smoke {engine} {end}"
    ended = subprocess.run(["bash", "-c", shell], env=recipe.environment(), cwd=recipe.cwd, capture_output=True)
    assert ended.returncode == 6, ended.stderr
    assert json.loads((recipe.run_folder() / "result.json").read_text())["exit_code"] == 6
