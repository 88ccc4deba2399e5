"""A shell on a run's machine or a stack's, or one command there: recipe ssh RUN [COMMAND …]"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil

from provisioners.journal import Journal
from provisioners.site import recipe_home
from recipes.errors import NoMachine, UsageError
from runners import registry
from runners.cli.common import add_run
from runners.ledger import Ledger
from runners.machines import of_stack
from runners.run_folder import RunFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("command", nargs=argparse.REMAINDER, help="a command to run there instead of a shell")


def run(options: argparse.Namespace) -> int:
    home = recipe_home()
    ledger = Ledger(home)
    entry = of_stack(ledger, options.run)
    if entry is None:
        folder = RunFolder.find(home, options.run)
        entry = Journal(ledger.path).of_run(folder.run_id)
        if entry is None or not entry.open:
            raise UsageError(f"{folder.run_id} holds no machine", advice="see recipe ps")
    run_id = entry.lease.run_id
    argv = registry.provisioner(entry.lease.provider).login(entry.lease)
    if argv is None:
        raise NoMachine(
            f"{run_id}: no shell is known on its machine",
            advice="it is this machine, or it cannot be reached yet; see recipe ps",
        )
    if shutil.which(argv[0]) is None:
        raise NoMachine(f"{argv[0]} is not on this machine", advice="apt-get install openssh-client")
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    command = [shlex.join(words)] if words else []
    os.execvp(argv[0], [*argv, *command])  # noqa: S606 (this process becomes the shell)
