"""Whether runs are what was asked of them: exits with 0 if they are, and with 8 and each reason if not.

Without conditions: that the run was completed, that no request failed, and that its machine is gone.

recipe check local-smoke --min-output-tokens-per-s 100 --max-cost 0.01
recipe check RUN --baseline OTHER --tolerance 10%
recipe check RUN --require 'documents.done>=12'
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from provisioners.site import recipe_home
from recipes.errors import ExitCode, NotMet, UsageError
from recipes.explain import did_you_mean
from runners.cli.common import add_json, add_run, console, print_json
from runners.comparing.meant import runs_meant
from runners.comparing.metrics import METRICS
from runners.importing.shape import SCHEMA_VERSION
from runners.junit import junit
from runners.requirements import (
    HELD,
    LATENCIES,
    LIMITS,
    TOLERANCE,
    Check,
    against,
    always,
    limit_value,
    parse_requirement,
    required,
    share,
    unlike,
)
from runners.run_folder import RunFolder
from runners.terminal.cells import plain
from runners.terminal.check_view import check_lines
from runners.terminal.words import plural

_SEEN_LATENCIES = ("p50", "p99")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser, nargs="+")
    limits = parser.add_argument_group("limits")
    for name, limit in LIMITS.items():
        hidden = name.removeprefix("max-") in LATENCIES and not name.endswith(_SEEN_LATENCIES)
        metavar = {"usd": "USD", "seconds": "TIME", "time": "TIME"}.get(limit.kind, "N")
        # As given, so that an error can say of which option.
        limits.add_argument(f"--{name}", metavar=metavar, help=argparse.SUPPRESS if hidden else limit.what)
    limits.description = "Latencies also as p90 and p95."
    parser.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="PATH>=VALUE",
        help="any field of result.json, compared by >=, <=, >, <, == or !=; may be repeated",
    )
    parser.add_argument(
        "--baseline",
        metavar="RUN",
        help="a run, its folder or its result.json: throughput, latency and cost must not be worse",
    )
    parser.add_argument("--tolerance", metavar="SHARE", help="by how much a figure may be worse (default: 10%%)")
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="KEY",
        help="hold only this figure against the baseline, such as output_tokens_per_s; may be repeated",
    )
    parser.add_argument("--junit", type=Path, metavar="PATH", help="write a JUnit file as well, for GitLab and others")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    asked = _Asked(options)
    folders = runs_meant(recipe_home(), options.run)
    checked = {folder.run_id: list(asked.checks(folder)) for folder in folders}
    if options.junit is not None:
        _write(options.junit, junit(checked))
    failed = {run_id: [check for check in checks if not check.met] for run_id, checks in checked.items()}
    failed = {run_id: checks for run_id, checks in failed.items() if checks}
    if options.json:
        rows = [
            {"run_id": run_id, "met": run_id not in failed, "checks": [check.row() for check in checks]}
            for run_id, checks in checked.items()
        ]
        print_json(
            {
                "met": not failed,
                "baseline": asked.baseline_id,
                "warnings": list(asked.warnings(folders)),
                "runs": rows,
            }
        )
        return ExitCode.NOT_MET if failed else ExitCode.DONE
    for warning in asked.warnings(folders):
        print(plain(f"warning: {warning}"), file=sys.stderr)
    out = console()
    for run_id, checks in checked.items():
        for line in check_lines(run_id, checks, asked.baseline_id):
            out.print(line)
    if failed:
        count = sum(map(len, failed.values()))
        reasons = "; ".join(_reasons(run_id if len(checked) > 1 else "", own) for run_id, own in failed.items())
        advice = f"recipe report {' '.join(failed)}"
        raise NotMet(f"{plural(count, 'condition')} not met: {plain(reasons)}", advice=advice)
    return ExitCode.DONE


def _reasons(run_id: str, checks: Sequence[Check]) -> str:
    """Why one run does not meet what was asked, with its name where there are several."""
    told = "; ".join(f"{check.name} {check.said}" for check in checks)
    return f"{run_id}: {told}" if run_id else told


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--junit {path}: {error.strerror}", advice="name a file that you may write") from error


class _Asked:
    """The conditions of a command line. Raises UsageError before any run is looked at."""

    def __init__(self, options: argparse.Namespace) -> None:
        given = {name: getattr(options, name.replace("-", "_")) for name in LIMITS}
        self.limits = {name: _value(name, text) for name, text in given.items() if text is not None}
        self.requirements: list[str] = options.require
        for text in self.requirements:
            parse_requirement(text)
        if options.baseline is None and (options.tolerance or options.metric):
            raise UsageError("--tolerance and --metric are for --baseline", advice="write --baseline RUN")
        self.baseline = _read_result(options.baseline) if options.baseline else None
        self.baseline_id: str | None = self.baseline["run_id"] if self.baseline else None
        self.tolerance = TOLERANCE if options.tolerance is None else _tolerance(options.tolerance)
        self.metrics: list[str] = options.metric or list(HELD)
        known = [metric.key for metric in METRICS if metric.better != "neither"]
        for key in self.metrics:
            if key not in known:
                advice = did_you_mean(key, known) or f"one of {', '.join(known)}"
                raise UsageError(f"--metric {key}: there is no such figure", advice=advice)

    def checks(self, folder: RunFolder) -> Iterator[Check]:
        result = folder.read_json("result.json")
        if result is None:
            said = "there is no result: it is going on, or its client died"
            yield Check(name="completed", met=False, said=said, value=None, wanted="completed")
            return
        yield from always(result, failures="max-failed" not in self.limits)
        for name, limit in self.limits.items():
            yield LIMITS[name].held(result, limit)
        for text in self.requirements:
            yield required(result, text)
        if self.baseline is not None:
            yield from against(result, self.baseline, self.tolerance, self.metrics)

    def warnings(self, folders: Sequence[RunFolder]) -> Iterator[str]:
        """Where the baseline was another thing, by run."""
        if self.baseline is None:
            return
        for folder in folders:
            if (result := folder.read_json("result.json")) and (told := list(unlike(result, self.baseline))):
                yield f"{folder.run_id} is held against a run that is not like it: {'; '.join(told)}"


def _value(name: str, text: str) -> float:
    try:
        return limit_value(LIMITS[name], text)
    except ValueError as error:
        told = str(error) if text in str(error) and "could not" not in str(error) else f"{text}: not a number"
        raise UsageError(f"--{name} {told}", advice=f"--{name} takes {LIMITS[name].what.replace('%%', '%')}") from error


def _tolerance(text: str) -> float:
    try:
        return share(text)
    except ValueError as error:
        raise UsageError(f"--tolerance {text}: not a share", advice="write --tolerance 10%") from error


def _read_result(reference: str) -> dict[str, Any]:
    """A run that is known here, or its folder or result.json from wherever it was kept."""
    path = Path(reference)
    path = path / "result.json" if path.is_dir() else path
    if not path.is_file():
        if path.suffix == ".json" or len(path.parts) > 1:
            raise UsageError(f"--baseline {reference}: there is no such file", advice="give a run, or its result.json")
        return _completed(RunFolder.find(recipe_home(), reference).read_result())
    try:
        result = dict(json.loads(path.read_text(encoding="utf-8")))
        result["run_id"], result["throughput"], result["cost"], result["outcome"]["status"]
    except (ValueError, KeyError, TypeError) as error:
        advice = "give a run's result.json, or its folder"
        raise UsageError(f"--baseline {reference}: not the result of a run", advice=advice) from error
    version = result.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        what = f"--baseline {reference}: a newer recipe wrote it: schema {version}, and this one knows {SCHEMA_VERSION}"
        raise UsageError(what, advice="upgrade recipe, or make the baseline anew")
    return _completed(result)


def _completed(result: dict[str, Any]) -> dict[str, Any]:
    """A run that went wrong is nothing to hold another against. Raises UsageError."""
    if (status := (result.get("outcome") or {}).get("status", "of no known end")) != "completed":
        raise UsageError(f"--baseline {result['run_id']}: that run was {status}", advice="give one that was completed")
    return result
