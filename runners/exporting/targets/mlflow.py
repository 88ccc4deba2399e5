"""MLflow, through its own client: an experiment for each recipe, a run for each run.

Parameters are the resolved recipe's, metrics the columns of `--format csv`, with telemetry and throughput as their
histories. A run is known by its tag `recipe.run_id`; `recipe.exported` is set when all of it is there.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

from recipes.errors import NoMachine, UsageError
from recipes.spec import digest_of
from runners.exporting.columns import as_time
from runners.exporting.contract import ExportedRun, Sent, Tracking, imported
from runners.exporting.trackable import begun_at, facts, figures, files, history, parameters

_RUN_ID, _EXPORTED = "recipe.run_id", "recipe.exported"
_LONGEST_KEY, _LONGEST_VALUE, _LONGEST_TAG = 250, 6000, 5000
_METRICS_AT_ONCE, _PARAMETERS_AT_ONCE = 1000, 100
"""MLflow's limits, as its documentation of `log_batch` has them, and mlflow.utils.validation."""
_FOREIGN = re.compile(r"[^\w\-. :/]")
_STATUS = {"completed": "FINISHED", "running": "RUNNING", "interrupted": "KILLED"}
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2"}
"""Nothing goes anywhere but to the tracking server, and one that is not there is known within seconds."""


class Mlflow:
    def send(self, runs: Iterable[ExportedRun], tracking: Tracking) -> Iterator[Sent]:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        mlflow = imported(lambda: importlib.import_module("mlflow"), "mlflow", "mlflow")
        with _explained(mlflow):
            client = mlflow.MlflowClient(tracking_uri=tracking.uri)
            uri = tracking.uri or mlflow.get_tracking_uri()
            for run in runs:
                yield _send(_Log(mlflow, client), run, tracking, uri)


class _Log:
    """MLflow's client, and what it calls things."""

    def __init__(self, mlflow: Any, client: Any) -> None:
        self.client, self.entities = client, mlflow.entities

    def experiment(self, name: str) -> str:
        """The id of the experiment of this name, which is made if there is none."""
        found = self.client.get_experiment_by_name(name)
        if found is None:
            return str(self.client.create_experiment(name))
        if found.lifecycle_stage != "active":
            advice = f"mlflow experiments restore --experiment-id {found.experiment_id}, or name another: --experiment"
            raise UsageError(f"the experiment {name} was deleted in MLflow", advice=advice)
        return str(found.experiment_id)

    def runs_of(self, experiment: str, run_id: str) -> list[Any]:
        """The experiment's runs that are this run."""
        return list(self.client.search_runs([experiment], f"tags.`{_RUN_ID}` = '{run_id}'"))

    def parameters(self, run: Any, values: Mapping[str, str | int | float | bool]) -> None:
        cut = {_key(name): str(value)[:_LONGEST_VALUE] for name, value in values.items()}
        rows = iter([self.entities.Param(name, value) for name, value in cut.items()])
        while some := list(islice(rows, _PARAMETERS_AT_ONCE)):
            self.client.log_batch(run.info.run_id, params=some)

    def tags(self, run: Any, values: Mapping[str, str]) -> None:
        rows = iter([self.entities.RunTag(_key(name), value[:_LONGEST_TAG]) for name, value in values.items()])
        while some := list(islice(rows, _PARAMETERS_AT_ONCE)):
            self.client.log_batch(run.info.run_id, tags=some)

    def metrics(self, run: Any, rows: Iterator[tuple[str, float, int, int]]) -> None:
        """Name, value, milliseconds since 1970, and step."""
        made = (self.entities.Metric(_key(name), value, ms, step) for name, value, ms, step in rows)
        while some := list(islice(made, _METRICS_AT_ONCE)):
            self.client.log_batch(run.info.run_id, metrics=some)


def _send(log: _Log, run: ExportedRun, tracking: Tracking, uri: str) -> Sent:
    experiment = log.experiment(tracking.group or run.recipe)
    digest = digest_of(run.result)
    there = log.runs_of(experiment, run.run_id)
    complete = [one for one in there if one.data.tags.get(_EXPORTED) == digest]
    if complete and not tracking.again:
        return Sent(run.run_id, new=False, where=_where(uri, experiment, complete[0]))
    for stale in there:  # half of it, or from before the run ended
        log.client.delete_run(stale.info.run_id)
    made = _write(log, experiment, run, outputs=tracking.outputs)
    log.client.set_tag(made.info.run_id, _EXPORTED, digest)
    return Sent(run.run_id, new=True, where=_where(uri, experiment, made))


def _write(log: _Log, experiment: str, run: ExportedRun, *, outputs: bool) -> Any:
    begun = _ms(run.result.get("started_at")) or 0
    ended = _ms(run.result.get("ended_at"))
    made = log.client.create_run(experiment, start_time=begun, tags={_RUN_ID: run.run_id}, run_name=run.run_id)
    log.parameters(made, parameters(run))
    log.tags(made, _tags(run))
    log.metrics(made, _series(run))
    log.metrics(made, ((name, value, ended or begun, 0) for name, value in figures(run).items()))
    for path, folder in files(run, outputs=outputs):
        log.client.log_artifact(made.info.run_id, str(path), folder or None)
    log.client.set_terminated(made.info.run_id, _STATUS.get(run.row.status, "FAILED"), end_time=ended or begun)
    return made


def _series(run: ExportedRun) -> Iterator[tuple[str, float, int, int]]:
    begun = begun_at(run)
    for point in history(run):
        step = round((point.at - begun).total_seconds()) if begun else 0
        ms = round(point.at.timestamp() * 1000)
        yield from ((name, value, ms, max(0, step)) for name, value in point.values.items())


def _tags(run: ExportedRun) -> dict[str, str]:
    """The run's own under `recipe.`, its recipe's words as `tag.<word>`, and what MLflow shows as source."""
    own = {f"recipe.{'name' if name == 'recipe' else name}": text for name, text in facts(run).items()}
    words = {f"tag.{word}": "true" for word in run.row.tags}
    commit = run.result.get("git_commit")
    source = {"mlflow.source.name": run.recipe, "mlflow.source.type": "LOCAL"}
    git = {"mlflow.source.git.commit": commit.rstrip("+")} if isinstance(commit, str) else {}
    return {**own, **words, **source, **git}


def _key(name: str) -> str:
    """A name as MLflow takes it. One that looks like a path must not lead anywhere."""
    parts = [part for part in _FOREIGN.sub("_", name).split("/") if part not in ("", ".", "..")]
    return "/".join(parts)[:_LONGEST_KEY] or "_"


def _ms(instant: Any) -> int | None:
    found = as_time(instant)
    return None if found is None else round(found.timestamp() * 1000)


def _where(uri: str, experiment: str, run: Any) -> str:
    if uri.startswith(("http://", "https://")):
        return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{run.info.run_id}"
    return f"{uri}, run {run.info.run_id}"


@contextmanager
def _explained(mlflow: Any) -> Iterator[None]:
    try:
        yield
    except mlflow.exceptions.MlflowException as error:
        message = " ".join(str(error).split())
        advice = "--tracking-uri or MLFLOW_TRACKING_URI says where it is"
        raise NoMachine(f"MLflow: {message}", advice=advice) from error
    except ImportError as error:
        raise UsageError(
            f"MLflow: {error}", advice="this store needs more of it: pip install 'gpu-recipe[mlflow]'"
        ) from error


PLUGIN = Mlflow()
