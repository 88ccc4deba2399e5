"""What outlives a run: a volume that holds models, a pod. Each is a Pulumi stack.

recipe stack up model_cache RECIPE…   a volume for the models of these recipes
recipe stack up gpu_pod RECIPE        the recipe's pod, reached by ssh
recipe stack list                     what there is, and what of it bills
recipe stack destroy model_cache      delete it, with proof

A volume lies where the recipes' GPUs are. A pod stays until its deadline, or
until it is destroyed. A second one of the same program has a name behind it:
gpu_pod/ana. State lies in RECIPE_HOME/pulumi, or where PULUMI_BACKEND_URL says,
so that a team shares it. Pulumi's engine is needed: recipe stack install.
"""

from __future__ import annotations

import argparse
import asyncio
import shlex
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from recipes.errors import ExitCode, UsageError
from runners.cli.common import add_force, add_json, add_overrides, complete_recipes, forced_codes, load_recipes

if TYPE_CHECKING:
    from runners.cli.stacking import Wish


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(what=None, help=parser.format_help, json=False)
    commands = parser.add_subparsers(dest="what", metavar="COMMAND", title="commands")

    def command(name: str, what: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.", allow_abbrev=False)

    add_json(command("list", "the stacks there are, and what of them bills"))
    for name, what in (
        ("preview", "what up would change, and what it would cost; changes nothing"),
        ("up", "make a stack what its recipes ask for: preview, ask, do it"),
    ):
        parser_of = command(name, what)
        _add_stack(parser_of)
        _add_recipes(parser_of)
        if name == "up":
            parser_of.add_argument("--yes", action="store_true", help="ask nothing")
        add_json(parser_of)
    for name, what in (
        ("outputs", "what a stack has put out, such as a volume's id"),
        ("destroy", "delete everything that a stack holds, with proof, and the stack"),
        ("unlock", "lift the lock of somebody who died while changing a stack"),
    ):
        parser_of = command(name, what)
        _add_stack(parser_of)
        if name != "outputs":
            parser_of.add_argument("--yes", action="store_true", help="ask nothing")
        if name == "destroy":
            text = "model_cache: only this volume, which was made for a stack of this name, and which no stack has"
            parser_of.add_argument("--volume", metavar="ID", help=text)
        add_json(parser_of)
    inputs = command("inputs", "what a stack's Pulumi program is run with, for a plain pulumi up")
    _add_stack(inputs)
    _add_recipes(inputs)
    inputs.add_argument("--new", action="store_true", help="as for a stack that has never been updated")
    add_json(inputs)
    add_json(command("install", "get Pulumi's engine, of the version that fits, into RECIPE_HOME"))


def _add_stack(parser: argparse.ArgumentParser) -> None:
    help_text = "model_cache or gpu_pod; a second one of it: gpu_pod/NAME"
    argument = parser.add_argument("stack", metavar="STACK", help=help_text)
    argument.completer = complete_stacks  # type: ignore[attr-defined]


def _add_recipes(parser: argparse.ArgumentParser) -> None:
    help_text = "a recipe file, or a name of the catalogue; without one as at the last update"
    argument = parser.add_argument("recipe", nargs="*", default=[], metavar="RECIPE", help=help_text)
    argument.completer = complete_recipes  # type: ignore[attr-defined]
    add_overrides(parser)
    add_force(parser)
    parser.add_argument("--size", metavar="SIZE", help="model_cache: of the volume, such as 200GB; never made smaller")
    parser.add_argument("--region", metavar="PLACE", help="model_cache: the data centre, such as EU-RO-1")
    parser.add_argument("--fill", action="store_true", help="model_cache: download the models now, with a cheap pod")
    parser.add_argument("--volume", metavar="ID", help="model_cache: go on with this volume, which no stack has")


def complete_stacks(prefix: str, **_: object) -> list[str]:
    """The programs, and the stacks that this machine knows, as far as they begin so."""
    import os

    from provisioners.site import site_of
    from stacks.kept import all_kept
    from stacks.reference import PROGRAMS

    names = {*PROGRAMS, *(str(ref) for ref, _ in all_kept(site_of(os.environ)))}
    return sorted(name for name in names if name.startswith(prefix))


def run(options: argparse.Namespace) -> int:
    if options.what is None:
        print(options.help(), end="")
        return ExitCode.USAGE
    from runners.cli import stack_looks, stack_up, stacking

    ends: dict[str, Callable[[], Coroutine[Any, Any, int]]] = {
        "list": lambda: stack_looks.list_all(options.json),
        "install": lambda: stack_looks.install(options.json),
        "outputs": lambda: stacking.outputs(_wish(options)),
        "destroy": lambda: _destroy(options),
        "unlock": lambda: stacking.unlock(_wish(options)),
        "preview": lambda: stack_up.preview(_wish(options)),
        "up": lambda: stack_up.up(_wish(options)),
        "inputs": lambda: stacking.inputs(_wish(options), new=options.new),
    }
    return asyncio.run(ends[options.what]())


async def _destroy(options: argparse.Namespace) -> int:
    if options.volume is None:
        from runners.cli.stack_destroy import destroy

        return await destroy(_wish(options))
    from runners.cli.loose_volumes import destroy_volume
    from stacks.reference import StackRef

    ref = StackRef.parse(options.stack)
    return await destroy_volume(ref, options.volume, yes=options.yes, as_json=options.json)


def _wish(options: argparse.Namespace) -> Wish:
    from runners.cli.stacking import Wish
    from runners.stacking.program import StackOptions
    from stacks.reference import StackRef

    ref = StackRef.parse(options.stack)
    yes = getattr(options, "yes", False)
    if not hasattr(options, "recipe"):
        return Wish(ref=ref, yes=yes, as_json=options.json)
    return Wish(
        ref=ref,
        recipes=load_recipes(options, any_size=True) if options.recipe else (),  # a plan of each is made anyway
        options=StackOptions(
            size_gb=_size_gb(options.size),
            region=options.region,
            fill=options.fill,
            volume=options.volume,
            forced=tuple(forced_codes(options)),
        ),
        yes=yes,
        as_json=options.json,
        command=_command(options, str(ref)),
    )


def _command(options: argparse.Namespace, stack: str) -> str:
    """The command line that makes what is asked for, for people to type."""
    valued = [("--set", value) for value in options.overrides] + [("--force", code) for code in options.force]
    valued += [("--size", options.size), ("--region", options.region), ("--volume", options.volume)]
    words = [stack, *options.recipe, *(["--fill"] if options.fill else [])]
    words += [word for name, value in valued if value is not None for word in (name, value)]
    return shlex.join(["recipe", "stack", "up", *words])


def _size_gb(text: str | None) -> int | None:
    """Of 10⁹ bytes, rounded up. Raises UsageError."""
    if text is None:
        return None
    from recipes.units import parse_size

    try:
        size = -(-parse_size(text) // 10**9)
    except ValueError as error:
        raise UsageError(f"--size {error}") from error
    if not size:
        raise UsageError(f"--size {text}: no volume is that small", advice="write --size 200GB")
    return size
