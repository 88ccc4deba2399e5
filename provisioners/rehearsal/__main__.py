"""The emulator as a process: prints one JSON line with its addresses and key, and serves until it is told to end."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from pathlib import Path

from provisioners.rehearsal.emulator import Emulator
from provisioners.rehearsal.faults import Faults
from recipes.errors import RecipeError


def main() -> int:
    arguments = _parser().parse_args()
    try:
        asyncio.run(_serve(arguments))
    except RecipeError as error:
        sys.stderr.write(f"{error.message}\n{error.advice}\n")
        return int(error.exit_code)
    return 0


async def _serve(arguments: argparse.Namespace) -> None:
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    if arguments.attached:
        await asyncio.get_running_loop().connect_read_pipe(lambda: _Attached(told), sys.stdin)
    emulator = Emulator(
        arguments.root,
        faults=arguments.faults,
        time_scale=arguments.time_scale,
        port=arguments.port,
        key=arguments.key,
        image_path=arguments.image_path,
        visible=arguments.visible,
        isolated=False if arguments.plain else None,
        keep_disks=arguments.keep_disks,
    )
    async with emulator:
        addresses = {"url": emulator.url, "graphql_url": emulator.graphql_url, "key": emulator.key}
        sys.stdout.write(json.dumps(addresses) + "\n")
        sys.stdout.flush()
        await told.wait()


class _Attached(asyncio.Protocol):
    """Ends the emulator with whoever holds its standard input."""

    def __init__(self, told: asyncio.Event) -> None:
        self._told = told

    def connection_lost(self, exc: Exception | None) -> None:
        self._told.set()


def _faults(text: str) -> Faults:
    try:
        return Faults.from_json(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m provisioners.rehearsal", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of the ledger, volumes and pods")
    parser.add_argument("--port", type=int, default=0, help="0 for one that is free")
    parser.add_argument("--time-scale", type=float, default=1.0, metavar="X", help="emulated seconds in a real one")
    parser.add_argument("--faults", type=_faults, default=Faults(), metavar="JSON", help="what goes wrong")
    parser.add_argument("--key", help="the account's key; random by default")
    parser.add_argument("--image-path", type=Path, metavar="DIR", help="folder that pods have first on their PATH")
    parser.add_argument("--visible", type=Path, action="append", default=[], metavar="DIR", help="folder that pods see")
    parser.add_argument("--plain", action="store_true", help="pods without namespaces, also for root")
    parser.add_argument("--attached", action="store_true", help="end when standard input closes")
    parser.add_argument("--keep-disks", action="store_true", help="keep the disks of pods that are gone")
    return parser


if __name__ == "__main__":
    sys.exit(main())
