"""MLflow's real stores and W&B's real offline runs, through their own clients, read back with what they bring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.runners.exporting.made import keep, lines, request_row, result_of, run_id
from tests.runners.exporting.trackers import in_it

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

READ_MLFLOW = """
import json, sys
from mlflow import MlflowClient
client, found = MlflowClient(tracking_uri=sys.argv[1]), []
for experiment in client.search_experiments():
    for run in client.search_runs([experiment.experiment_id]):
        history = {name: [(m.step, m.timestamp, m.value) for m in client.get_metric_history(run.info.run_id, name)]
                   for name in run.data.metrics}
        def files(path=None):
            for f in client.list_artifacts(run.info.run_id, path):
                yield from files(f.path) if f.is_dir else [f.path]
        found.append({"experiment": experiment.name, "name": run.info.run_name, "status": run.info.status,
                      "times": [run.info.start_time, run.info.end_time], "tags": run.data.tags,
                      "params": run.data.params, "history": history, "files": sorted(files())})
print(json.dumps(found))
"""
READ_WANDB = """
import json, struct, sys
from wandb.proto import wandb_internal_pb2 as pb

def records(data):  # LevelDB's log format: blocks of 32 KiB, each record with its checksum, length and kind
    at, whole = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield whole
            whole = b""

def values(items):
    return {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items}

found = {"history": [], "summary": {}, "files": [], "config": {}}
for data in records(open(sys.argv[1], "rb").read()):
    record = pb.Record()
    record.ParseFromString(data)
    match record.WhichOneof("record_type"):
        case "run":
            run = record.run
            found |= {"id": run.run_id, "project": run.project, "tags": list(run.tags), "group": run.run_group}
            found["config"] |= {i.key: json.loads(i.value_json) for i in run.config.update}
        case "history":
            found["history"].append(values(record.history.item))
        case "summary":
            found["summary"] |= values(record.summary.update)
        case "files":
            found["files"] += [f.path for f in record.files.files]
        case "exit":
            found["exit"] = record.exit.exit_code
print(json.dumps(found))
"""
AT = "2026-01-02T03:04:{:02d}.000+00:00"
EPOCH_MS = 1767323045000
"""When the runs begin."""


def telemetry() -> str:
    gpus = [{"index": 0, "power_w": 250.0}]
    rows: list[dict[str, Any]] = [
        {"at": AT.format(5 + n), "source": "host", "cpu": n / 10, "gpus": gpus} for n in range(3)
    ]
    rows.insert(2, {"at": AT.format(6), "source": "engine", "running": 4.0, "kv_usage": None})
    return lines(*rows)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """One run of a matrix, with everything, and one that failed and left little."""
    made = tmp_path / "home"
    resolved = {
        "name": "x",
        "tags": ["a"],
        "engine": {"args": {"max_model_len": 4096}},
        "workload": {"inputs": ["a.txt"]},
    }
    resolved["env"] = {"odd key!": "v" * 7000}
    variant = {"workload.concurrency": 4}
    folder = keep(
        made,
        result_of(run_id(1, "grid.concurrency-4"), variant=variant, tags=["nightly", "a b"]),
        telemetry_jsonl=telemetry(),
        requests_jsonl=lines(*(request_row(n) for n in range(2))),
        resolved_json=json.dumps(resolved),
        recipe_yaml="name: x\n",
    )
    (folder / "outputs" / "a.json").write_text("{}")
    (folder / "outputs" / "link.json").symlink_to("/etc/passwd")
    keep(made, result_of(run_id(2, "other"), outcome={"status": "failed", "phase": "launch", "error": "no"}))
    return made


def export(home: Path, cwd: Path, *arguments: str, **env: str) -> Any:
    return in_it(home, cwd, "-m", "runners.cli", "export", *arguments, env=env)


def stored(home: Path, cwd: Path, uri: str, **env: str) -> dict[str, dict[str, Any]]:
    """What MLflow has, by recipe's run."""
    read = in_it(home, cwd, "-c", READ_MLFLOW, uri, env=env)
    assert read.returncode == 0, read.stderr
    runs = json.loads(read.stdout)
    found = {run["tags"]["recipe.run_id"]: run for run in runs}
    assert len(found) == len(runs)
    return found


