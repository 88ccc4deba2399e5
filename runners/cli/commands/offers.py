"""Hardware and prices of this moment, the cheapest first; --known lists what recipe knows of accelerators itself.

Without GPU and --count one accelerator of each kind is shown; --json holds every count.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from recipes.errors import NoMachine, UsageError
from runners.cli.common import add_json, console, positive, print_json

if TYPE_CHECKING:
    from provisioners.contract import Offer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    argument = parser.add_argument("gpu", nargs="?", metavar="GPU", help="only this kind, such as A100-80GB or H100")
    argument.completer = _complete_gpus  # type: ignore[attr-defined]
    parser.add_argument("--provisioner", default="runpod", help="whose hardware (default: runpod)")
    parser.add_argument("--cloud", choices=("secure", "community"))
    parser.add_argument("--count", type=positive, metavar="N", help="only machines with so many")
    parser.add_argument("--known", action="store_true", help="the built-in table: memory, bandwidth, speed; no network")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    return _known(options) if options.known else _offered(options)


def _offered(options: argparse.Namespace) -> int:
    from runners import registry

    if options.provisioner not in registry.installed().provisioners:
        raise UsageError(
            f"--provisioner {options.provisioner}: no such provisioner", advice="leave it out, or write runpod"
        )
    provisioner = registry.provisioner(options.provisioner)
    found = asyncio.run(provisioner.catalogue(cloud=options.cloud, accelerator=options.gpu))
    rows = [_row(offer) for offer in found if options.count in (None, offer.count)]
    if not rows:
        raise _nothing(options, any(found))
    if options.json:
        print_json({"offers": rows})
        return 0
    single = [row for row in rows if row["count"] == 1]
    shown = single if single and options.gpu is None and options.count is None else rows
    _show(shown, more=len(rows) - len(shown))
    return 0


def _row(offer: Offer) -> dict[str, Any]:
    """An offer's fields, with the name as a recipe writes it and what its driver gives to programs."""
    from runners.preflight.judge import machine_of
    from runners.preflight.solve import written

    accelerator = machine_of(offer).accelerator
    usable = accelerator.usable_gib if accelerator and not accelerator.assumed else offer.usable_gib
    return {**asdict(offer), "accelerators": written(offer), "usable_gib": usable}


def _nothing(options: argparse.Namespace, there_are_others: bool) -> NoMachine:
    name = options.provisioner
    if there_are_others:
        return NoMachine(
            f"{name} offers none with a count of {options.count}", advice="leave --count out to see what there is"
        )
    if options.gpu is None and options.cloud is None:
        return NoMachine(
            f"{name} has no catalogue: its machines are there or not", advice="recipe offers --known lists accelerators"
        )
    what = " ".join(filter(None, (options.gpu, f"in its {options.cloud} cloud" if options.cloud else "")))
    return NoMachine(f"{name} offers no {what}", advice="recipe offers lists what there is")


def _show(rows: list[dict[str, Any]], *, more: int) -> None:
    from runners.terminal.layout import width_of
    from runners.terminal.offers_view import offer_lines

    out = console()
    for line in offer_lines(rows, width_of(out), more=more):
        out.print(line)


def _known(options: argparse.Namespace) -> int:
    from provisioners import accelerators
    from provisioners.kinds import means
    from runners.terminal.layout import width_of
    from runners.terminal.offers_view import known_lines

    wanted, rows = options.gpu, accelerators.all_known()
    if wanted:
        found = accelerators.find(wanted)
        rows = tuple(one for one in rows if one == found or means(wanted, [one.name], one.label_gb.__eq__))
    if not rows:
        from recipes.explain import did_you_mean

        hint = did_you_mean(wanted, [one.name for one in accelerators.all_known()])
        raise UsageError(f"{wanted}: not in the table of accelerators", advice=hint)
    documents = [asdict(one) for one in rows]
    if options.json:
        print_json({"accelerators": documents})
        return 0
    out = console()
    for line in known_lines(documents, width_of(out)):
        out.print(line)
    return 0


def _complete_gpus(prefix: str, **_: object) -> list[str]:
    from provisioners import accelerators

    return [one.name for one in accelerators.all_known() if one.name.casefold().startswith(prefix.casefold())]
