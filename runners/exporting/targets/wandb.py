"""Weights & Biases, through its own client: a project for each recipe, a run for each run.

A run's id there is its id here, so that one that is exported again takes the place of what was there.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from recipes.errors import NoMachine
from runners.exporting.contract import ExportedRun, Sent, Tracking, imported
from runners.exporting.trackable import Point, begun_at, facts, figures, files, history, parameters

_LONGEST_TAG = 64
_SETTINGS = {
    "console": "off",
    "silent": True,
    "disable_code": True,
    "disable_git": True,
    "symlink": False,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
"""Nothing of this process belongs to the run: it was another one, and perhaps another machine's. Files are copied, so
that a run that is synchronised later needs no folder of ours."""


_OFFLINE = "offline: every export makes a folder for each run, whatever was exported before; sync one of them"


class Wandb:
    def send(self, runs: Iterable[ExportedRun], tracking: Tracking) -> Iterator[Sent]:
        os.environ.setdefault("WANDB_SILENT", "true")
        wandb = imported(lambda: importlib.import_module("wandb"), "wandb", "wandb")
        settings = _known(wandb, {**_SETTINGS, **({"base_url": tracking.uri} if tracking.uri else {})})
        for run in runs:
            with _explained(wandb):
                sent = _write(wandb, settings, run, tracking)
            yield sent


def _write(wandb: Any, settings: Mapping[str, Any], run: ExportedRun, tracking: Tracking) -> Sent:
    made = wandb.init(
        id=run.run_id,
        name=run.run_id,
        project=tracking.group or run.recipe,
        group=run.row.recipe_digest,
        tags=[tag[:_LONGEST_TAG] for tag in run.row.tags],
        config={**facts(run), **parameters(run)},
        settings=wandb.Settings(**settings),
        reinit="create_new",
    )
    for step, values in _steps(history(run), begun_at(run)):
        made.log(values, step=step)
    made.summary.update({**figures(run), "status": run.row.status})
    for path, _ in files(run, outputs=tracking.outputs):
        made.save(str(path), base_path=str(run.folder), policy="now")
    made.finish(exit_code=0 if run.row.status == "completed" else 1)
    where = f"wandb sync {Path(made.dir).parent}" if made.offline else made.url
    return Sent(run.run_id, new=True, where=where, note=_OFFLINE if made.offline else "")


def _steps(points: Iterator[Point], begun: datetime | None) -> Iterator[tuple[int, dict[str, float]]]:
    """What is of one second makes one step: W&B takes no step twice, and none that is smaller than the last."""
    step, held = 0, dict[str, float]()
    for point in points:
        seconds = (point.at - begun).total_seconds() if begun else 0.0
        if held and round(seconds) > step:
            yield step, held
            held = {}
        step = max(step, round(seconds))
        held |= {**point.values, "_timestamp": point.at.timestamp()}
    if held:
        yield step, held


def _known(wandb: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those settings that this release of the client has."""
    fields = getattr(wandb.Settings, "model_fields", settings)
    return {name: value for name, value in settings.items() if name in fields}


@contextmanager
def _explained(wandb: Any) -> Iterator[None]:
    try:
        yield
    except wandb.errors.Error as error:
        message = " ".join(str(error).split())
        advice = "wandb login, or WANDB_MODE=offline and wandb sync later"
        raise NoMachine(f"Weights & Biases: {message}", advice=advice) from error


PLUGIN = Wandb()
