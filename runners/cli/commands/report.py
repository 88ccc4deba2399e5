"""What a run did, how fast, and what it cost: in the terminal, and as a page that needs no network.

recipe report RUN                     in the terminal; writes the page anew and says where it is
recipe report RUN --open              shows the page
recipe report RUN RUN…                a page that holds the runs against each other
recipe report NAME                    the same for all runs of a matrix, or of a tag as @TAG
recipe report RUN --html page.html    writes the page there; - for standard output
"""

from __future__ import annotations

import argparse
import sys
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from provisioners.site import recipe_home
from recipes.errors import UsageError
from runners.cli.common import add_json, add_run, console, print_json
from runners.cli.reports import comparison_path, write_run_report
from runners.run_folder import RunFolder
from runners.terminal.filled import filled
from runners.terminal.layout import width_of
from runners.terminal.summary import phase_table, report_lines

_STANDARD_OUTPUT = Path("-")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser, nargs="+")
    where = "where the page is written; - for standard output (default: report.html in the run's folder)"
    parser.add_argument("--html", type=Path, metavar="PATH", help=where)
    parser.add_argument("--open", action="store_true", help="show the page in the browser")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    to_stdout = options.html == _STANDARD_OUTPUT
    if to_stdout and (options.json or options.open):
        other = "--json" if options.json else "--open"
        raise UsageError(f"--html - and {other} do not go together", advice="write --html PATH")
    folders = list({folder.run_id: folder for word in options.run for folder in _meant(word)}.values())
    results = [folder.read_result() for folder in folders]
    with _readable(results):
        return _report(options, folders, results, to_stdout=to_stdout)


def _report(
    options: argparse.Namespace, folders: Sequence[RunFolder], results: Sequence[dict[str, Any]], *, to_stdout: bool
) -> int:
    if to_stdout:
        from runners.reporting import report_page

        sys.stdout.buffer.write(report_page(folders, results))
        return 0
    page = _page(folders, results, options.html) if options.html or options.open or not options.json else None
    if options.json:
        print_json({"runs": results})
    else:
        _print(folders, results, page)
    if options.open and page is not None:
        webbrowser.open(page.as_uri())
    return 0


@contextmanager
def _readable(results: Sequence[dict[str, Any]]) -> Iterator[None]:
    """Where a result is none that recipe writes, what goes wrong with it is no bug. Raises UsageError."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        from runners.importing.shape import problem_of
        from runners.modelfacts.clean import printable

        for result in results:
            if problem := problem_of(result, datetime.now(UTC)):
                what = f"{result.get('run_id')}: its {printable(problem)}"
                raise UsageError(what, advice="leave it out, or mend its file") from error
        raise


def _meant(word: str) -> list[RunFolder]:
    """The run that a word means, or all the runs of a matrix or a tag, as recipe compare finds them."""
    home = recipe_home()
    try:
        return [RunFolder.find(home, word)]
    except UsageError as unknown:
        from runners.comparing.selection import Selector
        from runners.ledger import Ledger

        if not (home / "ledger.db").is_file():
            raise
        try:
            groups = Selector(Ledger(home), home).select([word]).groups
        except UsageError:
            raise unknown from None
        return [RunFolder(home / "runs" / run_id) for group in groups for run_id in reversed(group.run_ids)]


def _page(folders: Sequence[RunFolder], results: Sequence[dict[str, Any]], wanted: Path | None) -> Path | None:
    """Write the page; where it was not asked for, that it can't be written is only a warning."""
    from runners.reporting import write_report

    home = recipe_home()
    if len(folders) > 1:
        for folder, result in zip(folders, results, strict=True):
            if not (folder.path / "report.html").exists():  # the page leads there
                write_run_report(home, result)
    own = folders[0].path / "report.html" if len(folders) == 1 else comparison_path(home, results)
    path = (wanted or own).absolute()
    try:
        return write_report(folders, path, results)
    except OSError as error:
        what = f"{path} cannot be written: {error.strerror or error}"
        if wanted is not None:
            raise UsageError(what, advice="name another place with --html PATH") from error
        console(stderr=True).print(f"warning: {what}")
        return None


def _print(folders: Sequence[RunFolder], results: Sequence[dict[str, Any]], page: Path | None) -> None:
    out = console()
    for folder, result in zip(folders, results, strict=True):
        shown = filled({**result, "run_id": folder.run_id})
        out.print(folder.run_id, style="bold")
        for line in report_lines(shown, folder.path, width_of(out)):
            out.print(line)
        out.print()
        out.print(phase_table(shown))
    if page is not None and (len(folders) > 1 or page != folders[0].path / "report.html"):
        what = f"{len(folders)} runs compared: " if len(folders) > 1 else ""
        out.print(f"\nreport       {what}{page}")
