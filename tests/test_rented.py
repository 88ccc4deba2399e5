"""Rented machines, whole: real pods of an emulated RunPod, the real engine in them, and clients that die."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Site
from provisioners.site import recipe_cache
from tests.conftest import Command, send, whole_rows
from tests.emulators.hub import hub_emulator
from tests.emulators.runpod import SMALL, RunPod, emulated, smoke_image

pytestmark = pytest.mark.real
Wait = Callable[..., Any]
ROOT = Path(__file__).parents[1]
NOTICED_S = 10
"""That a pod is gone is known after two looks, two seconds apart, and later where the machine is slow."""
UP = ("up", "2xA100-airoboros-70b", *SMALL)
STEPS = [
    (step, when) for step in ("intend", "created", "reached", "releasing", "released") for when in ("before", "after")
]


@pytest.fixture(scope="session")
def image() -> Path:
    """The folder of programs of an image that ships the engine."""
    return asyncio.run(smoke_image(Site(home=Path("/nowhere"), cache=recipe_cache())))


@pytest.fixture
def runpod(tmp_path: Path, image: Path) -> Iterator[RunPod]:
    """When a test ends, nothing bills. What is waited for takes a third of the usual time: this RunPod is quick."""
    with emulated(tmp_path / "runpod", image=image, pace=0.3) as made:
        yield made
        assert made.billing == []


def result_of(recipe: Command) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((recipe.run_folder() / "result.json").read_text())
    return result


def lease_states(recipe: Command) -> list[str]:
    with sqlite3.connect(recipe.home / "ledger.db") as db:
        return [state for (state,) in db.execute("SELECT state FROM leases")]


def lines(recipe: Command, name: str) -> int:
    return sum(len(whole_rows(path)) for path in recipe.home.glob(f"runs/*/{name}"))


def phases_of(recipe: Command) -> list[str]:
    """The phases that have begun. Which of them is on may have changed before one looks again."""
    rows = [row for path in recipe.home.glob("runs/*/events.jsonl") for row in whole_rows(path)]
    return [row["phase"] for row in rows if row["event"] == "phase-started"]


def phase_of(recipe: Command) -> str | None:
    """The phase that is on; for the long ones."""
    return (phases_of(recipe) or [None])[-1]


def noticed_s(cost: Mapping[str, Any], pod: Mapping[str, Any]) -> float:
    """How long our count goes on after RunPod's: until the pod is seen to be gone."""
    return float(3600 * (cost["total_usd"] - pod["usd"]) / cost["price_usd_per_h"])


def test_the_catalogues_recipe_goes_the_whole_way(recipe: Command, runpod: RunPod) -> None:
    ended = recipe(*UP, env={**runpod.env, "RECIPE_RUNPOD_PACE": "1"})
    assert ended.returncode == 0, ended.stderr + ended.stdout
    (pod,) = runpod.ledger()
    assert (pod["billing"], pod["gpu"], pod["count"]) == (False, "NVIDIA A100 80GB PCIe", 2)
    assert runpod.creates() == {pod["name"]: [pod["id"]]}
    result = result_of(recipe)
    assert result["release"]["state"] == "gone"
    assert result["requests"]["failed"] == 0
    assert result["throughput"]["through"] == "ssh -L"
    assert result["lease"]["id"] == pod["id"]
    assert len(list((recipe.run_folder() / "outputs").glob("*.json"))) == 3
    assert result["cost"]["provider_usd"] == pytest.approx(pod["usd"], rel=0.05)
    cost = result["cost"]
    assert 0 <= noticed_s(cost, pod) < NOTICED_S
    assert cost["difference_usd"] == pytest.approx(cost["provider_usd"] - cost["total_usd"], abs=1e-6)
    by_their_count = pod["usd"] - pod["billed_s"] * pod["price_usd_per_h"] / 3600
    assert cost["storage_usd"] / cost["total_usd"] == pytest.approx(by_their_count / pod["usd"], rel=0.01)
    assert lease_states(recipe) == ["gone"]
    assert not (recipe.home / "leases").exists() or not list((recipe.home / "leases").iterdir())


def test_a_gated_model_is_downloaded_from_the_boot_on_and_its_token_stays_nowhere(
    recipe: Command, runpod: RunPod
) -> None:
    lead = ROOT / "recipes" / "models" / "lead"
    token = "hf_opens-the-gate-5e1c"
    with hub_emulator() as hub:
        hub.push("me/lead", {p.name: p.read_bytes() for p in lead.iterdir() if p.is_file()}, gated=True)
        hub.tokens[token] = frozenset({"me/lead"})
        model = ["--set", "model={repo: me/lead, path: /workspace}", "--set", "secrets=[HF_TOKEN]"]
        env = {**runpod.env, "HF_ENDPOINT": hub.url, "HF_TOKEN": token, "HF_HOME": str(recipe.cwd / "hf")}
        ended = recipe(*UP, *model, env=env)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "me/lead @ " in ended.stderr
    log = (recipe.run_folder() / "install.log").read_text()
    assert '{"path": "/workspace/hub/models--me--lead/' in log
    kept = [p for p in recipe.home.rglob("*") if p.is_file() and token.encode() in p.read_bytes()]
    assert (kept, token in ended.stdout + ended.stderr) == ([], False)


