"""The experiment log: every run, the newest first; chosen, sorted, or summed up.

A name (--recipe, --model, --gpu, --engine, --provider, --tag) means the value that it is; where no run has just that,
every value that it is a part of, or a glob of, such as '*70b*'. Days, weeks and months are those of UTC.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from provisioners.site import recipe_home
from recipes.errors import UsageError
from runners.cli.common import add_json, console, print_json
from runners.cli.filters import TEXTS, add_filters, filter_of
from runners.ledger import Filter, Ledger, Row
from runners.ledger.filters import SORTS, order
from runners.ledger.totals import BY, chosen
from runners.ledger.totals import SORTS as OF_TOTALS
from runners.terminal.cells import plain
from runners.terminal.runs_view import runs_lines, totals_lines

_MOST = 10**9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_filters(parser)
    argument = parser.add_argument(
        "--sort",
        metavar="COLUMN",
        help=f"-COLUMN for the highest first (default: -started): {', '.join(SORTS)}; "
        f"with --by: what that is, or {', '.join(OF_TOTALS)}",
    )
    argument.completer = lambda prefix, **_: [*SORTS, *(f"-{s}" for s in SORTS)]  # type: ignore[attr-defined]
    parser.add_argument("--limit", type=int, metavar="N", help="at most so many (default: 20)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--by", metavar="WHAT", help=f"totals instead of runs, by {', '.join(BY)}")
    how.add_argument(
        "--forecast", action="store_true", help="completed runs: what was forecast, what they took, and the error"
    )
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    if options.limit is not None and not 1 <= options.limit <= _MOST:
        raise UsageError(f"--limit {options.limit}: must be at least 1, and at most {_MOST:,}")
    meant = filter_of(options, datetime.now(UTC))
    if options.by is not None:
        return _totals(meant, options)
    sort = options.sort or "-started"
    order(sort)  # before the ledger is opened
    ledger = Ledger(recipe_home())
    rows = ledger.rows(meant, sort=sort, limit=20 if options.limit is None else options.limit)
    if options.forecast:
        return _forecasts(list(ledger.results(row.run_id for row in rows if row.status == "completed")), options)
    so_far_usd = ledger.so_far_usd([row.run_id for row in rows if row.status in ("running", "lost")])
    if options.json:
        _print_results(ledger, rows, so_far_usd)
    elif rows:
        print("\n".join(runs_lines(rows, so_far_usd=so_far_usd, sort=sort, width=_width())))
    else:
        print("\n".join(_nothing(ledger, meant, options)))
    return 0


def _width() -> int | None:
    """Of the terminal; None where nobody watches."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _print_results(ledger: Ledger, rows: Sequence[Row], so_far_usd: Mapping[str, float]) -> None:
    """Each run's result on a line of its own, as the ledger has it: nothing is read that is only passed on.

    A run that has none yet is told in the same places, as far as it is known.
    """
    begin = '{"runs": [\n'
    for row, text in zip(rows, ledger.result_texts(row.run_id for row in rows), strict=True):
        print(begin, text or _known(row, so_far_usd), sep="", end="")
        begin = ",\n"
    print("\n]}" if rows else '{"runs": []}')


def _known(row: Row, so_far_usd: Mapping[str, float]) -> str:
    return json.dumps(row.as_result(so_far_usd.get(row.run_id)), ensure_ascii=False)


def _totals(meant: Filter, options: argparse.Namespace) -> int:
    chosen((), options.by, options.sort, None)  # before the ledger is opened
    ledger = Ledger(recipe_home())
    found, together = ledger.totals(options.by, meant)
    shown = chosen(found, options.by, options.sort, options.limit)
    left_out = len(found) - len(shown)
    if options.json:
        rows = [total.document() for total in shown]
        print_json({"by": options.by, "totals": rows, "left_out": left_out, "total": together.document()})
    elif together.runs:
        print("\n".join(totals_lines(shown, together, options.by, _width(), left_out=left_out)))
    else:
        print("\n".join(_nothing(ledger, meant, options)))
    return 0


def _nothing(ledger: Ledger, meant: Filter, options: argparse.Namespace) -> Iterator[str]:
    """That there is no such run, what was asked for, and what may have been meant."""
    asked = [f"--{name} {text}" for name in TEXTS if (text := getattr(options, name)) is not None]
    asked += [f"--tag {text}" for text in options.tag] + [f"--status {text}" for text in options.status]
    asked += [f"--{name} {text}" for name in ("since", "until") if (text := getattr(options, name)) is not None]
    for name in ("min_cost", "max_cost"):
        if (usd := getattr(options, name)) is not None:
            asked.append(f"--{name.replace('_', '-')} {usd:g}")
    if not asked:
        yield "no runs yet; try recipe up local-smoke"
        return
    yield plain(f"no runs with {' '.join(asked)}")
    for name, text in [*((name, getattr(meant, name)) for name in TEXTS), *(("tag", tag) for tag in meant.tags)]:
        if text is not None and not ledger.rows(Filter(**{name: text}), limit=1):
            from recipes.explain import did_you_mean

            hint = did_you_mean(text, ledger.values(name))
            yield plain(f"no run has {name} {text}" + (f"; {hint}" if hint else ""))


def _forecasts(results: list[dict[str, Any]], options: argparse.Namespace) -> int:
    """How far the forecasts were off, for the runs that had one."""
    from runners.forecast.measured import accuracy
    from runners.terminal.accuracy_view import accuracy_line, accuracy_table

    told = [result for result in results if result.get("forecast")]
    found = accuracy([result["forecast"] for result in told])
    if options.json:
        runs = [{"run_id": result["run_id"], "recipe": result["recipe"], **result["forecast"]} for result in told]
        print_json({"runs": runs, "accuracy": found})
        return 0
    if told:
        console().print(accuracy_table(told))
    print(accuracy_line(found))
    return 0
