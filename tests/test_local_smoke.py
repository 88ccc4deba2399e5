"""The whole way on this machine with the real embedded engine, as a user runs it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import Command
from tests.emulators.engine import Asked, EngineDouble

pytestmark = pytest.mark.real

RESULT_FIELDS = {
    "": "schema_version run_id recipe recipe_digest git_commit versions offer started_at ended_at outcome phases "
    "cost throughput latency requests release artifacts",
    "outcome": "status phase error",
    "cost": "price_usd_per_h billed_seconds total_usd forecast_usd useful_fraction usd_per_million_prompt_tokens "
    "usd_per_million_output_tokens usd_per_document usd_per_million_tokens storage_usd_per_h priced_by compute_usd "
    "storage_usd useful_seconds useful_usd idle_seconds idle_usd energy provider_usd difference_usd difference_share",
    "throughput": "prompt_tokens output_tokens seconds prompt_tokens_per_s output_tokens_per_s "
    "peak_prompt_tokens_per_s peak_output_tokens_per_s peak_at",
    "latency": "ttft_s tpot_s e2e_s",
    "requests": "ok failed retried",
    "release": "state proof",
}
REQUEST_FIELDS = [
    *("id", "document", "level", "index", "status", "tries", "started_at", "prompt_tokens", "output_tokens"),
    *("ttft_s", "tpot_s", "e2e_s", "finish_reason", "error"),
]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_one_command_takes_a_user_to_summaries_figures_and_a_machine_let_go(recipe: Command) -> None:
    ended = recipe("up", "local-smoke")
    assert ended.returncode == 0, ended.stderr
    assert "done in" in ended.stdout
    assert "gone, proven" in ended.stdout

    folder = recipe.run_folder()
    result = json.loads((folder / "result.json").read_text())
    for section, fields in RESULT_FIELDS.items():
        assert set(fields.split()) <= set(result[section] if section else result), section
    assert result["outcome"]["status"] == "completed"
    assert result["release"]["state"] == "gone"
    assert result["documents"] == {"done": 3, "total": 3, "unit": "document"}
    requests = rows(folder / "requests.jsonl")
    assert set(REQUEST_FIELDS) <= set(requests[0])
    for kind in ("prompt_tokens", "output_tokens"):
        assert result["throughput"][kind] == sum(row[kind] for row in requests)
        assert result["throughput"]["engine_counters"][kind] == result["throughput"][kind]
    assert result["requests"]["ok"] == len(requests)


def test_the_phases_are_the_run_and_their_dollars_are_its_cost(recipe: Command) -> None:
    assert recipe("up", "local-smoke").returncode == 0
    result = json.loads((recipe.run_folder() / "result.json").read_text())
    names = [phase["name"] for phase in result["phases"]]
    assert names == ["plan", "provision", "prepare", "launch", "drive", "collect", "release"]
    # The first and the last phase of a lease also hold what is written down before it is asked for and after it ended.
    provisioning, *whole, releasing = (phase["seconds"] for phase in result["phases"][1:])
    between = sum(whole)
    assert between < result["cost"]["billed_seconds"] <= provisioning + between + releasing + 1e-9
    assert result["cost"]["total_usd"] == pytest.approx(0.05 * result["cost"]["billed_seconds"] / 3600, rel=0.01)
    took = datetime.fromisoformat(result["ended_at"]) - datetime.fromisoformat(result["started_at"])
    assert round(sum(phase["seconds"] for phase in result["phases"]), 3) == took.total_seconds()
    cost = result["cost"]
    assert round(sum(phase["usd"] for phase in result["phases"]), 10) == cost["total_usd"]
    assert round(cost["useful_usd"] + sum(cost["idle_usd"].values()), 10) == cost["total_usd"]
    assert round(cost["useful_seconds"] + sum(cost["idle_seconds"].values()), 3) == cost["billed_seconds"]
    assert cost["idle_seconds"]["load"] > 0


def test_the_run_folder_holds_what_the_design_promises_and_checksums_agree(recipe: Command) -> None:
    assert recipe("up", "local-smoke").returncode == 0
    folder = recipe.run_folder()
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {
        "recipe.yaml",
        "resolved.json",
        "plan.json",
        "events.jsonl",
        "engine.log",
        "telemetry.jsonl",
        "requests.jsonl",
        "result.json",
        "outputs/note-analysis-lead-0000.json",
    } <= files
    assert not [name for name in files if name.endswith(".part")]
    artifacts = json.loads((folder / "result.json").read_text())["artifacts"]
    assert {artifact["path"] for artifact in artifacts} == files - {"result.json", "report.html"}
    for artifact in artifacts:
        data = (folder / artifact["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (artifact["bytes"], artifact["sha256"]), artifact[
            "path"
        ]


def test_the_ledger_and_the_reports_tell_the_same_as_the_result(recipe: Command) -> None:
    printed = json.loads(recipe("up", "local-smoke", "--json").stdout)
    result = json.loads((recipe.run_folder() / "result.json").read_text())
    assert printed == {"runs": [result]}
    assert json.loads(recipe("report", "local-smoke", "--json").stdout) == {"runs": [result]}
    assert json.loads(recipe("runs", "--json").stdout) == {"runs": [result]}
    assert result["run_id"] in recipe("runs").stdout
    assert "engine says" in recipe("report", result["run_id"]).stdout
    assert "listening" in recipe("logs", "local-smoke").stdout
    with sqlite3.connect(recipe.home / "ledger.db") as db:
        assert db.execute("SELECT state FROM leases").fetchall() == [("gone",)]
        assert db.execute("SELECT count(*) FROM events WHERE event = 'phase-ended'").fetchone() == (7,)


def test_a_matrix_is_one_run_per_combination(recipe: Command) -> None:
    (recipe.cwd / "two.yaml").write_text("extends: local-smoke\nmatrix: {workload.concurrency: [1, 2]}\n")
    ended = recipe("up", "two.yaml", "--json")
    assert ended.returncode == 0, ended.stderr
    runs = json.loads(ended.stdout)["runs"]
    assert [run["variant"] for run in runs] == [{"workload.concurrency": 1}, {"workload.concurrency": 2}]
    assert len(recipe.run_folders()) == 2


def test_an_engine_that_runs_elsewhere_is_used_and_left_alone(recipe: Command) -> None:
    tokenizer = Path(__file__).parents[1] / "recipes/models/lead/tokenizer.json"

    async def drive() -> tuple[str, list[Asked]]:
        async with EngineDouble() as double:
            settings = [
                f"engine={{name: openai, url: '{double.url}/v1'}}",
                "workload.api=chat",
                "model.served_name=lead",
            ]
            options = [part for setting in settings for part in ("--set", setting)]
            ended = await asyncio.to_thread(
                recipe, "up", "local-smoke", *options, "--set", f"workload.tokenizer={tokenizer}"
            )
            assert ended.returncode == 0, ended.stderr
            async with aiohttp.ClientSession() as session, session.get(f"{double.url}/health") as response:
                assert response.status == 200
            return double.url, list(double.asked)

    url, asked = asyncio.run(drive())
    result = json.loads((recipe.run_folder() / "result.json").read_text())
    assert result["engine"]["name"] == "openai"
    # One more than the run counts: the token by which the engine showed that it is ready.
    assert len(asked) == result["requests"]["ok"] + 1
    assert {one.path for one in asked} == {"/v1/chat/completions"}
    slip = json.loads((recipe.run_folder() / "outputs/note-analysis-lead-0000.json").read_text())["buck_slip"]
    assert slip["api_url"] == f"{url}/v1"


def test_collected_files_come_home_and_missing_ones_are_named(recipe: Command) -> None:
    assert recipe("up", "local-smoke", "--set", "collect=[install.json, nohup.out]").returncode == 0
    folder = recipe.run_folder()
    assert (folder / "collected" / "install.json").is_file()
    assert "nohup.out" in json.loads((folder / "result.json").read_text())["warnings"][0]
