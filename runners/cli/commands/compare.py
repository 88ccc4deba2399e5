"""What differed between runs, what came of it, and whether that is more than noise.

A run stands for all repetitions of its recipe on the same kind of machine; a recipe's name for its newest version, or
for the variants of its matrix; @TAG for everything with the tag. The first is what the others are held against.

recipe compare NAME                       a matrix; or a recipe as it is now and before its last change
recipe compare RUN RUN                    two runs, each with its repetitions
recipe compare NAME --sort -output_tokens_per_s
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from provisioners.site import recipe_home
from recipes.errors import UsageError
from runners.cli.common import add_json, complete_runs, console, positive, print_json
from runners.cli.named import recipe_name
from runners.comparing import compared
from runners.comparing.selection import LAST, Selector
from runners.ledger import Ledger
from runners.terminal.cells import plain_in
from runners.terminal.compare_view import comparison_lines
from runners.terminal.layout import width_of
from runners.terminal.variants_view import sort_words


def add_arguments(parser: argparse.ArgumentParser) -> None:
    argument = parser.add_argument(
        "what",
        nargs="+",
        type=recipe_name,
        metavar="what",
        help="a run's id or its beginning, a recipe's name, or @TAG",
    )
    argument.completer = complete_compared  # type: ignore[attr-defined]
    parser.add_argument("--alone", action="store_true", help="a run stands for itself, not for its repetitions")
    parser.add_argument(
        "--since", metavar="WHEN", help="only runs that began then or later: 2026-11-01, today, 12h, 7d"
    )
    parser.add_argument(
        "--last",
        type=positive,
        default=LAST,
        metavar="N",
        help=f"of each recipe the newest N completed runs (default: {LAST})",
    )
    parser.add_argument(
        "--sort", default="", metavar="COLUMN", help="of more than two: by an axis or a figure; -COLUMN turns it"
    )
    add_json(parser)


def complete_compared(prefix: str, **_: object) -> list[str]:
    ledger = Ledger(recipe_home())
    if prefix.startswith("@"):
        return [f"@{tag}" for tag in ledger.values("tag")]
    return [*(name for name in ledger.values("recipe") if name.startswith(prefix)), *complete_runs(prefix)]


def run(options: argparse.Namespace) -> int:
    selector = Selector(
        Ledger(recipe_home()), recipe_home(), since=_since(options.since), last=options.last, alone=options.alone
    )
    selection = selector.select(options.what)
    document = {**compared(selection.groups).row(), "notes": list(selection.notes)}
    _check_sort(document, options.sort)
    if options.json:
        print_json(document)
        return 0
    out = console()
    for line in comparison_lines(plain_in(document), width_of(out), sort=options.sort):
        out.print(line)
    return 0


def _since(text: str | None) -> datetime | None:
    if text is None:
        return None
    from runners.terminal.moments import moment

    found = moment(text, datetime.now(UTC))
    if found is None:
        raise UsageError(f"--since {text}: not a time", advice="write 2026-11-01, 2026-11-01T12:00, today, 12h or 7d")
    return found


def _check_sort(document: dict[str, Any], sort: str) -> None:
    """Raises UsageError for what the table has no column of."""
    known = sort_words(document)
    if sort and sort.removeprefix("-") not in known:
        from recipes.explain import did_you_mean

        hint = did_you_mean(sort.removeprefix("-"), known)
        advice = hint if hint.startswith("did you mean") else f"one of {', '.join(known)}"
        raise UsageError(f"--sort {sort}: there is no such axis or figure", advice=advice)
