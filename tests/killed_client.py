"""Runs `recipe` and dies by SIGKILL at a step of the lease journal: `killed_client.py STEP before|after ARGUMENTS…`."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from provisioners.journal import Journal
from runners.cli import main


def main_until(step: str, when: str, arguments: list[str]) -> int:
    usual = getattr(Journal, step)

    def last(*given: Any) -> None:
        if when == "after":
            usual(*given)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(Journal, step, last)
    return main(arguments)


if __name__ == "__main__":
    sys.exit(main_until(sys.argv[1], sys.argv[2], sys.argv[3:]))
