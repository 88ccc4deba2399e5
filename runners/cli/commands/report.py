"""What a run did, how fast, and what it cost."""

from __future__ import annotations

import argparse

from runners.cli.common import add_json, add_run, console, print_json
from runners.run_folder import RunFolder, recipe_home
from runners.terminal.layout import width_of
from runners.terminal.summary import phase_table, report_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser, nargs="+")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    folders = [RunFolder.find(recipe_home(), reference) for reference in options.run]
    results = [folder.read_result() for folder in folders]
    if options.json:
        print_json({"runs": results})
        return 0
    out = console()
    for folder, result in zip(folders, results, strict=True):
        out.print(result["run_id"], style="bold")
        for line in report_lines(result, folder.path, width_of(out)):
            out.print(line)
        out.print()
        out.print(phase_table(result))
    return 0
