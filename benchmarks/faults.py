"""The fault matrix, measured: what goes wrong, what recipe does, seconds until nothing bills, dollars spent.

    python benchmarks/faults.py [WORDS …]

Plays every fault (or those whose description holds all the words) against the emulator with the real engine in real
pods, and prints the table of docs/machines.md.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from provisioners.contract import Site  # noqa: E402
from provisioners.site import recipe_cache  # noqa: E402
from tests.conftest import Command, long_text  # noqa: E402
from tests.emulators.runpod import emulated, smoke_image  # noqa: E402
from tests.fault_matrix import MATRIX, Fault  # noqa: E402
from tests.fault_play import play  # noqa: E402
from tests.test_rented import UP  # noqa: E402


def measured(fault: Fault, image: Path) -> str:
    """The fault's row."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        book = long_text(home)
        with emulated(home / "runpod", image=image) as runpod:
            played = play(fault, Command(home / "home", home), runpod, UP, book)
            billing = runpod.billing
    if billing or played.status not in fault.codes:
        sys.exit(f"{fault.what}: exit {played.status}, billing {billing}\n{played.said}")
    code = f"exit {played.status}" + (", reap" if fault.then_reaped else "")
    return f"| {fault.what} | {fault.done} | {code} | {played.seconds:.1f} | {played.usd:.4f} |"


def main(words: list[str]) -> None:
    image = asyncio.run(smoke_image(Site(home=Path("/nowhere"), cache=recipe_cache())))
    print("| what goes wrong | what `recipe` does | ends with | seconds | dollars |\n|---|---|---|---|---|")
    for fault in MATRIX:
        if all(word in fault.what for word in words):
            print(measured(fault, image), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
