"""What several commands share: options, loading recipes, and printing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runners.cli.named import recipe_name

if TYPE_CHECKING:
    from rich.console import Console

    from recipes.load import LoadedRecipe
    from recipes.spec import Metrics


def add_recipes(parser: argparse.ArgumentParser) -> None:
    """The arguments of a command that takes recipes."""
    argument = parser.add_argument("recipe", nargs="+", help="a recipe file, or a name of the catalogue")
    argument.completer = complete_recipes  # type: ignore[attr-defined]
    add_overrides(parser)
    parser.add_argument("--yes", action="store_true", help="a matrix may have more than 1,000 runs")


def positive(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: write a whole number of at least 1")
    return int(text)


def port(text: str) -> int:
    """A TCP port for argparse; 0 for any."""
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text}: write a port, 0 to 65535")
    return int(text)


def add_metrics_port(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metrics-port", type=port, metavar="N", help="serve a page for Prometheus there; 0: any port that is free"
    )


def watched(work: Callable[..., int], metrics: Sequence[Metrics | None], metrics_port: int | None) -> int:
    """A command's exit code; what it runs is on the metrics pages that its recipes or its command line ask for.

    `work` is given what is to be shown every run, if there are such. Raises UsageError if a port is taken.
    """
    if metrics_port is None and not any(metrics):
        return work()
    from provisioners.site import recipe_home
    from runners.metrics.serving import pages_of, with_pages

    return with_pages(work, pages_of(metrics, metrics_port), recipe_home(), say=console(stderr=True).print)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """For commands that take recipes."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        dest="overrides",
        help="set a field, such as workload.concurrency=8; may be repeated",
    )


def add_force(parser: argparse.ArgumentParser) -> None:
    """For commands that plan: let named checks pass. Each may be given several times."""
    argument = parser.add_argument(
        "--force",
        action="append",
        default=[],
        metavar="CODE",
        help="let this check pass where it would refuse, such as kv-cache; may be repeated",
    )
    argument.completer = complete_codes  # type: ignore[attr-defined]


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")


def add_run(parser: argparse.ArgumentParser, *, nargs: str | None = None) -> None:
    help_text = "a run's id, its beginning, or a recipe's name or file for its newest run"
    argument = parser.add_argument("run", nargs=nargs, type=recipe_name, metavar="run", help=help_text)
    argument.completer = complete_runs  # type: ignore[attr-defined]


def load_recipes(
    options: argparse.Namespace, extra: Iterable[str] = (), *, any_size: bool | None = None
) -> tuple[LoadedRecipe, ...]:
    """Every recipe that the command line names. Raises InvalidRecipe with all problems.

    `any_size`: a matrix may be large; None: as --yes says.
    """
    from recipes.load import load_all
    from runners import registry

    overrides = [*options.overrides, *extra]
    any_size = options.yes if any_size is None else any_size
    return load_all(
        options.recipe, overrides=overrides, plugins=registry.installed(), cwd=Path.cwd(), any_size=any_size
    )


def complete_recipes(prefix: str, **_: object) -> list[str]:
    from recipes import catalogue

    files = [str(p) for p in Path().glob(f"{prefix}*") if p.suffix in (".yaml", ".yml") or p.is_dir()]
    return [*catalogue.names(), *files]


def forced_codes(options: argparse.Namespace) -> list[str]:
    """What --force names. Raises UsageError for a word that is no check's."""
    if not options.force:
        return []
    from recipes.errors import UsageError
    from recipes.explain import did_you_mean

    known = complete_codes("")
    for code in options.force:
        if code not in known:
            advice = did_you_mean(code, known) or f"known: {', '.join(known)}"
            raise UsageError(f"--force {code}: there is no such check", advice=advice)
    return list(options.force)


def complete_codes(prefix: str, **_: object) -> list[str]:
    from runners import registry
    from runners.preflight.explanations import known_words

    engines = [registry.engine(name) for name in registry.installed().engines]
    return [word for word in known_words(engines) if word.startswith(prefix)]


def complete_runs(prefix: str, **_: object) -> list[str]:
    from provisioners.site import recipe_home

    return sorted((p.name for p in (recipe_home() / "runs").glob(f"{prefix}*")), reverse=True)


def print_json(data: Any) -> None:
    print(json.dumps(data, ensure_ascii=False, indent=2))


def console(*, stderr: bool = False) -> Console:
    """Colour where it can be seen; NO_COLOR is obeyed. Lines are not wrapped where nobody watches."""
    from runners.terminal.console import SteadyConsole

    return SteadyConsole.on(sys.stderr if stderr else sys.stdout)
