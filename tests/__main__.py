"""The one entry for all checks, the same for people and CI: `python -m tests [--fast] [PYTEST ARGUMENTS]`.

Format, lint, types, import contracts, then the tests: the quick ones, those that start real processes (several at a
time, because they mostly wait), those with real vLLM last. `--fast` leaves out everything that starts a real engine.
The real ones need an SSH server, a browser and Prometheus; what is missing and may be installed, is.
"""

from __future__ import annotations

import os
import shutil
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


PROGRAMS = {"sshd": "openssh-server", "chromium": "chromium", "prometheus": "prometheus"}
"""What real tests start, and the Debian packages that bring it."""
QUICK, REAL, VLLM = "not real and not vllm", "real and not vllm", "vllm"
_AT_ONCE = ("-n", str(max(4, os.cpu_count() or 1)))
_A_FEW_EACH = ("--maxschedchunk", "4")
"""No worker has a queue of long ones left when the others have nothing to do."""
_NONE_COLLECTED = 5


def main(arguments: list[str]) -> int:
    """Run every check, also after one has failed; returns 0 if all passed."""
    fast = "--fast" in arguments
    rest = [argument for argument in arguments if argument != "--fast"]
    missing = [] if fast else _missing()
    if "sshd" in missing:
        print("the tests need sshd; install it, as with apt-get install openssh-server, or leave them out: --fast")
        return 1
    for program in missing:
        print(f"NOT TESTED: what needs {program}; apt-get install {PROGRAMS[program]} would bring it")
    pytest = [sys.executable, "-m", "pytest", *rest, "-m"]
    tests = {"quick tests": [*pytest, QUICK, *_AT_ONCE]}
    if not fast:
        tests |= {
            "tests with real processes": [*pytest, REAL, *_AT_ONCE, *_A_FEW_EACH],
            "tests with vLLM": [*pytest, VLLM],
        }
    failed = []
    for name, command in {**CHECKS, **tests}.items():
        started = time.monotonic()
        print(f"── {name}", flush=True)
        status = subprocess.run(list(map(str, command)), cwd=ROOT, env=_compiling()).returncode
        if status != 0 and not (status == _NONE_COLLECTED and rest):
            failed.append(name)
        print(f"   {time.monotonic() - started:.1f} s", flush=True)
    print(f"failed: {', '.join(failed)}" if failed else "all checks passed", flush=True)
    return 1 if failed else 0


def _compiling() -> dict[str, str]:
    """The environment in which Python keeps what it has compiled: a real test starts a dozen processes of ours."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _missing() -> list[str]:
    """The programs that real tests start and that are not here, after they were installed where that is possible."""
    packages = [package for program, package in PROGRAMS.items() if _where(program) is None]
    if packages and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
        for command in (["apt-get", "update"], install):
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL)
    return [program for program in PROGRAMS if _where(program) is None]


def _where(program: str) -> str | None:
    paths = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    return shutil.which(program, path=paths)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
