"""Runs, requests and telemetry for other programs: tables in files, a Markdown table, experiment trackers.

recipe export > runs.jsonl                               every run's whole result, one on a line
recipe export -o runs.parquet --since 30d                the last month's runs as typed columns
recipe export RUN --what requests -o requests.csv        a row for each request
recipe export RUN… --format markdown                     a table for a README or a pull request
recipe export --recipe NAME --format mlflow              to MLflow, as its client is set up

Of runs, CSV and Parquet have a column for each value of result.json, named by its path: cost.total_usd. JSON lines have
everything as it lies on disk. A name (--recipe, --model, …) is a whole one, else a part or a glob, as in recipe runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from provisioners.site import recipe_home
from recipes.errors import UsageError
from runners.cli.common import add_run
from runners.cli.filters import add_filters, filter_of
from runners.ledger import Ledger
from runners.terminal.words import plural

if TYPE_CHECKING:
    from runners.exporting.contract import ExportedRun, FileTarget, Tracker

_WHATS = ("runs", "requests", "telemetry")
_OF_TRACKERS = {"tracking_uri": "--tracking-uri", "group": "--experiment", "outputs": "--outputs"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser, nargs="*")
    form = parser.add_argument(
        "--format",
        metavar="FORMAT",
        help="jsonl, csv, parquet, markdown, mlflow or wandb (default: as -o is named, else jsonl)",
    )
    form.completer = _complete_formats  # type: ignore[attr-defined]
    parser.add_argument("--what", choices=_WHATS, default="runs", help="a row for each run, request or sample")
    parser.add_argument("-o", "--output", type=Path, metavar="PATH", help="a file (default: standard output)")
    parser.add_argument("-f", "--force", action="store_true", help="write what is there already anew")
    add_filters(parser)
    trackers = parser.add_argument_group("MLflow and Weights & Biases")
    trackers.add_argument("--tracking-uri", metavar="URI", help="its address (default: as its own client is set up)")
    trackers.add_argument(
        "--experiment",
        "--project",
        metavar="NAME",
        dest="group",
        help="where all of these runs go (default: to the one of their recipe's name)",
    )
    trackers.add_argument("--outputs", action="store_true", help="the outputs' files go along")


def run(options: argparse.Namespace) -> int:
    from runners.exporting import formats
    from runners.exporting.chosen import chosen_rows, exported_runs
    from runners.exporting.contract import FileTarget

    meant = filter_of(options, datetime.now(UTC))
    name = options.format or formats.format_of(options.output)
    target = formats.target(name)
    if isinstance(target, FileTarget):
        _check_file(options, name, target)
    else:
        _check_tracker(options, name)
    home = recipe_home()
    ledger = Ledger(home)
    rows = chosen_rows(home, ledger, options.run, meant)
    runs = exported_runs(home, ledger, rows)
    if isinstance(target, FileTarget):
        _write(options, target, runs, len(rows))
    else:
        _send(options, target, runs, len(rows))
    if not rows:  # after what was wrong, if anything was
        print("no runs are meant; recipe runs lists what there is", file=sys.stderr)
    return 0


def _check_file(options: argparse.Namespace, name: str, target: FileTarget) -> None:
    """Everything that can be known before the first run is read. Raises UsageError."""
    from runners.exporting.writing import check

    if options.what not in target.whats:
        raise UsageError(f"--format {name} writes {', '.join(target.whats)}", advice=f"leave --what {options.what} out")
    for field, option in _OF_TRACKERS.items():
        if getattr(options, field):
            raise UsageError(f"{option} means nothing to --format {name}", advice="leave it out")
    if options.output is not None:
        check(options.output, force=options.force)
    elif target.binary and sys.stdout.isatty():
        raise UsageError(f"{name} is nothing for a terminal", advice=f"-o runs{target.suffix}")


def _check_tracker(options: argparse.Namespace, name: str) -> None:
    if options.what != "runs":
        raise UsageError(f"--format {name} takes whole runs", advice=f"leave --what {options.what} out")
    if options.output is not None:
        raise UsageError(f"--format {name} writes no file", advice="leave -o out")


def _write(options: argparse.Namespace, target: FileTarget, runs: Iterator[ExportedRun], count: int) -> None:
    from runners.exporting.writing import written

    gone: list[str] = []
    with written(options.output) as file:
        target.write(options.what, _noting(runs, gone) if options.what != "runs" else runs, file)
    if gone:
        what = f"{plural(len(gone), 'run')} of {count:,} left no {options.what} here"
        print(f"{what}: {', '.join(gone[:3])}{', …' if len(gone) > 3 else ''}", file=sys.stderr)
    if options.output is not None:
        size = f", {options.output.stat().st_size:,} bytes" if options.output.is_file() else ""
        told = plural(count, "run") if options.what == "runs" else f"{options.what} of {plural(count, 'run')}"
        print(f"{options.output}: {told}{size}", file=sys.stderr)


def _noting(runs: Iterator[ExportedRun], gone: list[str]) -> Iterator[ExportedRun]:
    """The runs, noting those whose folder is not here."""
    for run in runs:
        if not run.folder.is_dir():
            gone.append(run.run_id)
        yield run


def _send(options: argparse.Namespace, tracker: Tracker, runs: Iterator[ExportedRun], count: int) -> None:
    from runners.exporting.contract import Tracking

    tracking = Tracking(uri=options.tracking_uri, group=options.group, outputs=options.outputs, again=options.force)
    new, notes = 0, dict[str, None]()
    for sent in tracker.send(runs, tracking):
        new += sent.new
        notes |= {sent.note: None} if sent.note else {}
        print(f"{sent.run_id}   {'new' if sent.new else 'there already'}   {sent.where}", flush=True)
    print(f"{new:,} new, {count - new:,} there already", file=sys.stderr)
    for note in notes:
        print(note, file=sys.stderr)


def _complete_formats(prefix: str, **_: object) -> list[str]:
    from runners.exporting import formats

    return [name for name in formats.names() if name.startswith(prefix)]
