"""The command `recipe`: finds the subcommand, and imports nothing that it does not need."""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

# Command → what it does, in the order of --help.
COMMANDS = {
    "up": "plan, run, collect, and let the machine go",
    "watch": "all that is going on, live: in the terminal, or as a page",
    "ps": "what may be billing now, and whether somebody minds it",
    "attach": "take over a run whose client died",
    "chat": "talk to a run's engine",
    "ssh": "a shell on a run's machine",
    "down": "end a run and let its machine go",
    "reap": "end everything of yours that may be billing without a living run",
    "rehearse": "the whole run for free, on an emulated RunPod",
    "plan": "offers, checks, forecast and exact steps; changes nothing, costs nothing",
    "fit": "what serves a model: accelerators and how many, the cheapest first",
    "offers": "hardware and prices now, and what is known of accelerators",
    "validate": "check recipe files; every problem at once",
    "show": "a recipe with every default filled in",
    "list": "the catalogue",
    "split": "the chunks of texts that a workload would send, and their tokens",
    "init": "begin a recipe, or turn an older config file into one",
    "schema": "the JSON Schema of a recipe file, for editors",
    "runs": "the experiment log",
    "report": "what a run did, how fast, and what it cost",
    "compare": "what differed between runs, what came of it, and whether that is more than noise",
    "bill": "what the provider says by now that a run has cost",
    "check": "whether a run is what was asked of it, for CI",
    "export": "runs as JSON lines, CSV, Parquet or Markdown; to MLflow or Weights & Biases",
    "import": "runs of another machine into this experiment log",
    "logs": "a run's engine log, events or installation log",
    "stack": "what outlives a run: a volume with models, a pod that stays",
    "metrics": "runs for Prometheus and Grafana, live and afterwards",
    "doctor": "what is missing on this machine, and the command that mends it",
    "completion": "completion for bash, zsh or fish",
}
_PACKAGES = ("recipes", "provisioners", "stacks", "runners")
_DASHED = "--sort"
"""An option whose value may begin with a dash."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, this process's own if none is given; returns the exit code."""
    if argv is None:
        # Looking for garbage among what imports leave, time and again, is a tenth of a short command.
        gc.disable()
    try:
        _open_closed_streams()
        _interrupt_on_signals()
        return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        print("interrupted; nothing runs on", file=sys.stderr)
        return 130
    finally:
        if argv is None:
            gc.freeze()  # what the process ends with need not be looked through either


def _open_closed_streams() -> None:
    """A shell's `>&-` leaves no stream at all; what goes there goes nowhere, and the run goes on."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, PTH123
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115, PTH123


def _interrupt_on_signals() -> None:
    """SIGINT also where a shell started us in the background; SIGHUP unless nohup turned it off."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


def _dispatch(arguments: list[str]) -> int:
    if shadowed := _shadowed_package():
        print(shadowed, file=sys.stderr)
        return 2
    if "_ARGCOMPLETE" in os.environ:
        importlib.import_module("runners.cli.commands.completion").answer()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"recipe {version('gpu-recipe')}")
        return 0
    if arguments[0] not in COMMANDS:
        print(_unknown(arguments[0]), file=sys.stderr)
        return 2
    code: int = importlib.import_module("runners.cli.run").run_command(arguments[0], arguments[1:])
    return code


class Parser(argparse.ArgumentParser):
    """Says what was meant when an option is misspelt."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As always, but that `--sort -cost` is `--sort=-cost`, and that options may stand between names."""
        joined: list[str] = []
        for word in sys.argv[1:] if args is None else args:
            if joined and joined[-1] == _DASHED and word.startswith("-") and not word.startswith("--"):
                joined[-1] = f"{_DASHED}={word}"
            else:
                joined.append(word)
        found, left = super().parse_known_args(joined, namespace)
        several = (a for a in self._actions if not a.option_strings and a.nargs in ("*", "+") and a.type is None)
        names = next(several, None)
        if names is not None and left and not any(word.startswith("-") for word in left):
            setattr(found, names.dest, [*getattr(found, names.dest), *left])
            left = []
        return found, left

    def error(self, message: str) -> NoReturn:
        from recipes.explain import did_you_mean

        hint = ""
        if message.startswith("unrecognized arguments: "):
            word = message.removeprefix("unrecognized arguments: ").split()[0].partition("=")[0]
            hint = did_you_mean(word, list(_options(self)))
            hint = hint if hint.startswith("did you mean") else ""
        elif found := re.search(r"invalid choice: '(.+)' \(choose from (.+)\)", message):
            hint = did_you_mean(found[1], re.findall(r"[\w.-]+", found[2]))
            hint = hint if hint.startswith("did you mean") else ""
        print(f"{self.prog}: {message}{'; ' + hint if hint else ''}", file=sys.stderr)
        print(f"see {self.prog} --help", file=sys.stderr)
        if "--json" in sys.argv:
            import json

            print(json.dumps({"error": {"message": message, "advice": hint, "exit_code": 2}}))
        sys.exit(2)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A command's options, and those of the commands below it."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _options(below)


def parser_for(command: str) -> Parser:
    """The parser of one command."""
    module = importlib.import_module(f"runners.cli.commands.{command}")
    parser = Parser(
        prog=f"recipe {command}",
        description=module.__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return parser


def _help() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "usage: recipe COMMAND …",
            "",
            "Prove that a model fits, rent the machine, run the work, count the cost, let the machine go.",
            "",
            *(f"  {name.ljust(width)}   {what}" for name, what in COMMANDS.items()),
            "",
            "recipe COMMAND --help says more. Begin with: recipe up local-smoke",
        ]
    )


def _unknown(word: str) -> str:
    from recipes.explain import did_you_mean

    hint = did_you_mean(word, COMMANDS)
    return f"recipe: {word}: no such command; {hint if hint.startswith('did') else 'see recipe --help'}"


def _shadowed_package() -> str | None:
    """A message if one of the four packages is somebody else's: their names are general."""
    home = Path(__file__).parents[2]
    for name in _PACKAGES:
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).parents[1] if spec and spec.origin else None
        if found != home:
            where = spec.origin or next(iter(spec.submodule_search_locations or ()), "?") if spec else "nowhere"
            return (
                f"recipe: another package named {name} hides recipe's own: {where}\n"
                "next:   install recipe into an environment of its own (pipx install gpu-recipe), and unset PYTHONPATH"
            )
    return None
