"""Options that choose runs of the experiment log, for every command that takes several."""

from __future__ import annotations

import argparse
import math
from datetime import datetime

from recipes.errors import UsageError
from runners.cli.named import recipe_name
from runners.ledger import Filter
from runners.ledger.filters import STATUSES

TEXTS = ("recipe", "model", "gpu", "engine", "provider")


def add_filters(parser: argparse.ArgumentParser) -> None:
    """What `filter_of` reads."""
    for name in TEXTS:
        kind = recipe_name if name == "recipe" else str
        parser.add_argument(f"--{name}", type=kind, metavar="NAME", help=f"only runs of this {name}")
    parser.add_argument("--tag", action="append", default=[], metavar="TAG", help="only runs with it; may be repeated")
    argument = parser.add_argument(
        "--status",
        action="append",
        default=[],
        metavar="STATUS",
        help=f"only runs that ended so: {', '.join(STATUSES)}; may be repeated",
    )
    argument.completer = lambda prefix, **_: [s for s in STATUSES if s.startswith(prefix)]  # type: ignore[attr-defined]
    when = "2026-11-01, 2026-11-01T12:00, today, yesterday, 12h, 7d or 2w ago"
    parser.add_argument("--since", metavar="WHEN", help=f"only runs that began then or later: {when}; in UTC")
    parser.add_argument("--until", metavar="WHEN", help="only runs that began before")
    parser.add_argument("--min-cost", type=float, metavar="USD", help="only runs that cost at least so much")
    parser.add_argument("--max-cost", type=float, metavar="USD", help="only runs that cost at most so much")


def filter_of(options: argparse.Namespace, now: datetime) -> Filter:
    """What the options ask for. Raises UsageError."""
    for name in (*TEXTS, "tag"):
        given = getattr(options, name)
        if any(not text.strip() for text in ([given] if isinstance(given, str) else given or ())):
            raise UsageError(f"--{name} is empty", advice=f"name a {name}, or leave --{name} out")
    for status in options.status:
        if status not in STATUSES:
            from recipes.explain import did_you_mean

            raise UsageError(f"--status {status}: no run ends so", advice=did_you_mean(status, STATUSES))
    for name, usd in (("--min-cost", options.min_cost), ("--max-cost", options.max_cost)):
        if usd is not None and not 0 <= usd < math.inf:
            raise UsageError(f"{name} {usd:g}: not a sum of money", advice=f"write {name} 0.5")
    since, until = _instant("--since", options.since, now), _instant("--until", options.until, now)
    if since is not None and until is not None and since >= until:
        what = f"--until {options.until} is not after --since {options.since}: no run began between"
        raise UsageError(what, advice="change one of them, or leave it out")
    if options.min_cost is not None and options.max_cost is not None and options.min_cost > options.max_cost:
        raise UsageError(f"--min-cost {options.min_cost:g} is above --max-cost {options.max_cost:g}: no run is both")
    return Filter(
        **{name: getattr(options, name) for name in TEXTS},
        tag=tuple(options.tag),
        status=tuple(options.status),
        since=since,
        until=until,
        min_cost=options.min_cost,
        max_cost=options.max_cost,
    )


def _instant(option: str, text: str | None, now: datetime) -> datetime | None:
    if text is None:
        return None
    from runners.terminal.moments import moment

    found = moment(text, now)
    if found is None or found == now:  # a span of nothing
        raise UsageError(
            f"{option} {text}: not a time", advice="write 2026-11-01, 2026-11-01T12:00, today, 12h, 7d or 2w"
        )
    return found