@pytest.mark.parametrize(("step", "when"), STEPS)
def test_killed_at_a_step_of_the_journal_nothing_bills_after_one_reap(
    recipe: Command, runpod: RunPod, step: str, when: str
) -> None:
    killed = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "killed_client.py"), step, when, *UP],
        env=recipe.environment(**runpod.env, PYTHONPATH=str(ROOT)),
        cwd=recipe.cwd,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(runpod.ledger()) <= 1
    reaped = recipe("reap", "--yes", env=runpod.env)
    assert reaped.returncode == 0, reaped.stdout + reaped.stderr
    assert runpod.billing == []
    assert set(lease_states(recipe)) <= {"gone"}
    assert "nothing of" in recipe("reap", env=runpod.env).stdout


@pytest.mark.parametrize("moment", range(4))
def test_killed_at_any_moment_nothing_bills_after_one_reap_from_another_machine(
    recipe: Command, runpod: RunPod, book: Path, moment: int
) -> None:
    process = recipe.start(*UP, "--set", f"workload.inputs=[{book}]", env=runpod.env)
    time.sleep(random.Random(moment).uniform(0.5, 12))
    process.kill()
    process.communicate()
    elsewhere = Command(recipe.cwd / "elsewhere", recipe.cwd)
    reaped = elsewhere("reap", "--yes", env=runpod.env)
    assert reaped.returncode == 0, reaped.stdout + reaped.stderr
    assert runpod.billing == []


def test_when_its_client_is_killed_a_machine_lets_itself_go(
    recipe: Command, runpod: RunPod, book: Path, wait_until: Wait
) -> None:
    work = ["--set", f"workload.inputs=[{book}]", "--set", "limits.idle_duration=12s"]
    process = recipe.start(*UP, *work, env=runpod.env)
    wait_until(lambda: lines(recipe, "answers.jsonl") >= 2, what="two answers")
    process.kill()
    process.communicate()
    assert runpod.billing
    wait_until(lambda: not runpod.billing, what="the machine's own end")
    (pod,) = runpod.ledger()
    assert pod["ended_by"].startswith("pod: ")


def test_a_machine_outlives_neither_its_deadline_nor_a_silent_client(
    recipe: Command, runpod: RunPod, book: Path, wait_until: Wait
) -> None:
    work = ["--set", f"workload.inputs=[{book}]", "--set", "limits.max_duration=45s"]
    process = recipe.start(*UP, *work, env=runpod.env)
    wait_until(lambda: "drive" in phases_of(recipe), what="the drive")
    process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: not runpod.billing, what="the machine's own end")
    finally:
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=150)
    assert process.returncode in (4, 5, 6, 7), out + err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("phase", ["provision", "prepare", "launch", "drive"])
def test_a_signal_in_any_phase_lets_go(
    recipe: Command, runpod: RunPod, book: Path, wait_until: Wait, phase: str, number: signal.Signals
) -> None:
    if phase == "provision":
        runpod.inject(provisioning_s=30)
    process = recipe.start(*UP, "--set", f"workload.inputs=[{book}]", env=runpod.env)
    wait_until(lambda: phase in phases_of(recipe) and (phase != "provision" or runpod.billing), what=phase)
    status, out, err = send(process, number)
    assert status == 130, out + err
    assert runpod.billing == []
    assert lease_states(recipe) == ["gone"]


def test_another_client_goes_on_where_the_killed_one_stopped(
    recipe: Command, runpod: RunPod, book: Path, wait_until: Wait
) -> None:
    book.write_text(book.read_text()[:60_000])
    process = recipe.start(*UP, "--set", f"workload.inputs=[{book}]", env=runpod.env)
    wait_until(lambda: lines(recipe, "answers.jsonl") >= 3, what="three answers")
    process.kill()
    process.communicate()
    kept = lines(recipe, "answers.jsonl")
    shown = recipe("ps", env=runpod.env).stdout
    assert "CLIENT GONE" in shown
    attached = recipe("attach", "2xA100-airoboros-70b", env=runpod.env)
    assert attached.returncode == 0, attached.stderr + attached.stdout
    result = result_of(recipe)
    assert result["requests"]["resumed"] >= kept - 1
    ids = [json.loads(line)["id"] for line in (recipe.run_folder() / "answers.jsonl").read_text().splitlines()]
    assert len(ids) == len(set(ids)), "nothing was asked for twice"
    (pod,) = runpod.ledger()
    assert result["lease"]["adopted"] is True
    cost = result["cost"]
    assert 0 <= noticed_s(cost, pod) < NOTICED_S
    assert round(sum(phase["usd"] for phase in result["phases"]), 10) == cost["total_usd"]
    assert round(cost["useful_usd"] + sum(cost["idle_usd"].values()), 10) == cost["total_usd"]
    assert all(cost["idle_seconds"][cause] > 0 for cause in ("boot", "download", "load", "waiting", "letting_go"))
    assert cost["useful_seconds"] > 0


