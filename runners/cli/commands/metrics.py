"""Runs for Prometheus and Grafana.

recipe up R --metrics-port 9400       serves a run that goes on; recipe metrics shows who serves where
recipe metrics --write DIR            prometheus.yml, a Grafana dashboard, and a compose.yaml that starts both
recipe metrics RUN --openmetrics      a run that is over, for promtool tsdb create-blocks-from openmetrics
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from provisioners.site import recipe_home
from recipes.errors import UsageError
from runners.cli.common import add_json, complete_runs, console, print_json
from runners.run_folder import RunFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    runs = parser.add_argument("run", nargs="*", help="a run's id, its beginning, or a recipe's name")
    runs.completer = complete_runs  # type: ignore[attr-defined]
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--openmetrics", action="store_true", help="print the runs as OpenMetrics, with their times")
    what.add_argument("--write", metavar="DIR", type=Path, help="write what Prometheus and Grafana need into a folder")
    add_json(parser)
    parser.add_argument(
        "--step",
        type=_seconds,
        metavar="SECONDS",
        help="between two points of a series (default: 1; of runs longer than an hour 5)",
    )
    parser.add_argument(
        "--interval",
        type=_seconds,
        default=5.0,
        metavar="SECONDS",
        help="of scrapes, with --write (default: 5)",
    )


def run(options: argparse.Namespace) -> int:
    if options.write is not None:
        if options.run:
            raise UsageError("--write is for all runs", advice="recipe metrics --write DIR")
        return _write(options)
    if options.openmetrics:
        if not options.run:
            raise UsageError("which run?", advice="recipe metrics RUN --openmetrics; recipe runs lists them")
        return _openmetrics(options)
    if options.run:
        raise UsageError(
            "what of the run?", advice="recipe metrics RUN --openmetrics; a run that goes on: recipe up --metrics-port"
        )
    return _pages(options)


def _openmetrics(options: argparse.Namespace) -> int:
    from runners.metrics.openmetrics import lines

    home = recipe_home()
    folders = list({folder.run_id: folder for folder in (RunFolder.find(home, name) for name in options.run)}.values())
    sys.stdout.writelines(lines(folders, options.step))
    return 0


def _write(options: argparse.Namespace) -> int:
    from runners.metrics.stack import lookback, write

    folder = write(options.write, recipe_home(), interval_s=options.interval)
    if options.json:
        print_json({"folder": str(folder), "files": sorted(str(p) for p in folder.rglob("*") if p.is_file())})
        return 0
    out = console()
    out.print(f"{folder}: prometheus.yml, grafana/, compose.yaml")
    out.print(f"with Docker   docker compose -f {folder}/compose.yaml up -d")
    out.print("              then http://127.0.0.1:3000/d/recipe-runs, and recipe up RECIPE --metrics-port 0")
    out.print(f"without       prometheus --config.file={folder}/prometheus.yml {lookback(options.interval)}")
    return 0


def _pages(options: argparse.Namespace) -> int:
    from runners.metrics.targets import known

    pages = [{"url": f"http://{target}/metrics", "pid": pid} for pid, target in known(recipe_home())]
    if options.json:
        print_json({"pages": pages})
        return 0
    for page in pages:
        print(f"{page['url']}   process {page['pid']}")
    if not pages:
        print("no page is served now; recipe up RECIPE --metrics-port 0 serves one")
    return 0


def _seconds(text: str) -> float:
    """Seconds of at least a tenth, for argparse."""
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = math.nan
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text}: write seconds, 0.1 to 3600")
    return seconds
