"""The one entry for all checks, the same for people and CI: `python -m tests [--fast] [PYTEST ARGUMENTS]`.

Format, lint, types, import contracts, then the tests: the quick ones first, those with real vLLM last.
`--fast` leaves out everything that starts a real engine.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOOLS = Path(sys.executable).parent
CHECKS = {
    "format": [TOOLS / "ruff", "format", "--check", "--quiet", "."],
    "lint": [TOOLS / "ruff", "check", "--quiet", "."],
    "types": [TOOLS / "mypy"],
    "import contracts": [TOOLS / "lint-imports"],
}


def main(arguments: list[str]) -> int:
    """Run every check, also after one has failed; returns 0 if all passed."""
    fast = "--fast" in arguments
    rest = [argument for argument in arguments if argument != "--fast"]
    tests = [sys.executable, "-m", "pytest", *(["-m", "not real and not vllm"] if fast else []), *rest]
    failed = []
    for name, command in {**CHECKS, "tests": tests}.items():
        started = time.monotonic()
        print(f"── {name}", flush=True)
        if subprocess.run(list(map(str, command)), cwd=ROOT).returncode != 0:
            failed.append(name)
        print(f"   {time.monotonic() - started:.1f} s", flush=True)
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