def test_twenty_runs_at_once_are_all_let_go(recipe: Command, runpod: RunPod) -> None:
    seeds = f"matrix={{workload.seed: {list(range(20))}}}"
    ended = recipe(*UP, "--set", seeds, "--json", env=runpod.env)
    assert ended.returncode == 0, ended.stderr
    results = json.loads(ended.stdout)["runs"]
    assert [result["variant"]["workload.seed"] for result in results] == list(range(20))
    assert {result["release"]["state"] for result in results} == {"gone"}
    pods = {pod["name"]: pod for pod in runpod.ledger()}
    assert set(pods) == {result["lease"]["name"] for result in results}
    assert all(len(outcomes) == 1 for outcomes in runpod.creates().values())
    for result in results:
        assert result["cost"]["provider_usd"] == pytest.approx(pods[result["lease"]["name"]]["usd"], rel=0.05)


def test_ssh_opens_the_runs_machine(recipe: Command, runpod: RunPod, book: Path, wait_until: Wait) -> None:
    process = recipe.start(*UP, "--set", f"workload.inputs=[{book}]", env=runpod.env)
    wait_until(lambda: lines(recipe, "answers.jsonl") >= 1, what="an answer")
    said = recipe("ssh", "2xA100-airoboros-70b", "echo", "$HOME is", "here", env=runpod.env)
    assert said.stdout == "$HOME is here\n", said.stderr
    down = recipe("down", "2xA100-airoboros-70b", env=runpod.env)
    assert down.returncode == 0, down.stderr
    assert "gone" in down.stdout
    process.communicate(timeout=150)
    assert process.returncode == 130


def test_a_rehearsal_needs_no_account(recipe: Command) -> None:
    cache = "resources.volumes=[{stack: model_cache/ours, path: /workspace}]"
    ended = recipe("rehearse", "3xA40-airoboros-70b", "--set", cache, "--set", "resources.provisioner=pulumi")
    assert ended.returncode == 0, ended.stderr + ended.stdout
    assert "1 emulated pod, none billing at the end" in ended.stderr
    assert "provisioner pulumi: the pod was rented at an emulated RunPod directly" in ended.stderr
    assert "stack model_cache/ours: the pod had a disk of its own instead" in ended.stderr
    assert not (recipe.home / "runs").exists()


def test_a_kept_machine_is_talked_to_through_a_tunnel_of_the_chats_own(
    recipe: Command, runpod: RunPod, wait_until: Wait
) -> None:
    process = recipe.start(*UP, "--keep", env=runpod.env)
    wait_until(lambda: "keep" in phases_of(recipe), what="the keeping")
    asked = recipe("chat", "2xA100-airoboros-70b", "--max-tokens", "20", "The river rose.", env=runpod.env)
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.strip()
    assert process.poll() is None, "the run does not notice"
    status, out, err = send(process, signal.SIGINT)
    assert status == 0, err
    assert "gone, proven" in out


def test_a_bill_that_comes_late_is_asked_for_again(recipe: Command, runpod: RunPod) -> None:
    runpod.inject(billing_lag_s=3600)
    ended = recipe(*UP, env=runpod.env)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    before = result_of(recipe)
    assert before["cost"]["provider_usd"] is None
    silent = recipe("bill", "2xA100-airoboros-70b", env=runpod.env)
    assert (silent.returncode, "says nothing of it" in silent.stdout) == (0, True), silent.stderr
    assert result_of(recipe) == before
    keyless = recipe("bill", "2xA100-airoboros-70b", env=dict.fromkeys(runpod.env, ""))
    assert (keyless.returncode, "RUNPOD_API_KEY" in keyless.stderr) == (4, True), keyless.stderr
    runpod.inject(billing_lag_s=0)
    told = json.loads(recipe("bill", "2xA100-airoboros-70b", "--json", env=runpod.env).stdout)
    (pod,) = runpod.ledger()
    after = result_of(recipe)
    cost = after["cost"]
    assert told["runs"][0]["provider_usd"] == cost["provider_usd"] == pytest.approx(pod["usd"], abs=1e-6)
    assert cost["difference_usd"] == pytest.approx(cost["provider_usd"] - cost["total_usd"], abs=1e-6)
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"cost"}
    assert {name for name in cost if cost[name] != before["cost"][name]} == {
        *("provider_usd", "provider_seconds", "provider_asked_at", "difference_usd", "difference_share")
    }
    assert json.loads(recipe("runs", "--json").stdout)["runs"] == [after]