@pytest.mark.parametrize("store", ["sqlite", "file"])
def test_mlflow_has_each_run_once_with_everything_in_it(store: str, home: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/ml.db" if store == "sqlite" else f"file://{tmp_path}/store"
    env = {"MLFLOW_ALLOW_FILE_STORE": "true"}  # MLflow keeps it for those who say so
    sent = export(home, tmp_path, "--format", "mlflow", "--tracking-uri", uri, "--outputs", **env)
    assert sent.returncode == 0, sent.stderr
    assert [line.split()[:2] for line in sent.stdout.splitlines()] == [
        [run_id(1, "grid.concurrency-4"), "new"],
        [run_id(2, "other"), "new"],
    ]
    runs = stored(home, tmp_path, uri, **env)
    run = runs[run_id(1, "grid.concurrency-4")]
    assert (run["experiment"], run["name"], run["status"]) == ("grid", run_id(1, "grid.concurrency-4"), "FINISHED")
    assert run["times"] == [EPOCH_MS, EPOCH_MS + 52_000]
    assert run["params"]["engine.args.max_model_len"] == "4096"
    assert run["params"]["workload.inputs"] == '["a.txt"]'
    assert len(run["params"]["env.odd key_"]) == 6000
    assert run["tags"]["recipe.tags"] == "a b,nightly"
    assert run["tags"]["tag.nightly"] == "true"
    assert run["tags"]["mlflow.source.git.commit"] == "abc"
    assert run["history"]["cost.total_usd"] == [[0, EPOCH_MS + 52_000, 0.06]]
    assert run["history"]["host.cpu"] == [[n, EPOCH_MS + 1000 * n, n / 10] for n in range(3)]
    assert run["history"]["gpu.0.power_w"] == [[n, EPOCH_MS + 1000 * n, 250.0] for n in range(3)]
    assert run["history"]["engine.running"] == [[1, EPOCH_MS + 1000, 4.0]]
    # Two requests of 100 tokens each, worked on for half a second of the only interval of 1.5 s.
    assert run["history"]["requests.prompt_tokens_per_s"] == [
        [10, EPOCH_MS + 10_000, pytest.approx(200 / 1.5, abs=0.01)]
    ]
    assert run["files"] == ["outputs/a.json", "recipe.yaml", "resolved.json", "result.json"]
    other = runs[run_id(2, "other")]
    assert (other["experiment"], other["status"], other["files"]) == ("other", "FAILED", ["result.json"])
    assert other["tags"]["recipe.outcome.error"] == "no"

    again = export(home, tmp_path, "--format", "mlflow", "--tracking-uri", uri, **env)
    assert again.stdout.count("there already") == 2
    assert stored(home, tmp_path, uri, **env) == runs


def test_mlflow_forgets_what_an_export_left_by_half_and_what_has_changed(home: Path, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/ml.db"
    arguments = ("--recipe", "other", "--format", "mlflow", "--experiment", "mine")
    assert export(home, tmp_path, *arguments, MLFLOW_TRACKING_URI=uri).returncode == 0
    spoil = (
        "import sys; from mlflow import MlflowClient; c = MlflowClient(tracking_uri=sys.argv[1]);"
        "e = c.get_experiment_by_name('mine').experiment_id; (r,) = c.search_runs([e]);"
        "c.delete_tag(r.info.run_id, 'recipe.exported'); c.set_tag(r.info.run_id, 'spoilt', '1')"
    )
    assert in_it(home, tmp_path, "-c", spoil, uri).returncode == 0
    again = export(home, tmp_path, *arguments, MLFLOW_TRACKING_URI=uri)
    assert " new " in again.stdout
    (run,) = stored(home, tmp_path, uri).values()
    assert "spoilt" not in run["tags"]
    forced = export(home, tmp_path, *arguments, "--force", MLFLOW_TRACKING_URI=uri)
    assert " new " in forced.stdout
    assert len(stored(home, tmp_path, uri)) == 1


def test_a_store_that_is_not_there_is_told_of(home: Path, tmp_path: Path) -> None:
    uri = "http://127.0.0.1:9"
    quick = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "NO_PROXY": "127.0.0.1"}
    failed = export(home, tmp_path, "--format", "mlflow", "--tracking-uri", uri, **quick)
    assert failed.returncode == 4
    assert "MLFLOW_TRACKING_URI" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_wandb_has_an_offline_run_of_the_same_id_with_everything_in_it(home: Path, tmp_path: Path) -> None:
    sent = export(home, tmp_path, "--format", "wandb", "--outputs")
    assert sent.returncode == 0, sent.stderr
    name = run_id(1, "grid.concurrency-4")
    (folder,) = (tmp_path / "wandb").glob(f"offline-run-*-{name}")
    assert f"wandb sync {folder}" in sent.stdout
    assert sent.stderr.count("offline: every export makes a folder for each run") == 1
    read = in_it(home, tmp_path, "-c", READ_WANDB, folder / f"run-{name}.wandb")
    assert read.returncode == 0, read.stderr
    run = json.loads(read.stdout)
    assert (run["id"], run["project"], run["exit"]) == (name, "grid", 0)
    assert set(run["tags"]) == {"nightly", "a b"}
    assert run["group"] == "0123456789abcdef"
    assert run["config"]["engine.args.max_model_len"] == 4096
    assert run["summary"]["cost.total_usd"] == 0.06
    assert run["summary"]["status"] == "completed"
    steps = [
        (row["_step"], row["_timestamp"], row.get("host.cpu"), row.get("engine.running")) for row in run["history"]
    ]
    begun = EPOCH_MS / 1000
    assert steps == [
        (0, begun, 0.0, None),
        (1, begun + 1, 0.1, 4.0),
        (2, begun + 2, 0.2, None),
        (10, begun + 10, None, None),
    ]
    assert {"result.json", "recipe.yaml", "outputs/a.json"} <= set(run["files"])
    assert not any("link.json" in path for path in run["files"])
    kept = folder / "files" / "result.json"
    assert json.loads(kept.read_text())["run_id"] == name
    assert not kept.is_symlink()
    (other,) = (tmp_path / "wandb").glob(f"offline-run-*-{run_id(2, 'other')}")
    read = in_it(home, tmp_path, "-c", READ_WANDB, next(other.glob("*.wandb")))
    assert json.loads(read.stdout)["exit"] == 1
