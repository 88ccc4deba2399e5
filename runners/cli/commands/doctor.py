"""What is missing on this machine, and the command that mends it. Fails only for what the local recipes need."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from recipes.errors import ExitCode
from runners.cli.common import add_json, print_json
from runners.doctor import examine
from runners.registry import site


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    checks = list(examine(site()))
    if options.json:
        print_json({"checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            mend = f"   → {check.mend}" if check.state != "ok" else ""
            print(f"{check.state:<8} {check.name:<15} {check.found}{mend}")
    return ExitCode.REFUSED if any(check.state == "broken" for check in checks) else ExitCode.DONE
