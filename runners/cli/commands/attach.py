"""Take over a run whose client died: the work goes on from the answers that are on disk, and the machine is let go."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence

from provisioners.journal import Entry, Journal
from provisioners.site import recipe_home
from recipes.errors import NoMachine, UsageError
from recipes.load import LoadedRecipe
from runners import registry
from runners.cli.adopting import leased_offer
from runners.cli.common import add_json, add_metrics_port, add_run, watched
from runners.cli.running import Runs
from runners.events import Listener
from runners.http.loop import run as run_in_loop
from runners.ledger import Ledger
from runners.live import LiveRun
from runners.planning import make_plan
from runners.reaching import recipe_of
from runners.run_folder import RunFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    add_json(parser)
    parser.add_argument("--keep", action="store_true", help="keep machine and engine after the work; Ctrl-C lets go")
    add_metrics_port(parser)


def run(options: argparse.Namespace) -> int:
    home = recipe_home()
    folder, ledger = RunFolder.find(home, options.run), Ledger(home)
    row = ledger.run(folder.run_id)
    if row and row["status"] == "running":
        raise UsageError(
            f"{folder.run_id} has a living client, process {row['pid']}", advice=f"recipe logs -f {folder.run_id}"
        )
    entry = Journal(ledger.path).of_run(folder.run_id)
    if row and row["status"] != "lost":
        advice = "its machine may still bill: recipe reap --yes" if entry and entry.open else "see recipe report"
        raise UsageError(f"{folder.run_id} has ended: {row['status']}", advice=advice)
    if entry is None or not entry.open:
        proof = f": {entry.proof}" if entry and entry.proof else ""
        again = f"recipe up {row['recipe']}" if row else "recipe up"
        raise UsageError(
            f"{folder.run_id} has no machine to go on with{proof}", advice=f"{again} goes on from its answers"
        )
    loaded = recipe_of(folder)

    def work(*watchers: Callable[[LiveRun], Listener]) -> int:
        return run_in_loop(_attach(options, folder, entry, loaded, watchers))

    return watched(work, [loaded.recipe.metrics], options.metrics_port)


async def _attach(
    options: argparse.Namespace,
    folder: RunFolder,
    entry: Entry,
    loaded: LoadedRecipe,
    watchers: Sequence[Callable[[LiveRun], Listener]],
) -> int:
    seen = await registry.provisioner(entry.lease.provider).observe(entry.lease)
    if seen.state in ("stopped", "failed", "gone"):
        raise NoMachine(
            f"{folder.run_id} has no machine to go on with: {seen.message or seen.state}",
            advice=f"recipe down {folder.run_id} proves it; then recipe up goes on from its answers",
        )
    plan = await make_plan(loaded, os.environ, leased=leased_offer(folder, entry))
    return await Runs(as_json=options.json, keep=options.keep, watchers=watchers).adopt(plan, folder, entry)
